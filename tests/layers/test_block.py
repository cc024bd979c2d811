"""The block that answers for single tokens."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import Block

from farl_lightning.models.block import QueryBlock


@pytest.fixture
def pair():
    torch.manual_seed(0)
    settings = {"dim": 12, "num_heads": 3, "qkv_bias": True, "qk_norm": True, "init_values": 0.5}
    plain = Block(**settings).double()
    block = QueryBlock(**settings).double()
    block.load_state_dict(plain.state_dict())
    return block, plain


def _grads(module, output):
    module.zero_grad()
    output.square().sum().backward()
    return {name: parameter.grad.clone() for name, parameter in module.named_parameters()}


def _same(ours, plain):
    assert ours.keys() == plain.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], plain[name], msg=lambda text, name=name: f"{name}: {text}")


def test_full_block_is_timms(pair):
    block, plain = pair
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(block(x), plain(x))
    _same(_grads(block, block(x)), _grads(plain, plain(x)))


@pytest.mark.parametrize("options", [{"is_causal": True}, {"attn_mask": torch.ones(5, 5, dtype=torch.bool).tril()}])
def test_attention_masks_pass_through(pair, options):
    block, plain = pair
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(block(x, **options), plain(x, **options))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_class_only(pair, count):
    block, plain = pair
    x = torch.randn(3, 5, 12, dtype=torch.float64)
    full = plain(x)
    first, rest = block(x, class_only=count)
    assert first.shape == (count, 1, 12)
    assert rest.shape == (3 - count, 5, 12)
    torch.testing.assert_close(first, full[:count, :1])
    torch.testing.assert_close(rest, full[count:])
    joined = torch.cat([first.flatten(), rest.flatten()])
    _same(_grads(block, joined), _grads(plain, torch.cat([full[:count, :1].flatten(), full[count:].flatten()])))


def test_at_positions(pair):
    block, plain = pair
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    at = torch.tensor([[4, 0, 2], [1, 1, 3]])
    full = plain(x)
    picked = torch.stack([full[0, at[0]], full[1, at[1]]])
    torch.testing.assert_close(block(x, at=at), picked)
    _same(_grads(block, block(x, at=at)), _grads(plain, torch.stack([plain(x)[0, at[0]], plain(x)[1, at[1]]])))


def test_only_what_is_read_reaches_the_mlp(pair):
    block, _ = pair
    seen = []
    block.mlp.register_forward_hook(lambda module, given, output: seen.append(tuple(given[0].shape)))
    block(torch.randn(3, 5, 12, dtype=torch.float64), class_only=2)
    block(torch.randn(3, 5, 12, dtype=torch.float64), at=torch.zeros(3, 2, dtype=torch.int64))
    assert seen == [(2, 1, 12), (1, 5, 12), (3, 2, 12)]
