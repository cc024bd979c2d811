"""Landmarks as heatmaps and back. Batched, differentiable, and in float32 at least, also under autocast.

"Normalised" points are (x, y) on a picture whose sides have length 1: pixel ``p`` of a side of ``n`` pixels has its
centre at ``(p + 0.5) / n``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from farl_lightning.errors import ConfigError
from farl_lightning.functional.precision import at_least_float32

_TINY = 1e-6  # FaRL's smallest sum of a heatmap


def normalize_points(points: Tensor, size_wh: Sequence[int]) -> Tensor:
    """Turn pixels into normalised points.

    Args:
        points: (..., 2) xy in pixels, pixel centres at integers.
        size_wh: Width and height of the picture in pixels.

    Returns:
        (..., 2): (0, 0) is the outer corner of the first pixel, (1, 1) that of the last.
    """
    return (points + 0.5) / points.new_tensor(tuple(size_wh))


def denormalize_points(points: Tensor, size_wh: Sequence[int]) -> Tensor:
    """Undo :func:`normalize_points`.

    Args:
        points: (..., 2) normalised xy.
        size_wh: Width and height of the picture in pixels.
    """
    return points * points.new_tensor(tuple(size_wh)) - 0.5


def heatmap_to_points(heatmap: Tensor, t_scale: float | None = None) -> Tensor:
    """Read each landmark off its heatmap: the centre of mass (soft-argmax), as FaRL does.

    Args:
        heatmap: (B, N, H, W), 0 or more: logits after a sigmoid, say.
        t_scale: If given, the map is replaced by ``exp(t_scale * heatmap)`` first, which sharpens it.

    Returns:
        (B, N, 2) normalised xy, in float32 at least. An empty map gives the centre of the first pixel, with finite
        gradients.
    """
    mass = at_least_float32(heatmap)
    if t_scale is not None:  # the share of each pixel: no overflow however large t_scale is
        mass = (t_scale * mass).flatten(2).softmax(-1).view_as(mass)
    height, width = mass.shape[-2:]
    columns, rows = mass.sum(-2), mass.sum(-1)
    total = rows.sum(-1).clamp_min(_TINY)
    x = (columns * _steps(width, mass)).sum(-1) / total
    y = (rows * _steps(height, mass)).sum(-1) / total
    return normalize_points(torch.stack([x, y], -1), (width, height))


def points_to_heatmap(points: Tensor, size: int | tuple[int, int], radius: float = 5.0) -> Tensor:
    """Draw one heatmap per landmark: ``exp(-8 d² / R²)`` within distance R, and 0 beyond.

    That is a Gaussian with a standard deviation of R / 4, cut where it has fallen to 0.0003. A point beside the map
    still paints what of it lies on the map.

    Args:
        points: (B, N, 2) normalised xy; nan gives an empty map.
        size: Height and width of the map, or one number for a square.
        radius: R in pixels of the map; 5 in FaRL, on maps of 128.

    Returns:
        (B, N, H, W), 0 to 1, in float32 at least.

    Raises:
        ConfigError: If the radius is not above 0.
    """
    if not radius > 0:
        raise ConfigError(f"radius is {radius}; a heatmap needs a radius above 0, such as 5.0")
    height, width = (size, size) if isinstance(size, int) else size
    centre = denormalize_points(at_least_float32(points), (width, height))
    square = _squares(centre, height, width)
    return torch.where(square <= radius**2, torch.exp(square * (-8 / radius**2)), square.new_zeros(()))


def splat_cosine(background: Tensor, points: Tensor, values: Tensor, index: Tensor, radius: float) -> Tensor:
    """Add a soft dot per point onto pictures: ``(1 + cos(pi d / R)) / 2`` within distance R.

    Args:
        background: (B, C, H, W) what the dots are added to.
        points: (P, 2) xy in pixels, pixel centres at integers.
        values: (P, C) height of each dot.
        index: (P,) the picture that each dot belongs to.
        radius: R in pixels.

    Returns:
        (B, C, H, W).
    """
    distance = _squares(points, *background.shape[-2:]).sqrt()
    dots = torch.where(distance <= radius, 0.5 * torch.cos(distance * (math.pi / radius)) + 0.5, 0.0)
    return background.index_add(0, index.long(), values[:, :, None, None] * dots[:, None])


def sigmoid_x(logits: Tensor, margin: float = 1e-3) -> Tensor:
    """Stretch a sigmoid by a margin on either side and cut it at 0 and 1, so that it reaches both.

    Args:
        logits: Any shape.
        margin: How far the stretched sigmoid would go beyond 0 and 1.
    """
    return (logits.sigmoid() * (1 + 2 * margin) - margin).clamp(0, 1)


def _squares(points: Tensor, height: int, width: int) -> Tensor:
    """Return (..., H, W) squared distances of every pixel from points (..., 2)."""
    x = (_steps(width, points) - points[..., 0, None]).square()
    y = (_steps(height, points) - points[..., 1, None]).square()
    return y[..., :, None] + x[..., None, :]


def _steps(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, dtype=like.dtype, device=like.device)
