"""What a model sees in a picture, drawn over it: label maps, mistakes, landmarks, heatmaps.

Plain arrays in and out, in the size of the picture and without figures, so that thousands of them can be written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from farl_lightning.visualization.grid import Pixels
from farl_lightning.visualization.palette import colorize

Labels = NDArray[Any]
"""(H, W) integer labels."""
Points = NDArray[Any]
"""(N, 2) xy in pixels, pixel centres at integers."""

TRUTH, PREDICTION = (46, 204, 64), (255, 45, 150)
"""Colours of true and predicted landmarks."""

MISTAKES: dict[str, tuple[int, int, int]] = {
    "missed": (40, 120, 255),
    "surplus": (255, 190, 0),
    "confused": (235, 30, 30),
}
"""Colours of :func:`error_map`."""
_UNKNOWN = (160, 160, 160)


def overlay_mask(
    image: Pixels, mask: Labels, palette: Pixels, *, strength: float = 0.5, background: int | None = 0
) -> Pixels:
    """Tint the regions of a label map, each with an outline.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) labels; those without a colour, such as 255, are left as they are.
        palette: (C, 3) uint8.
        strength: 0 shows the picture alone, 1 the colours alone.
        background: Label that is not tinted; None tints all.

    Returns:
        (H, W, 3) uint8.
    """
    tinted = (mask >= 0) & (mask < len(palette))
    if background is not None:
        tinted &= mask != background
    colors = colorize(mask, palette)
    cover = np.where(outline(mask), min(1.0, 0.35 + strength), strength) * tinted
    return _blend(image, colors, cover)


def outline(mask: Labels) -> NDArray[np.bool_]:
    """Mark the pixels that have a neighbour of another label.

    Args:
        mask: (H, W) labels.

    Returns:
        (H, W) bool.
    """
    edge = np.zeros(mask.shape, dtype=np.bool_)
    down, right = mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge


def error_map(
    pred: Labels, target: Labels, image: Pixels | None = None, *, background: int | None = 0, ignore_index: int = 255
) -> Pixels:
    """Show where labels are wrong, over a faint grey picture.

    Colours are those of :data:`MISTAKES`: ``missed`` (a part taken for background), ``surplus`` (background taken for a
    part), ``confused`` (one part taken for another). Pixels that do not count are light grey.

    Args:
        pred: (H, W) predicted labels.
        target: (H, W) true labels.
        image: (H, W, 3) uint8; None draws on white.
        background: Label of the background; None calls every mistake ``confused``.
        ignore_index: Label of true pixels that do not count.

    Returns:
        (H, W, 3) uint8.
    """
    base = np.full((*target.shape, 3), 255, dtype=np.uint8)
    if image is not None:
        grey = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
        base = np.repeat((150 + 0.4 * grey)[..., None], 3, axis=-1).clip(0, 255).astype(np.uint8)
    wrong = (pred != target) & (target != ignore_index)
    kinds = {"confused": wrong}
    if background is not None:
        kinds["missed"] = wrong & (pred == background)
        kinds["surplus"] = wrong & (target == background)
    for name, where in kinds.items():
        base[where] = MISTAKES[name]
    base[target == ignore_index] = _UNKNOWN
    return base


def overlay_landmarks(
    image: Pixels, pred: Points | None = None, truth: Points | None = None, *, radius: float | None = None
) -> Pixels:
    """Draw landmarks as dots: predicted ones pink, true ones green, with a line between the two of each pair.

    Args:
        image: (H, W, 3) uint8.
        pred: (N, 2) predicted landmarks.
        truth: (N, 2) true landmarks. Landmarks that are not finite are left out; those outside do not show.
        radius: Of a dot, in pixels; by default 1/160 of the shorter side, at least 1.

    Returns:
        (H, W, 3) uint8, a copy.
    """
    canvas = image.astype(np.float32)
    radius = max(1.0, min(image.shape[:2]) / 160) if radius is None else radius
    if pred is not None and truth is not None:
        for start, end in zip(truth, pred, strict=True):
            _stroke(canvas, start, end, 0.4 * radius, (255, 255, 255))
    for points, color in ((truth, TRUTH), (pred, PREDICTION)):
        for point in () if points is None else points:
            _stroke(canvas, point, point, 1.5 * radius, (0, 0, 0), 0.45)  # a rim that shows on any skin
            _stroke(canvas, point, point, radius, color)
    return _to_uint8(canvas)


def overlay_heatmap(image: Pixels, heatmap: NDArray[Any], *, strength: float = 0.85) -> Pixels:
    """Show a heatmap over a darkened grey picture.

    Args:
        image: (H, W, 3) uint8.
        heatmap: (h, w) or (N, h, w), 0 to 1; of several the largest value shows. Stretched over the picture.
        strength: How much a value of 1 covers.

    Returns:
        (H, W, 3) uint8.
    """
    from matplotlib import colormaps

    heat = np.nan_to_num(np.asarray(heatmap, dtype=np.float32))
    heat = (heat.max(axis=0, initial=0.0) if heat.ndim == 3 else heat).clip(0, 1)
    heat = _stretched(heat, image.shape[:2]).clip(0, 1)
    grey = np.repeat(25 + 0.65 * image.mean(axis=2, keepdims=True), 3, axis=2)
    colors = 255 * np.asarray(colormaps["inferno"](0.15 + 0.85 * heat))[..., :3]
    return _blend(grey, colors, strength * np.sqrt(heat))


def _stretched(heat: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    """Resize a map bilinearly."""
    from PIL import Image

    resized = Image.fromarray(heat).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)


def _stroke(
    canvas: NDArray[np.float32],
    start: Points,
    end: Points,
    radius: float,
    color: tuple[int, int, int],
    cover: float = 1.0,
) -> None:
    """Draw a line with round ends (a dot, if both ends are one point) with soft edges, in place."""
    if not (np.isfinite(start).all() and np.isfinite(end).all()):
        return
    height, width = canvas.shape[:2]
    low = np.floor(np.minimum(start, end) - radius - 1)
    high = np.ceil(np.maximum(start, end) + radius + 2)
    (left, top), (right, bottom) = low.clip(0, (width, height)).astype(int), high.clip(0, (width, height)).astype(int)
    if left >= right or top >= bottom:
        return
    x = np.arange(left, right) - start[0]
    y = (np.arange(top, bottom) - start[1])[:, None]
    way = np.asarray(end, dtype=np.float64) - start
    along = ((x * way[0] + y * way[1]) / max(float(way @ way), 1e-12)).clip(0, 1)
    distance = np.hypot(x - along * way[0], y - along * way[1])
    alpha = cover * (radius + 0.5 - distance).clip(0, 1)[..., None]
    patch = canvas[top:bottom, left:right]
    patch += alpha * (np.array(color, dtype=np.float32) - patch)


def _blend(below: NDArray[Any], above: NDArray[Any], cover: NDArray[Any]) -> Pixels:
    """Lay one picture over another."""
    share = cover[..., None].astype(np.float32)
    return _to_uint8(below * (1 - share) + above * share)


def _to_uint8(picture: NDArray[Any]) -> Pixels:
    """Round to bytes."""
    pixels: Pixels = np.rint(picture).clip(0, 255).astype(np.uint8)
    return pixels
