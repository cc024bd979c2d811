"""Cut the crop of one face, and its mask, out of a decoded picture in a single interpolation."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from farl_lightning.functional.geometry import box_matrix, compose_matrices, invert_matrix
from farl_lightning.functional.warp import Warp, crop_to_source_grid, source_bounds

Pixels = npt.NDArray[np.uint8]

GATHER_FROM = 4_000_000
"""Pixels of a picture that a crop spans, from which on its own pixels are gathered one by one: turning them all into
floats would take longer, and gigabytes at 12,000 pixels a side."""


class Crop(NamedTuple):
    """How a crop is cut.

    Attributes:
        matrix: (3, 3) float64, source to crop.
        size: Side of the crop in pixels.
        factor: Factor of the tanh warp.
        antialias: Whether a smaller crop averages over the pixels that it merges.
    """

    matrix: Tensor
    size: int
    factor: float = 0.0
    antialias: bool = False


def cut_image(image: Pixels, crop: Crop) -> Tensor:
    """Cut a picture, bilinear, 0 outside.

    Args:
        image: (H, W, 3) uint8.
        crop: Where.

    Returns:
        (3, size, size) float32 from 0 to 255.
    """
    part, matrix = _needed(image, crop)
    if part.size == 0:
        return torch.zeros(3, crop.size, crop.size)
    if crop.antialias:
        part, matrix = _shrink(part, matrix)
    if part.shape[0] * part.shape[1] > GATHER_FROM:
        return _gather_bilinear(part, crop._replace(matrix=matrix))
    return _warp(part, crop._replace(matrix=matrix), "bilinear")


def cut_mask(mask: Pixels, crop: Crop, outside: int = 0) -> Tensor:
    """Cut a label map, nearest.

    Args:
        mask: (H, W) uint8.
        crop: Where.
        outside: Label of what lies outside.

    Returns:
        (size, size) int64.
    """
    part, matrix = _needed(mask, crop)
    if part.size == 0:
        return torch.full((crop.size, crop.size), outside)
    crop = crop._replace(matrix=matrix)
    if part.shape[0] * part.shape[1] > GATHER_FROM:
        return _gather_nearest(part, crop, outside)
    return _warp(part[..., None], crop, "nearest", outside)[0].long()


def _needed(pixels: Pixels, crop: Crop) -> tuple[Pixels, Tensor]:
    """Return the part of a picture that a crop reads (maybe nothing of it), and the matrix from there."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = source_bounds(crop.matrix, crop.size, crop.factor).tolist()
    left, top = max(math.floor(left) - 1, 0), max(math.floor(top) - 1, 0)
    right, bottom = min(math.ceil(right) + 2, width), min(math.ceil(bottom) + 2, height)
    if right <= left or bottom <= top:
        return pixels[:0], crop.matrix
    origin = torch.eye(3, dtype=crop.matrix.dtype)
    origin[:2, 2] = origin.new_tensor([left, top])
    return pixels[top:bottom, left:right], compose_matrices(origin, crop.matrix)


def _as_tensor(pixels: Pixels) -> Tensor:
    """View (H, W, C) as a (1, C, H, W) uint8 tensor; read-only arrays are copied, which torch would warn about."""
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy()).permute(2, 0, 1)[None]


def _warp(pixels: Pixels, crop: Crop, mode: str, outside: int = 0) -> Tensor:
    """Interpolate (H, W, C) as floats; (C, size, size)."""
    source = _as_tensor(pixels).to(torch.float32, memory_format=torch.contiguous_format)
    warp = Warp(crop.matrix[None], (source.shape[-2], source.shape[-1]), crop.size, crop.factor)
    if not outside:
        return warp(source, mode)[0]
    return warp(source.sub_(outside), mode)[0].add_(outside)  # grid_sample knows no border but 0


def _shrink(pixels: Pixels, matrix: Tensor) -> tuple[Pixels, Tensor]:
    """Resize with antialiasing to the crop's own resolution, if that is lower."""
    zoom_x, zoom_y = matrix[:2, :2].norm(dim=0).clamp(max=1).tolist()
    height, width = pixels.shape[:2]
    size = max(math.ceil(height * zoom_y), 1), max(math.ceil(width * zoom_x), 1)
    if size == (height, width):
        return pixels, matrix
    small = F.interpolate(_as_tensor(pixels), size, mode="bilinear", antialias=True)
    whole = matrix.new_tensor([-0.5, -0.5, width - 0.5, height - 0.5])
    return small[0].permute(1, 2, 0).numpy(), compose_matrices(invert_matrix(box_matrix(whole, size)), matrix)


def _positions(crop: Crop) -> npt.NDArray[np.float64]:
    """Return where the crop's pixels lie in the source; (size, size, 2) xy."""
    positions: npt.NDArray[np.float64] = crop_to_source_grid(crop.matrix[None], crop.size, crop.factor)[0].numpy()
    return positions


def _gather_bilinear(pixels: Pixels, crop: Crop) -> Tensor:
    """Interpolate by reading the four neighbours of each of the crop's pixels."""
    positions = _positions(crop)
    corner = np.floor(positions)
    share = (positions - corner).astype(np.float32)
    result = np.zeros((crop.size, crop.size, 3), np.float32)
    for dx in (0, 1):
        for dy in (0, 1):
            weight = np.abs(1 - dx - share[..., 0]) * np.abs(1 - dy - share[..., 1])
            values, inside = _read(pixels, corner + np.array([dx, dy]))
            result += values * (weight * inside)[..., None]
    return torch.from_numpy(result).permute(2, 0, 1).contiguous()


def _gather_nearest(mask: Pixels, crop: Crop, outside: int) -> Tensor:
    """Read the nearest neighbour of each of the crop's pixels."""
    values, inside = _read(mask, np.rint(_positions(crop)))
    return torch.from_numpy(np.where(inside, values, outside).astype(np.int64))


def _read(pixels: Pixels, positions: npt.NDArray[np.float64]) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """Read pixels at whole positions, and say which lie inside the picture (the others read its border)."""
    height, width = pixels.shape[:2]
    x, y = positions[..., 0], positions[..., 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    rows, columns = y.clip(0, height - 1).astype(np.intp), x.clip(0, width - 1).astype(np.intp)
    return pixels[rows, columns], inside
