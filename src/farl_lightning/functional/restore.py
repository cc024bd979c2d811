"""From a crop back to the picture it was cut from: labels and landmarks in source pixels, in bounded memory.

Mapping C logits to all H x W source pixels at once needs C x H x W numbers: 0.9 GB at 12 megapixels and 19 classes,
before any copy. Here a band of rows is mapped at a time, reduced to labels, and dropped. Bands are independent of each
other, so the result does not depend on their height.
"""

from __future__ import annotations

import torch
from torch import Tensor

from farl_lightning.functional.geometry import apply_matrix, invert_matrix
from farl_lightning.functional.warp import points_to_source, sample, source_to_crop_grid

BAND_VALUES = 1 << 22
"""Logits of a band: 16 MB in float32; what is made of them on the way takes about as much again."""


def restore_labels(
    logits: Tensor,
    matrix: Tensor,
    size: tuple[int, int],
    factor: float = 0.0,
    *,
    convention: str = "blueprint",
    band_values: int = BAND_VALUES,
) -> Tensor:
    """Map the logits of one crop to its source picture and take the best class of each pixel.

    As FaRL evaluates: logits, not labels, are interpolated (bilinear), and outside the crop all of them are 0, so that
    the first class, background, wins there.

    Args:
        logits: (C, S, S) of any floating dtype; C at most 256.
        matrix: (3, 3), source to crop pixels, before the tanh warp.
        size: Height and width of the source picture.
        factor: Factor of the tanh warp.
        convention: Where pixel centres lie, see :mod:`farl_lightning.functional.warp`.
        band_values: Interpolated logits that are held at a time, at least one row of the picture.

    Returns:
        (H, W) uint8 labels on the device of ``logits``.
    """
    height, width = size
    classes, crop = logits.shape[0], logits.shape[-1]
    labels = torch.zeros(height, width, dtype=torch.uint8, device=logits.device)
    left, top, right, bottom = _reach(matrix, size, crop, factor)
    if left >= right or top >= bottom:
        return labels
    source = logits.unsqueeze(0).float()
    place = matrix.unsqueeze(0).to(source)
    rows = max(1, band_values // (classes * (right - left)))
    for start in range(top, bottom, rows):
        stop = min(start + rows, bottom)
        grid = source_to_crop_grid(place, size, crop, factor, convention=convention, rows=(start, stop))
        band = sample(source, grid[:, :, left:right])
        labels[start:stop, left:right] = band[0].argmax(0).to(torch.uint8)
    return labels


def restore_landmarks(
    points: Tensor, matrix: Tensor, crop_size: int, factor: float = 0.0, *, convention: str = "blueprint"
) -> Tensor:
    """Map landmarks from crop pixels to source pixels; differentiable.

    Args:
        points: (B, N, 2) xy in crop pixels, pixel centres at integers.
        matrix: (B, 3, 3), source to crop pixels, before the tanh warp.
        crop_size: Side of the crop.
        factor: Factor of the tanh warp.
        convention: Where pixel centres lie, see :mod:`farl_lightning.functional.warp`.

    Returns:
        (B, N, 2) xy in source pixels, at least float32: half precision cannot tell the pixels of a large picture apart.
    """
    exact = points.float() if points.dtype in (torch.float16, torch.bfloat16) else points
    return points_to_source(exact, matrix.to(exact), crop_size, factor, convention=convention)


def _reach(matrix: Tensor, size: tuple[int, int], crop: int, factor: float) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of the source pixels that can see the crop at all.

    The tanh warp draws the whole plane into the crop. Without it, only pixels less than one crop pixel outside of the
    crop have a share in it; two are taken, for rounding and for the conventions' half pixel.
    """
    height, width = size
    if factor > 0:
        return 0, 0, width, height
    low, high = -2.0, crop + 1.0
    corners = torch.tensor([[low, low], [high, low], [low, high], [high, high]], dtype=torch.float64)
    seen = apply_matrix(corners, invert_matrix(matrix.double().cpu()))
    if not bool(seen.isfinite().all()):
        return 0, 0, 0, 0
    (left, top), (right, bottom) = seen.amin(0).floor().tolist(), seen.amax(0).ceil().tolist()
    return (
        int(min(max(left, 0), width)),
        int(min(max(top, 0), height)),
        int(min(max(right + 1, 0), width)),
        int(min(max(bottom + 1, 0), height)),
    )
