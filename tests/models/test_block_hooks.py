"""What a hook keeps of a block stays what it was."""

from __future__ import annotations

import torch

from farl_lightning.models.block import QueryBlock


def test_a_hook_keeps_what_a_part_answered():
    torch.manual_seed(0)
    block, kept = QueryBlock(16, 2).eval(), {}
    x = torch.randn(2, 5, 16)
    with torch.no_grad():
        plain = block(x.clone())
        for name in ("attn.proj", "mlp"):
            hook = lambda _module, _inputs, output, name=name: kept.update({name: (output, output.clone())})  # noqa: E731
            block.get_submodule(name).register_forward_hook(hook)
        torch.testing.assert_close(block(x.clone()), plain)
    assert all(torch.equal(*pair) for pair in kept.values())
    assert len(kept) == 2
