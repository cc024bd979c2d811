"""Positions for another picture size."""

from __future__ import annotations

import torch

from farl_lightning.functional.position import resize_positions


def test_same_grid_is_untouched():
    positions = torch.randn(10, 4)
    assert resize_positions(positions, (3, 3), (3, 3)) is positions


def test_class_token_stays_and_constants_stay_constant():
    positions = torch.cat([torch.randn(1, 4), torch.full((9, 4), 2.5)])
    resized = resize_positions(positions, (3, 3), (5, 7))
    assert resized.shape == (36, 4)
    assert torch.equal(resized[0], positions[0])
    torch.testing.assert_close(resized[1:], torch.full((35, 4), 2.5))


def test_bicubic_by_hand():
    """One row of four cells to two: taps at half-pixel centres, a = -0.75, edges repeated."""
    row = torch.tensor([1.0, 2.0, 4.0, 8.0])
    positions = torch.cat([torch.zeros(1, 1), row.view(4, 1)])
    weights = torch.tensor([-0.09375, 0.59375, 0.59375, -0.09375])
    first = (weights * row[[0, 0, 1, 2]]).sum()
    second = (weights * row[[1, 2, 3, 3]]).sum()
    torch.testing.assert_close(resize_positions(positions, (1, 4), (1, 2))[1:, 0], torch.stack([first, second]))


def test_precision_is_kept():
    assert resize_positions(torch.randn(5, 2).bfloat16(), (2, 2), (3, 3)).dtype == torch.bfloat16
