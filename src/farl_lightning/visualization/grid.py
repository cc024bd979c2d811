"""Pictures of batches: grids of images with titles and captions, masked patches, ranked captions.

Drawn with matplotlib's object API on an Agg canvas: no window, no global state, safe in any thread.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

_DPI = 100
_GOOD, _PLAIN = "#1a7f37", "#57606a"


def to_pixels(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Pixels:
    """Undo the normalisation of network input.

    Args:
        images: (B, 3, H, W), normalised with ``mean`` and ``std`` of RGB in [0, 1].
        mean: Per-channel mean.
        std: Per-channel standard deviation.

    Returns:
        (B, H, W, 3) uint8.
    """
    images = images.detach().float().cpu()
    restored = images * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
    pixels: Pixels = (restored.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return pixels


def hide_patches(images: Pixels, patch_mask: Tensor, *, color: int = 128, strength: float = 1.0) -> Pixels:
    """Cover the masked patches of images.

    Args:
        images: (B, H, W, 3) uint8.
        patch_mask: (B, N) bool, True = cover; N patches row by row, on a square grid.
        color: Grey level of the cover, 0 to 255.
        strength: 1 hides the patch, less lets it shine through.

    Returns:
        (B, H, W, 3) uint8.
    """
    side = round(patch_mask.shape[1] ** 0.5)
    grid = patch_mask.detach().cpu().view(-1, 1, side, side).float()
    size = (images.shape[1], images.shape[2])
    cover = strength * torch.nn.functional.interpolate(grid, size=size, mode="nearest").squeeze(1).unsqueeze(-1).numpy()
    blended: Pixels = (images * (1 - cover) + color * cover).round().astype(np.uint8)
    return blended


def image_grid(
    rows: Sequence[Sequence[Pixels]],
    *,
    titles: Sequence[str] = (),
    captions: Sequence[str] = (),
    cell: float = 1.6,
    title: str = "",
) -> Pixels:
    """Draw images in rows, with a title over each column and a caption beside each row.

    Args:
        rows: For each row its images, (H, W, 3) uint8 of any size.
        titles: One per column.
        captions: One per row, wrapped to the right of the images.
        cell: Side of a cell in inches of 100 pixels.
        title: Title of the whole picture.

    Returns:
        (height, width, 3) uint8.
    """
    columns = max((len(row) for row in rows), default=1)
    text_width = 3.2 if any(captions) else 0.0
    figure = new_figure(columns * cell + text_width, len(rows) * cell + (0.3 if titles else 0), title)
    widths = [cell] * columns + ([text_width] if text_width else [])
    axes = figure.subplots(len(rows), len(widths), squeeze=False, gridspec_kw={"width_ratios": widths})
    for row, cells in enumerate(axes):
        for column, axis in enumerate(cells):
            axis.axis("off")
            if column < len(rows[row]):
                show(axis, rows[row][column], titles[column] if row == 0 and column < len(titles) else "")
        if text_width and row < len(captions):
            _write(cells[-1], captions[row])
    return render(figure)


def contact_sheet(
    images: Sequence[Pixels], captions: Sequence[str] = (), *, columns: int = 8, cell: float = 1.4, title: str = ""
) -> Pixels:
    """Draw many images with a short caption under each.

    Args:
        images: (H, W, 3) uint8 each, of any size.
        captions: One per image; long ones are shortened.
        columns: Images per row.
        cell: Side of a cell in inches of 100 pixels.
        title: Title of the whole picture.

    Returns:
        (height, width, 3) uint8.
    """
    columns = max(1, min(columns, len(images)))
    count = max(1, -(-len(images) // columns))
    figure = new_figure(columns * cell, count * cell * (1.32 if any(captions) else 1.0), title)
    axes = figure.subplots(count, columns, squeeze=False)
    for index, axis in enumerate(axes.flat):
        axis.axis("off")
        if index < len(images):
            show(axis, images[index])
            if index < len(captions):
                text = _wrapped(captions[index], max(8, int(cell * 15)), lines=3)
                axis.text(0.5, -0.04, text, transform=axis.transAxes, ha="center", va="top", fontsize=6.5)
    return render(figure)


class RankedCaption(NamedTuple):
    """A caption as a model ranks it for an image."""

    rank: int
    """1 for the best."""
    text: str
    similarity: float
    own: bool
    """Whether it belongs to the image."""


def caption_ranking(
    images: Sequence[Pixels], ranked: Sequence[Sequence[RankedCaption]], *, cell: float = 1.7, title: str = ""
) -> Pixels:
    """Draw images beside captions in the order of a model; an image's own caption is marked.

    Args:
        images: (H, W, 3) uint8 each.
        ranked: For each image its captions, best first.
        cell: Side of an image in inches of 100 pixels.
        title: Title of the whole picture.

    Returns:
        (height, width, 3) uint8.
    """
    figure = new_figure(cell + 7.0, len(images) * cell, title)
    axes = figure.subplots(len(images), 2, squeeze=False, gridspec_kw={"width_ratios": [cell, 7.0]})
    for (left, right), image, captions in zip(axes, images, ranked, strict=True):
        left.axis("off")
        right.axis("off")
        show(left, image)
        for line, caption in enumerate(captions):
            _write_ranked(right, caption, 1 - (line + 0.5) / len(captions))
    return render(figure)


def _write_ranked(axis: Axes, caption: RankedCaption, height: float) -> None:
    """Write one line of a ranking: mark, rank, similarity, text."""
    style: dict[str, Any] = {"color": _GOOD, "weight": "bold"} if caption.own else {"color": _PLAIN}
    cells = [(0.0, "✓" if caption.own else ""), (0.025, f"{caption.rank}."), (0.07, f"{caption.similarity:+.2f}")]
    for position, text in [*cells, (0.14, _wrapped(caption.text, 90, lines=1))]:
        axis.text(position, height, text, transform=axis.transAxes, va="center", fontsize=8, **style)


def show(axis: Axes, image: Pixels, title: str = "") -> None:
    """Show one image in an axis, without ticks.

    Args:
        axis: Where.
        image: (H, W, 3) uint8.
        title: Text above it.
    """
    axis.imshow(image, interpolation="nearest" if max(image.shape[:2]) <= 96 else "antialiased")
    axis.axis("off")
    if title:
        axis.set_title(title, fontsize=8, pad=3)


def render(figure: Figure) -> Pixels:
    """Return what a figure shows.

    Args:
        figure: A figure with any canvas.

    Returns:
        (height, width, 3) uint8.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # captions come in all scripts
        canvas.draw()
    pixels: Pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return pixels


def save_png(picture: Pixels, path: str | Path) -> Path:
    """Write a picture as PNG, making its folder.

    Args:
        picture: (H, W, 3) uint8.
        path: The file.

    Returns:
        The path.
    """
    from PIL import Image

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, format="PNG")
    return path


def new_figure(width: float, height: float, title: str) -> Any:
    """Make an empty matplotlib figure, with room for a title.

    Args:
        width: In inches of 100 pixels, without the title.
        height: In inches of 100 pixels, without the title.
        title: Text above everything; empty for none.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    size = (max(width, 1.0), max(height, 1.0) + (0.35 if title else 0))
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    figure = Figure(figsize=size, dpi=_DPI, layout=layout)
    if title:
        figure.suptitle(printable(title), fontsize=10)
    return figure


def _write(axis: Axes, text: str) -> None:
    """Write a wrapped caption at the left of an axis."""
    axis.text(0.02, 0.5, _wrapped(text, 42, lines=6), transform=axis.transAxes, va="center", ha="left", fontsize=8)


def _wrapped(text: str, width: int, lines: int) -> str:
    """Break text into lines, and cut what does not fit."""
    return "\n".join(textwrap.wrap(printable(text), width, max_lines=lines, placeholder=" …"))


def printable(text: str) -> str:
    """Return text without what matplotlib would read as mathematics, and without control characters.

    Args:
        text: Any text.
    """
    return "".join(letter for letter in text if letter.isprintable()).replace("$", r"\$")
