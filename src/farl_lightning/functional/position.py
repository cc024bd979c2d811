"""Learned positions for another picture size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_positions(positions: Tensor, old_grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    """Resample learned positions to another grid, as FaRL does: bicubic, half-pixel centres, no antialiasing.

    Args:
        positions: (1 + N, D), the class token's position first.
        old_grid: Patches (rows, columns), N in all.
        new_grid: Patches (rows, columns) wanted.

    Returns:
        (1 + N', D) of the same dtype; the class token's position is unchanged.
    """
    if old_grid == new_grid:
        return positions
    cells = positions[1:].T.reshape(1, -1, *old_grid)
    resized = F.interpolate(cells.float(), new_grid, mode="bicubic", align_corners=False)
    return torch.cat([positions[:1], resized[0].flatten(1).T.to(positions.dtype)])
