"""Bilinear resizing, and convolutions of resized maps that never make the large map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly with half-pixel centres and without antialiasing, as FaRL does throughout.

    Args:
        x: (B, C, H, W).
        size: Height and width wanted.

    Returns:
        (B, C, *size); the input itself where nothing is to be done.
    """
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=False)


def resize_matrix(old: int, new: int, like: Tensor) -> Tensor:
    """Return (new, old): the matrix that resizes a row of values bilinearly.

    Args:
        old: Values that there are.
        new: Values wanted.
        like: Gives dtype and device.
    """
    eye = torch.eye(old, dtype=like.dtype, device=like.device)
    return F.interpolate(eye[None], new, mode="linear", align_corners=False)[0].T


def conv_resized(x: Tensor, weight: Tensor, size: tuple[int, int]) -> Tensor:
    """Convolve a map as if it had been resized bilinearly before: ``conv2d(resize(x, size), weight, padding="same")``.

    Mixing channels and resizing are linear and act on different axes, so they can change places: every tap of the
    kernel mixes the channels of the small map, and the shifted taps are resized and summed by one small matrix per
    axis. Enlarging f times, this takes 1/f² of the multiplications in the channels, and the large map with its
    channels never exists. The result is the same up to rounding.

    Args:
        x: (B, C, h, w).
        weight: (O, C, K, L), both sides odd.
        size: Height and width (H, W) of the map to be convolved.

    Returns:
        (B, O, H, W), channels last in memory.
    """
    height, width = size
    rows, columns = weight.shape[2:]
    batch, _, h, w = x.shape
    across = _shifted(resize_matrix(w, width, x), columns)  # (W, w * L)
    down = _shifted(resize_matrix(h, height, x), rows, taps_first=True)  # (H, K * h)
    cells = x.permute(0, 2, 3, 1)
    wide = []
    for row in weight.permute(2, 1, 3, 0):  # (C, L, O)
        mixed = cells @ row.flatten(1)  # (B, h, w, L * O)
        wide.append(across @ mixed.reshape(batch, h, w * columns, -1))  # (B, h, W, O)
    stacked = torch.stack(wide, 1).flatten(3).flatten(1, 2)  # (B, K * h, W * O)
    return (down @ stacked).view(batch, height, width, -1).permute(0, 3, 1, 2)


def _shifted(matrix: Tensor, taps: int, taps_first: bool = False) -> Tensor:
    """Set copies of a (new, old) matrix beside each other, each shifted by one tap of a kernel, zeros outside."""
    new, half = len(matrix), taps // 2
    padded = F.pad(matrix, (0, 0, half, half))
    copies = torch.stack([padded[tap : tap + new] for tap in range(taps)], 1 if taps_first else 2)
    return copies.flatten(1)
