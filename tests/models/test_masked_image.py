"""The masked image head against the slow way."""

from __future__ import annotations

import pytest
import torch

from farl_lightning.errors import ConfigError
from farl_lightning.layers.activation import QuickGELU
from farl_lightning.models.masked_image import MaskedImageHead, masked_positions
from tests.models import plain
from tests.models.conftest import shake


def _head(depth):
    torch.manual_seed(0)
    return shake(MaskedImageHead(12, 3, depth, 7).double())


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_values_and_gradients(depth, checkpointing, patch_mask):
    head = _head(depth)
    head.set_grad_checkpointing(checkpointing)
    tokens = torch.randn(3, 17, 12, dtype=torch.float64, requires_grad=True)
    results = []
    for logits in (head(tokens, patch_mask), plain.logits(head, tokens)[patch_mask]):
        head.zero_grad()
        tokens.grad = None
        logits.square().sum().backward()
        results.append(
            [logits.detach(), tokens.grad.clone(), *(parameter.grad.clone() for parameter in head.parameters())]
        )
    assert results[0][0].shape == (int(patch_mask.sum()), 7)
    for ours, slow in zip(*results, strict=True):
        torch.testing.assert_close(ours, slow)


def test_all_patches_without_a_mask():
    head = _head(2)
    tokens = torch.randn(2, 10, 12, dtype=torch.float64)
    logits = head(tokens)
    assert logits.shape == (2, 9, 7)
    torch.testing.assert_close(logits, plain.logits(head, tokens))


def test_no_masked_patch_at_all():
    head = _head(1)
    logits = head(torch.randn(2, 10, 12, dtype=torch.float64), torch.zeros(2, 9, dtype=torch.bool))
    assert logits.shape == (0, 7)
    logits.sum().backward()  # a process without masked patches takes part in the gradient exchange
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_last_block_works_at_masked_positions_only(patch_mask):
    head = _head(2)
    rows = []
    for block in head.blocks:
        block.mlp.register_forward_hook(lambda module, given, output: rows.append(tuple(given[0].shape[:2])))
    head(torch.randn(3, 17, 12, dtype=torch.float64), patch_mask)
    assert rows == [(3, 17), (3, int(patch_mask.sum(1).max()))]


def test_masked_positions():
    mask = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]).bool()
    at, valid = masked_positions(mask)
    assert at[valid].tolist() == [1, 3, 0]
    assert valid.tolist() == [[True, True], [False, False], [True, False]]


def test_structure_is_farls():
    head = MaskedImageHead(768, 12, 1, 8192)
    assert sum(parameter.numel() for parameter in head.parameters()) == 7_087_872 + 2 * 768 + 768 * 8192 + 8192
    assert head.norm.eps == 1e-5
    assert type(head.blocks[0].mlp.act) is QuickGELU


def test_impossible_sizes():
    with pytest.raises(ConfigError, match=r"got depth=-1, width=12, heads=5"):
        MaskedImageHead(12, 5, -1, 3)
