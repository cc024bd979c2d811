"""Diagrams of results by subgroup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from farl_lightning.visualization.grid import Pixels, new_figure, printable, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _FAINT = "#24292f", "#d0d7de"
_COLORS = {"worst": "#cf222e", "best": "#1a7f37", "too few": "#8c959f", "": "#0969da"}


def subgroup_picture(
    tables: Mapping[str, Sequence[Mapping[str, Any]]], *, outcome: str = "mean", title: str = "Results by subgroup"
) -> Pixels:
    """Draw the mean of every subgroup with its interval, one panel per column.

    The worst group is red, the best one green, those of too few faces grey. A line marks the mean over all faces.

    Args:
        tables: For each column its rows, as ``SubgroupTable.rows`` has them: ``group``, ``faces``, ``mean``, ``low``,
            ``high``, ``difference`` and ``note``.
        outcome: Name of what is averaged, for the axis.
        title: Title.

    Returns:
        (height, width, 3) uint8.
    """
    shown = {name: rows for name, rows in tables.items() if rows}
    heights = [0.25 * len(rows) + 0.65 for rows in shown.values()] or [1.0]
    figure = new_figure(7.2, sum(heights), title)
    panels = figure.subplots(len(heights), 1, squeeze=False, sharex=True, gridspec_kw={"height_ratios": heights})
    for axis, (name, rows) in zip(panels[:, 0], shown.items(), strict=False):
        _draw(axis, rows)
        axis.set_title(printable(name), fontsize=9, loc="left")
    panels[-1, 0].set_xlabel(printable(outcome), fontsize=9)
    return render(figure)


def _draw(axis: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw the groups of one column, the first at the top."""
    first = rows[0]
    axis.axvline(first["mean"] - first["difference"], color=_FAINT, linewidth=1.2, zorder=0)
    for place, row in enumerate(rows):
        color = _COLORS[row["note"]]
        axis.plot([row["low"], row["high"]], [place, place], color=color, linewidth=1.6)  # nan draws nothing
        axis.plot([row["mean"]], [place], "o", color=color, markersize=5)
    labels = [f"{printable(row['group'])}  ({row['faces']})" for row in rows]
    axis.set_yticks(range(len(rows)), labels, fontsize=8)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.tick_params(axis="x", labelsize=8, colors=_INK)
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.grid(axis="x", color=_FAINT, linewidth=0.5)
