"""Diagrams that compare representations: a metric over the share of labels."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from typing import NamedTuple

from farl_lightning.visualization.grid import new_figure, printable

_INK, _FAINT = "#24292f", "#d0d7de"
_COLORS = ("#0b6bcb", "#c2571a", "#1a7f37", "#8250df", "#bf3989", "#57606a", "#9a6700", "#0e7c86")
_MARKS = "osD^vPX*"
_LOCK = threading.Lock()  # matplotlib reads two settings when it saves, and all threads share them


class Series(NamedTuple):
    """One line of a diagram.

    Attributes:
        title: Its name in the legend.
        x: Shares of labels in percent, ascending.
        y: Means.
        spread: Standard deviations; 0 where none is known.
    """

    title: str
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float]


def comparison_svg(series: Sequence[Series], *, title: str = "", label: str = "") -> str:
    """Draw a metric over the share of labels, one line per representation, as an SVG file.

    Text becomes outlines, so that the picture holds nothing that could be executed and looks alike everywhere.

    Args:
        series: What is compared; at least one.
        title: Title.
        label: Name of the metric, for the vertical axis.

    Returns:
        The text of the file; the same for the same series.
    """
    import matplotlib

    figure = new_figure(6.4, 3.6, title)
    axis = figure.subplots()
    for index, line in enumerate(series):
        style = {"color": _COLORS[index % len(_COLORS)], "marker": _MARKS[index % len(_MARKS)]}
        axis.errorbar(
            line.x,
            line.y,
            yerr=line.spread,
            label=printable(line.title),
            linewidth=1.6,
            capsize=3,
            markersize=5,
            **style,
        )
    ticks = sorted({share for line in series for share in line.x})
    axis.set_xscale("log")
    axis.set_xticks(ticks, [f"{share:g} %" for share in ticks])
    axis.minorticks_off()
    axis.set(xlabel="share of the labels", ylabel=printable(label))
    axis.margins(x=0.15)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.tick_params(labelsize=8, colors=_INK)
    axis.grid(color=_FAINT, linewidth=0.6)
    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    text = io.StringIO()
    # equal pictures are equal files, in any font
    with _LOCK, matplotlib.rc_context({"svg.hashsalt": "farl-lightning", "svg.fonttype": "path"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
