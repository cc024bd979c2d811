"""Test-time augmentation: several views of a crop, and what a network says of them brought back into the plain view."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from farl_lightning.errors import ConfigError
from farl_lightning.functional.warp import sample


class View(NamedTuple):
    """One way of looking at a crop.

    Attributes:
        zoom: Magnification about the centre of the crop; below 1 shows a black border.
        flip: Whether left and right are exchanged, after zooming.
    """

    zoom: float = 1.0
    flip: bool = False

    @property
    def plain(self) -> bool:
        """Whether nothing is changed."""
        return self == View()


def make_views(scales: Sequence[float] = (), flip: bool = False) -> list[View]:
    """List views, the plain one first.

    Args:
        scales: Further magnifications, such as ``(0.9, 1.1)``.
        flip: Whether each view is also looked at in a mirror.

    Raises:
        ConfigError: If a magnification is not above 0.
    """
    if wrong := [scale for scale in scales if not scale > 0]:
        raise ConfigError(f"tta_scales has {wrong}; magnifications must be above 0, such as [0.9, 1.1]")
    zooms = dict.fromkeys((1.0, *(float(scale) for scale in scales)))
    return [View(zoom, mirrored) for zoom in zooms for mirrored in ((False, True) if flip else (False,))]


def swap_order(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Return where each class or landmark is found after left and right were exchanged.

    Args:
        count: Number of classes or landmarks.
        pairs: Those that a horizontal flip exchanges.

    Example:
        >>> swap_order(4, [(1, 2)])
        [0, 2, 1, 3]
    """
    order = list(range(count))
    for one, other in pairs:
        order[one], order[other] = other, one
    return order


def view_images(images: Tensor, view: View, black: Tensor) -> Tensor:
    """Look at crops in another way.

    Args:
        images: (B, 3, S, S), normalised.
        view: How.
        black: (3,) value of a black pixel after normalisation: what lies outside of the crop.
    """
    seen = images
    if view.zoom != 1:
        border = black.to(images).view(-1, 1, 1)
        seen = _zoom(images - border, view.zoom) + border
    return seen.flip(-1) if view.flip else seen


def merge_logits(views: Sequence[View], logits: Sequence[Tensor], pairs: Iterable[tuple[int, int]] = ()) -> Tensor:
    """Average the logits of several views, each pixel over the views that show it.

    Args:
        views: The plain view and others.
        logits: (B, C, S, S) for each view, in the view's own pixels.
        pairs: Classes that a horizontal flip exchanges.

    Returns:
        (B, C, S, S) float32 in the pixels of the plain view.
    """
    order = swap_order(logits[0].shape[1], pairs)
    total = torch.zeros_like(logits[0], dtype=torch.float32)
    weight = total.new_zeros(1, 1, *total.shape[2:])
    for view, seen in zip(views, logits, strict=True):
        back = seen.float().flip(-1)[:, order] if view.flip else seen.float()
        total += back if view.zoom == 1 else _zoom(back, 1 / view.zoom)
        weight += 1 if view.zoom == 1 else _zoom(torch.ones_like(weight), 1 / view.zoom)
    return total / weight


def merge_points(
    views: Sequence[View], points: Sequence[Tensor], size: int, pairs: Iterable[tuple[int, int]] = ()
) -> Tensor:
    """Average the landmarks of several views; a view counts for the landmarks that it shows.

    Args:
        views: The plain view first.
        points: (B, N, 2) xy for each view, in the view's own pixels, pixel centres at integers.
        size: Side S of the crop.
        pairs: Landmarks that a horizontal flip exchanges.

    Returns:
        (B, N, 2) xy in the pixels of the plain view.
    """
    order, center = swap_order(points[0].shape[1], pairs), (size - 1) / 2
    total, weight = torch.zeros_like(points[0]), torch.zeros_like(points[0][..., :1])
    for view, seen in zip(views, points, strict=True):
        back = (seen - center) * seen.new_tensor([-1.0, 1.0])
        back = back[:, order] if view.flip else seen - center
        shown = ((points[0] - center).abs() * view.zoom <= center).all(-1, keepdim=True) | (view.zoom <= 1)
        total, weight = total + shown * back / view.zoom, weight + shown
    return total / weight + center


def _zoom(pictures: Tensor, zoom: float) -> Tensor:
    """Magnify about the centre, bilinear, with zeros outside."""
    side = pictures.shape[-1]
    axis = (torch.arange(side, device=pictures.device, dtype=torch.float32) - (side - 1) / 2) / zoom + (side - 1) / 2
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    return sample(pictures, grid.expand(len(pictures), -1, -1, -1))
