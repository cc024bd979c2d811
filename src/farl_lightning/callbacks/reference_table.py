"""Published numbers beside one's own, and tables of an evaluation as CSV files."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COLUMNS = ("metric", "FaRL paper", "how it was selected", "yours", "difference")


def reference_table(metrics: Mapping[str, float], references: Mapping[str, Mapping[str, Any]]) -> str:
    """Return an aligned table of every metric that has a published value.

    Numbers have as many decimals as the published one.

    Args:
        metrics: The values of a run by name.
        references: For each metric ``paper``, ``selection`` and ``mark``, as far as they are known. Those of metrics
            that were not measured are listed, too.

    Returns:
        The table; empty when nothing has a published value.
    """
    rows = [
        _row(name, entry, metrics.get(name)) for name, entry in references.items() if entry.get("paper") is not None
    ]
    return aligned([COLUMNS, *rows]) if rows else ""


def _row(name: str, entry: Mapping[str, Any], value: float | None) -> tuple[str, ...]:
    """Return the cells of one metric."""
    paper, text = float(entry["paper"]), f"{entry['paper']}"
    digits = len(text.partition(".")[2])
    selection = entry.get("selection") or "not stated"
    if entry.get("mark") == "recalled":
        selection += " (recalled, not confirmed)"
    if value is None:
        return name, text, selection, "not measured", ""
    if not math.isfinite(value):
        return name, text, selection, "n/a", ""
    return name, text, selection, f"{value:.{digits}f}", f"{value - paper:+.{digits}f}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text as columns, with a rule below the first row.

    Args:
        rows: Of equal length.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(len(line) for line in lines), *lines[1:]])


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a CSV file with a header; what is no finite number is left empty.

    Args:
        path: The file; made with its folder.
        rows: With any keys; the columns are all of them, in the order in which they first appear.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)


def _cell(value: Any) -> Any:
    """Return what stands in a cell."""
    return "" if value is None or (isinstance(value, float) and not math.isfinite(value)) else value
