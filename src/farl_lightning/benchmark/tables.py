"""The table: one per task, rows are representations and published rows, columns are ways of tuning and labels."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from farl_lightning.benchmark.cells import percent
from farl_lightning.benchmark.config import METHODS, Benchmark, Published, Task
from farl_lightning.benchmark.store import Record
from farl_lightning.benchmark.summary import Summary, average, best, deviation

Column = tuple[str, float]
"""Way of tuning, and share of the labels."""

_TITLES = {
    "frozen": "frozen encoder",
    "finetune": "fine-tuned",
    "lora": "LoRA",
    "linear": "linear probe",
    "knn": "k-NN",
}


@dataclass(frozen=True)
class Entry:
    """What stands in one place of a table.

    Attributes:
        text: The number, or why there is none.
        leads: Whether it is the best of ours in its column.
        note: More, for those who ask.
    """

    text: str = ""
    leads: bool = False
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        title: Whose numbers they are.
        entries: One for each column.
        published: Whether they are a paper's.
    """

    title: str
    entries: Sequence[Entry]
    published: bool = False


@dataclass(frozen=True)
class Table:
    """The table of one task.

    Attributes:
        task: The task.
        columns: What each column is.
        rows: Ours, then published ones.
    """

    task: Task
    columns: Sequence[Column]
    rows: Sequence[Row]

    @property
    def heading(self) -> str:
        """Name of the task, its metric and which way is better."""
        unit = f" ({self.task.unit})" if self.task.unit else ""
        better = "higher" if self.task.mode == "max" else "lower"
        return f"{self.task.title}: {self.task.metric.removeprefix('test/')}{unit}, {better} is better"


def make_tables(summaries: Sequence[Summary]) -> list[Table]:
    """Lay summaries out as tables.

    Args:
        summaries: Of all tasks.
    """
    tasks = {summary.task.name: summary.task for summary in summaries}
    return [_table(task, [entry for entry in summaries if entry.task.name == name]) for name, task in tasks.items()]


def _table(task: Task, summaries: Sequence[Summary]) -> Table:
    """Lay out one task."""
    columns = _columns(task, summaries)
    by_place = {(entry.encoder.name, entry.method, entry.labels): entry for entry in summaries}
    leaders = [best(entry for entry in summaries if (entry.method, entry.labels) == column) for column in columns]
    encoders = {entry.encoder.name: entry.encoder for entry in summaries}
    rows = [
        Row(
            encoder.title,
            [_entry(by_place.get((name, *column)), leader) for column, leader in zip(columns, leaders, strict=True)],
        )
        for name, encoder in encoders.items()
    ]
    return Table(task, columns, [*rows, *_published(task, columns)])


def _columns(task: Task, summaries: Sequence[Summary]) -> list[Column]:
    """Return the columns: ours, and those of published rows."""
    ours = [(entry.method, entry.labels) for entry in summaries]
    theirs = [(row.method, float(row.labels)) for row in task.reference]
    return sorted({*ours, *theirs}, key=lambda column: (METHODS.index(column[0]), column[1]))


def column_title(column: Column) -> str:
    """Return the heading of a column.

    Args:
        column: Way of tuning, and share of the labels.
    """
    return f"{_TITLES[column[0]]}, {percent(column[1])} % labels"


def number(value: float | None, spread: float | None, digits: int) -> str:
    """Write a mean and its deviation.

    Args:
        value: The mean, or None.
        spread: Standard deviation, or None.
        digits: Decimals.

    Example:
        >>> number(81.234, 0.456, 2)
        '81.23 ± 0.46'
    """
    if value is None:
        return ""
    return f"{value:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def _entry(summary: Summary | None, leader: Summary | None) -> Entry:
    """Write one of our numbers."""
    if summary is None:
        return Entry()
    text = number(summary.mean, summary.std, summary.task.digits)
    missing = summary.seeds - len(summary.values)
    failed = len(summary.reasons)
    if missing:
        what = f"{failed} of {summary.seeds} failed" if failed else f"{len(summary.values)} of {summary.seeds} seeds"
        lacking = "failed" if failed == summary.seeds else "not run" if not (failed or summary.values) else f"({what})"
        text = f"{text} {lacking}".strip()
    return Entry(text, leader is not None and summary is leader, "; ".join(dict.fromkeys(summary.reasons)))


def _published(task: Task, columns: Sequence[Column]) -> list[Row]:
    """Write published rows, one for each model; numbers have the decimals of their source."""
    rows: dict[str, dict[Column, Entry]] = {}
    for row in task.reference:
        on = f" on {row.data}" if row.data else ""
        title = f"{row.model} (published{on})"
        doubt = " (recalled)" if row.mark == "recalled" else ""
        rows.setdefault(title, {})[row.method, float(row.labels)] = Entry(f"{row.value}{doubt}", note=row.source)
    return [Row(title, [found.get(column, Entry()) for column in columns], True) for title, found in rows.items()]


def markdown(benchmark: Benchmark, tables: Sequence[Table], pretrained: Mapping[str, Record]) -> str:
    """Return the whole table as Markdown.

    Args:
        benchmark: What was measured.
        tables: Of all tasks.
        pretrained: What became of encoders that were pretrained, by name.
    """
    parts = [f"# {_cell(benchmark.title)}", _cell(benchmark.about), footnote(benchmark)]
    for table in tables:
        head = ["", *(column_title(column) for column in table.columns)]
        rows = [[row.title, *(_marked(entry) for entry in row.entries)] for row in table.rows]
        parts += [f"## {_cell(table.heading)}", _grid([head, *rows])]
        notes = failures(table)
        parts += ["\n".join(f"- failed: {_cell(note)}" for note in notes)] if notes else []
    if pretrained:
        parts += ["## Pretraining", _grid([["", "seconds", "steps"], *pretraining_rows(benchmark, pretrained)])]
    return "\n\n".join(part for part in parts if part) + "\n"


def footnote(benchmark: Benchmark) -> str:
    """Say what the numbers are.

    Args:
        benchmark: What was measured.
    """
    count = len(benchmark.seeds)
    seeds = ", ".join(map(str, benchmark.seeds))
    if count == 1:
        return f"One seed ({seeds}): no deviation is known."
    return f"Mean ± standard deviation over {count} seeds ({seeds}); each draws other labels, batches and new weights."


def failures(table: Table) -> list[str]:
    """Return why cells of a table failed, each once.

    Args:
        table: Of one task.
    """
    found = [
        f"{row.title}, {column_title(column)}: {entry.note}"
        for row in table.rows
        if not row.published
        for column, entry in zip(table.columns, row.entries, strict=True)
        if entry.note
    ]
    return list(dict.fromkeys(found))


def pretraining_rows(benchmark: Benchmark, pretrained: Mapping[str, Record]) -> list[list[str]]:
    """Return title, seconds and steps of each encoder that was pretrained.

    Args:
        benchmark: What was measured.
        pretrained: By name of the encoder.
    """
    rows = []
    for encoder in benchmark.encoders:
        record = pretrained.get(encoder.name)
        if record is not None:
            failed = record.state == "failed"
            seconds = "failed" if failed else f"{record.details.get('seconds', record.seconds):.0f}"
            rows.append([encoder.title, seconds, record.reason if failed else str(record.details.get("steps", ""))])
    return rows


def _grid(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a table of Markdown."""
    lines = ["| " + " | ".join(_cell(text) for text in row) + " |" for row in rows]
    rule = "|" + "|".join([" --- ", *(" ---: " for _ in rows[0][1:])]) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _marked(entry: Entry) -> str:
    """Return a number; the best of its column is bold."""
    return f"**{entry.text}**" if entry.leads else entry.text


def _cell(text: str) -> str:
    """Return text that cannot leave its cell."""
    kept = " ".join(text.split())
    for mark in ("\\", "|", "<", ">", "`"):
        kept = kept.replace(mark, f"\\{mark}" if mark in "\\|`" else {"<": "&lt;", ">": "&gt;"}[mark])
    return kept


def plain_rows(summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    """Return one flat row for each entry and each published number, for CSV and JSON.

    Args:
        summaries: Of all tasks.
    """
    rows = [_plain_row(entry) for entry in summaries]
    for task in {entry.task.name: entry.task for entry in summaries}.values():
        rows += [_plain_published(task, row) for row in task.reference]
    return rows


def _plain_row(entry: Summary) -> dict[str, Any]:
    """Return one of our entries."""
    return {
        "task": entry.task.name,
        "metric": entry.task.metric,
        "unit": entry.task.unit,
        "better": entry.task.mode,
        "encoder": entry.encoder.name,
        "method": entry.method,
        "labels": entry.labels,
        "mean": entry.mean,
        "std": entry.std,
        "seeds": len(entry.values),
        "failed": len(entry.reasons),
        "gain": average(entry.gains),
        "gain_std": deviation(entry.gains),
        "published": False,
        "source": "",
    }


def _plain_published(task: Task, row: Published) -> dict[str, Any]:
    """Return a published number."""
    return {
        "task": task.name,
        "metric": task.metric,
        "unit": task.unit,
        "better": task.mode,
        "encoder": row.model,
        "method": row.method,
        "labels": float(row.labels),
        "mean": row.value,
        "published": True,
        "source": "; ".join(part for part in (row.data, row.mark, row.source) if part),
    }


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV with a header; what is unknown is left empty.

    Args:
        rows: Of :func:`plain_rows`.
    """
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value is None else _safe(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _safe(value: Any) -> Any:
    """Return a value that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def as_plain(
    benchmark: Benchmark,
    summaries: Sequence[Summary],
    records: Mapping[str, Record],
    versions: Mapping[str, str | None],
) -> dict[str, Any]:
    """Return everything as plain data, for JSON.

    Args:
        benchmark: What was measured.
        summaries: Of all tasks.
        records: Results by key of the cell.
        versions: Of the packages that numbers depend on.
    """
    return {
        "title": benchmark.title,
        "versions": dict(versions),
        "seeds": list(benchmark.seeds),
        "rows": plain_rows(summaries),
        "cells": [asdict(record) for record in records.values()],
    }
