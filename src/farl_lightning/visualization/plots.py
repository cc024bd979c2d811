"""Diagrams of results: cumulative error distribution, receiver operating characteristic, confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from farl_lightning.functional.verification import Roc, area_under, equal_error_rate
from farl_lightning.visualization.grid import Pixels, new_figure, printable, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _FAINT = "#24292f", "#d0d7de"


def ced_plot(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    threshold: float | None = None,
    normalizer: str = "",
    title: str = "Cumulative error distribution",
) -> Pixels:
    """Draw cumulative error distributions, one line per subset, with area and failure rate in the legend.

    Args:
        curves: For each name ascending thresholds and the share of errors up to each; ``""`` means all faces and is
            drawn first and bold. ``CED.curves`` fits.
        threshold: Where area and failure rate are taken; by default at the end of the thresholds.
        normalizer: What errors were divided by, for the axis.
        title: Title.

    Returns:
        (height, width, 3) uint8.
    """
    figure = new_figure(6.4, 4.4, title)
    axis = figure.subplots()
    last = 0.0
    for name, (thresholds, shares) in curves.items():
        x, y = np.asarray(thresholds, dtype=float), np.asarray(shares, dtype=float)
        if not len(x) or np.isnan(y).any():
            continue
        end = float(x[-1]) if threshold is None else threshold
        last = max(last, end)
        style: dict[str, Any] = {"linewidth": 1.4} if name else {"linewidth": 2.6, "color": _INK}
        axis.step(100 * x, 100 * y, where="post", label=_curve_label(name, x, y, end), **style)
    by = f", divided by {normalizer.replace('_', '-')}" if normalizer else ""
    axis.set(xlabel=f"error{printable(by)} (%)", ylabel="faces with at most this error (%)")
    axis.set(xlim=(0, 100 * last or 1), ylim=(0, 101))
    _tidy(axis)
    axis.grid(color=_FAINT, linewidth=0.6)
    if last:
        axis.legend(fontsize=8, loc="lower right", framealpha=0.9)
    return render(figure)


def _curve_label(name: str, x: Any, y: Any, threshold: float) -> str:
    """Name a curve, with its area and failure rate."""
    inside = x <= threshold * (1 + 1e-9)  # a threshold of 0.07 is 700 steps of 0.0001, give or take a rounding
    grid, share = x[inside], y[inside]
    area = float(((share[1:] + share[:-1]) / 2 * np.diff(grid)).sum()) / threshold
    failures = 1 - (float(share[-1]) if len(share) else 0.0)
    return f"{printable(name) or 'all faces'}  ·  AUC {100 * area:.1f}  FR {100 * failures:.1f}"


def roc_plot(curves: Mapping[str, Roc], *, title: str = "Verification: pairs accepted") -> Pixels:
    """Draw receiver operating characteristics over a logarithmic axis, with area and equal error rate in the legend.

    Args:
        curves: For each list of pairs its curve; ``VerificationScores.curve`` fits. Lists without both kinds of pairs
            are left out. Where no impostor is accepted, the line begins at half the share of one.
        title: Title.

    Returns:
        (height, width, 3) uint8.
    """
    figure = new_figure(6.4, 4.4, title)
    axis = figure.subplots()
    lowest = 0.1
    for name, roc in curves.items():
        far, tar = roc.far.cpu().numpy(), roc.tar.cpu().numpy()
        if np.isnan(far).any() or np.isnan(tar).any():
            continue
        start = far[far > 0].min() / 2
        lowest = min(lowest, start)
        label = f"{printable(name)}  ·  AUC {100 * area_under(roc):.1f}  EER {100 * equal_error_rate(roc):.1f}"
        axis.step(100 * np.maximum(far, start), 100 * tar, where="post", label=label, linewidth=1.6)
    axis.set(xscale="log", xlim=(100 * lowest, 100), ylim=(0, 101))
    axis.set(xlabel="pairs of two people accepted (FAR, %)", ylabel="pairs of one person accepted (TAR, %)")
    _tidy(axis)
    axis.grid(color=_FAINT, linewidth=0.6)
    if axis.get_lines():
        axis.legend(fontsize=8, loc="lower right", framealpha=0.9)
    return render(figure)


def confusion_picture(
    table: ArrayLike, names: Sequence[str], *, title: str = "Confusion of classes", percent: bool = True
) -> Pixels:
    """Draw a confusion matrix: rows are true classes, columns predicted ones.

    Args:
        table: (C, C) counts.
        names: Class names by label.
        title: Title.
        percent: Whether cells are shares of their row in percent; else counts.

    Returns:
        (height, width, 3) uint8. Classes that do not occur in the truth have an empty row.
    """
    counts = np.asarray(table, dtype=float)
    rows = counts.sum(axis=1, keepdims=True)
    shares = np.divide(100 * counts, rows, out=np.full_like(counts, np.nan), where=rows > 0)
    side = max(2.6, 0.42 * len(names))
    figure = new_figure(side + 2.0, side + 1.0, title)
    axis = figure.subplots()
    axis.imshow(np.sqrt(shares / 100), cmap="Blues", vmin=0, vmax=1)  # the root, so that a few percent show
    axis.set_facecolor("#f6f8fa")  # shows through the rows of classes that do not occur
    _write_cells(axis, counts, shares, percent)
    labels = [printable(name) for name in names]
    axis.set_xticks(range(len(names)), labels, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    found = [label if count else f"{label} (none)" for label, count in zip(labels, rows, strict=True)]
    axis.set_yticks(range(len(names)), found, fontsize=8)
    for line in np.arange(0.5, len(names) - 1):
        axis.axhline(line, color="white", linewidth=0.8)
        axis.axvline(line, color="white", linewidth=0.8)
    axis.set(xlabel="predicted" + (" (% of the true pixels)" if percent else " (pixels)"), ylabel="true")
    axis.tick_params(length=0)
    _tidy(axis)
    return render(figure)


def _write_cells(axis: Axes, counts: Any, shares: Any, percent: bool) -> None:
    """Write the number of each cell that is not negligible."""
    for row, column in np.argwhere(counts > 0):
        share = shares[row, column]
        if share < 0.1 and row != column:
            continue
        text = (f"{share:.0f}" if share >= 9.95 else f"{share:.1f}") if percent else _short(counts[row, column])
        axis.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if share > 28 else _INK)


def _short(count: float) -> str:
    """Write a count in at most four letters or so."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.3g}{unit}"
    return f"{count:.0f}"


def _tidy(axis: Axes) -> None:
    """Remove the frame, keep the ink quiet."""
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(_FAINT)
    axis.tick_params(labelsize=8, colors=_INK)
