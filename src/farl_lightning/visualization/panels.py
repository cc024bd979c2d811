"""Rows of pictures that show what a dense model did with a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from farl_lightning.visualization.grid import Pixels, image_grid, new_figure, printable, render
from farl_lightning.visualization.overlay import (
    MISTAKES,
    PREDICTION,
    TRUTH,
    Labels,
    Points,
    error_map,
    overlay_heatmap,
    overlay_landmarks,
    overlay_mask,
)
from farl_lightning.visualization.palette import class_palette


def parsing_panel(
    images: Sequence[Pixels],
    truths: Sequence[Labels] | None,
    preds: Sequence[Labels],
    names: Sequence[str],
    *,
    captions: Sequence[str] = (),
    cell: float = 2.0,
    title: str = "",
) -> Pixels:
    """Draw one row per picture: input, truth, prediction, mistakes; below, what the colours mean.

    Args:
        images: (H, W, 3) uint8 each.
        truths: (H, W) true labels each, 255 = ignore; None when there are none.
        preds: (H, W) predicted labels each.
        names: Class names by label.
        captions: One per row.
        cell: Side of a picture in inches of 100 pixels.
        title: Title.

    Returns:
        (height, width, 3) uint8.
    """
    palette = class_palette(names)
    rows = []
    for index, (image, pred) in enumerate(zip(images, preds, strict=True)):
        row = [image, overlay_mask(image, pred, palette)]
        if truths is not None:
            row[1:1] = [overlay_mask(image, truths[index], palette)]
            row.append(error_map(pred, truths[index], image))
        rows.append(row)
    titles = ["input", "prediction"] if truths is None else ["input", "truth", "prediction", "mistakes"]
    legend = dict(zip(names[1:], palette[1:], strict=True))
    colors = legend | ({} if truths is None else MISTAKES)
    grid = image_grid(rows, titles=titles, captions=captions, cell=cell, title=title)
    return with_legend(grid, {name: tuple(int(c) for c in color) for name, color in colors.items()})


def alignment_panel(
    images: Sequence[Pixels],
    truths: Sequence[Points] | None,
    preds: Sequence[Points],
    heatmaps: Sequence[NDArray[Any]] | None = None,
    *,
    captions: Sequence[str] = (),
    cell: float = 2.6,
    title: str = "",
) -> Pixels:
    """Draw one row per picture: true and predicted landmarks, and the heatmaps that they were read off.

    Args:
        images: (H, W, 3) uint8 each.
        truths: (N, 2) true landmarks each; None when there are none.
        preds: (N, 2) predicted landmarks each.
        heatmaps: (N, h, w) predicted heatmaps each, 0 to 1.
        captions: One per row.
        cell: Side of a picture in inches of 100 pixels.
        title: Title.

    Returns:
        (height, width, 3) uint8.
    """
    rows = []
    for index, (image, pred) in enumerate(zip(images, preds, strict=True)):
        row = [image, overlay_landmarks(image, pred, None if truths is None else truths[index])]
        if heatmaps is not None:
            row.append(overlay_heatmap(image, heatmaps[index]))
        rows.append(row)
    titles = ["input", "landmarks", *(["all heatmaps"] if heatmaps is not None else [])]
    colors = {"prediction": PREDICTION} | ({} if truths is None else {"truth": TRUTH})
    return with_legend(image_grid(rows, titles=titles, captions=captions, cell=cell, title=title), colors)


def heatmap_panel(
    image: Pixels,
    heatmaps: NDArray[Any],
    points: Points | None = None,
    *,
    names: Sequence[str] = (),
    count: int = 11,
    columns: int = 4,
    title: str = "",
) -> Pixels:
    """Draw all heatmaps of one picture in one, and some of them alone.

    Args:
        image: (H, W, 3) uint8.
        heatmaps: (N, h, w), 0 to 1.
        points: (N, 2) landmarks in pixels of the picture, each marked on its own heatmap.
        names: Names of the landmarks; numbers by default.
        count: How many to draw alone, spread evenly over the order.
        columns: Pictures per row.
        title: Title.

    Returns:
        (height, width, 3) uint8.
    """
    chosen = np.unique(np.linspace(0, len(heatmaps) - 1, min(count, len(heatmaps))).round().astype(int))
    pictures, labels = [overlay_heatmap(image, heatmaps)], ["all"]
    for index in chosen:
        alone = overlay_heatmap(image, heatmaps[index])
        pictures.append(alone if points is None else overlay_landmarks(alone, points[index : index + 1]))
        labels.append(names[index] if names else str(index))
    lines = []
    for start in range(0, len(pictures), columns):
        part = slice(start, start + columns)
        lines.append(image_grid([pictures[part]], titles=labels[part], title="" if start else title))
    return _stacked(lines)


def with_legend(picture: Pixels, colors: Mapping[str, Sequence[int]]) -> Pixels:
    """Add a line (or more) below a picture that names colours.

    Args:
        picture: (H, W, 3) uint8.
        colors: Red, green and blue, 0 to 255, by name.

    Returns:
        (H + legend, W, 3) uint8.
    """
    from matplotlib.patches import Patch

    if not colors:
        return picture
    longest = max(len(name) for name in colors)
    width = picture.shape[1] / 100
    columns = max(1, min(len(colors), int(width / (0.075 * longest + 0.45))))
    figure = new_figure(width, 0.1 + 0.2 * -(-len(colors) // columns), "")
    patches = [
        Patch(facecolor="#{:02x}{:02x}{:02x}".format(*color), edgecolor="#57606a", linewidth=0.5, label=printable(name))
        for name, color in colors.items()
    ]
    figure.legend(handles=patches, ncols=columns, loc="center", fontsize=7.5, frameon=False, handlelength=1.2)
    return _stacked([picture, _trimmed(render(figure))])


def _trimmed(picture: Pixels, margin: int = 6) -> Pixels:
    """Cut white rows off above and below."""
    rows = np.flatnonzero((picture < 255).any(axis=(1, 2)))
    return picture[max(0, rows[0] - margin) : rows[-1] + 1 + margin] if len(rows) else picture


def _stacked(pictures: Sequence[Pixels]) -> Pixels:
    """Put pictures below each other, on white."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in pictures]
    return np.concatenate(padded)
