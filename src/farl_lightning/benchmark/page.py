"""One HTML page that needs nothing else: tables, pictures, reasons of failures; and the same as files."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from farl_lightning.benchmark.cells import percent
from farl_lightning.benchmark.config import Benchmark
from farl_lightning.benchmark.store import Record
from farl_lightning.benchmark.summary import Summary, average, deviation, summarise
from farl_lightning.benchmark.tables import (
    Entry,
    Row,
    Table,
    as_csv,
    as_plain,
    column_title,
    failures,
    footnote,
    make_tables,
    markdown,
    number,
    plain_rows,
    pretraining_rows,
)
from farl_lightning.visualization.comparison import Series, comparison_svg

_STYLE = """
:root { color-scheme: light dark; --line: #d0d7de; --soft: #f6f8fa; --faint: #57606a; --bad: #b42318 }
@media (prefers-color-scheme: dark) { :root { --line: #3d444d; --soft: #161b22; --faint: #9198a1; --bad: #ff8f84 } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.15rem; margin-top: 2.4rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .6rem 0 }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .8rem; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
thead th { background: var(--soft); font-weight: 600; white-space: normal }
tr.published td { color: var(--faint); font-style: italic }
td.bad { color: var(--bad) } p.note, li { color: var(--faint) }
img { background: #fff; border-radius: 6px; max-width: 100%; margin: .6rem 0 }
""".strip()

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write_reports(
    benchmark: Benchmark,
    records: Mapping[str, Record],
    pretrained: Mapping[str, Record],
    versions: Mapping[str, str | None],
) -> dict[str, Path]:
    """Write ``table.md``, ``table.csv``, ``table.json`` and ``index.html`` into the benchmark's folder.

    Args:
        benchmark: What was measured.
        records: Results by key of the cell; those that are missing are shown as not run.
        pretrained: What became of encoders that were pretrained, by name.
        versions: Of the packages that numbers depend on.

    Returns:
        The files, by name.
    """
    summaries = summarise(benchmark, records)
    tables = make_tables(summaries)
    plain = json.dumps(as_plain(benchmark, summaries, records, versions), indent=2, allow_nan=False) + "\n"
    texts = {
        "table.md": markdown(benchmark, tables, pretrained),
        "table.csv": as_csv(plain_rows(summaries)),
        "table.json": plain,
        "index.html": page(benchmark, summaries, records, pretrained, versions),
    }
    folder = Path(benchmark.output).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        scratch = folder / f"{name}.tmp"
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(folder / name)
    return {name: folder / name for name in texts}


def page(
    benchmark: Benchmark,
    summaries: Sequence[Summary],
    records: Mapping[str, Record],
    pretrained: Mapping[str, Record],
    versions: Mapping[str, str | None],
) -> str:
    """Return the page: no script, nothing from outside, everything that was given is escaped.

    Args:
        benchmark: What was measured.
        summaries: Of all tasks.
        records: Results by key of the cell.
        pretrained: What became of encoders that were pretrained, by name.
        versions: Of the packages that numbers depend on.
    """
    parts = [f"<h1>{html.escape(benchmark.title)}</h1>", f"<p>{html.escape(' '.join(benchmark.about.split()))}</p>"]
    parts.append(f'<p class="note">{html.escape(footnote(benchmark))} {html.escape(_progress(records, summaries))}</p>')
    for table in make_tables(summaries):
        own = [entry for entry in summaries if entry.task.name == table.task.name]
        parts += [f"<h2>{html.escape(table.heading)}</h2>", _table(table), _pictures(table, own), _failures(table)]
    if benchmark.baseline is not None:
        parts += _gains(benchmark, summaries)
    if pretrained:
        rows = [Row(row[0], [Entry(text) for text in row[1:]]) for row in pretraining_rows(benchmark, pretrained)]
        parts += ["<h2>Pretraining</h2>", _grid(["", "seconds", "steps"], rows)]
    made = ", ".join(f"{name} {version or 'not installed'}" for name, version in versions.items())
    parts += [f'<p class="note">{html.escape(made)}</p>'] if made else []
    return _frame(benchmark.title, parts)


def _frame(heading: str, parts: Sequence[str]) -> str:
    """Put a page around its parts."""
    title = html.escape(heading)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>\n{_STYLE}\n</style>\n</head>\n<body>\n" + "\n".join(filter(None, parts)) + "\n</body>\n</html>\n"
    )


def _progress(records: Mapping[str, Record], summaries: Sequence[Summary]) -> str:
    """Say how much of the benchmark is there."""
    wanted = sum(entry.seeds for entry in summaries)
    done = sum(len(entry.values) for entry in summaries)
    hours = sum(record.seconds for record in records.values()) / 3600
    return f"{done} of {wanted} cells have a result; they took {hours:.2f} hours."


def _table(table: Table) -> str:
    """Return the table of a task."""
    return _grid(["", *(column_title(column) for column in table.columns)], table.rows)


def _grid(head: Sequence[str], rows: Sequence[Row]) -> str:
    """Return a table."""
    titles = "".join(f"<th>{html.escape(text)}</th>" for text in head)
    lines = []
    for row in rows:
        kind = ' class="published"' if row.published else ""
        cells = "".join(_cell(entry, row.published) for entry in row.entries)
        lines.append(f"<tr{kind}><td>{html.escape(row.title)}</td>{cells}</tr>")
    body = "\n".join(lines)
    return f'<div class="scroll"><table>\n<thead><tr>{titles}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _cell(entry: Entry, published: bool) -> str:
    """Return one place of a table; its note shows when pointed at."""
    text = html.escape(entry.text)
    note = f' title="{html.escape(entry.note, quote=True)}"' if entry.note else ""
    bad = ' class="bad"' if entry.note and not published else ""
    return f"<td{bad}{note}>{f'<b>{text}</b>' if entry.leads else text}</td>"


def _failures(table: Table) -> str:
    """Return why cells failed."""
    notes = "".join(f"<li>failed: {html.escape(note)}</li>" for note in failures(table))
    return f"<ul>{notes}</ul>" if notes else ""


def _pictures(table: Table, summaries: Sequence[Summary]) -> str:
    """Return a picture for each way of tuning that has results."""
    found = []
    for method in dict.fromkeys(entry.method for entry in summaries):
        series = _series([entry for entry in summaries if entry.method == method])
        if series:
            title = f"{table.task.title}, {column_title((method, 1.0)).partition(',')[0]}"
            label = f"{table.task.metric.removeprefix('test/')} {table.task.unit}".strip()
            code = base64.b64encode(comparison_svg(series, title=title, label=label).encode()).decode()
            text = html.escape(title, quote=True)
            found.append(f'<img alt="{text}" src="data:image/svg+xml;base64,{code}">')
    return "\n".join(found)


def _series(summaries: Sequence[Summary]) -> list[Series]:
    """Return one line for each representation."""
    lines: dict[str, list[Summary]] = {}
    for entry in summaries:
        if entry.mean is not None:
            lines.setdefault(entry.encoder.title, []).append(entry)
    return [
        Series(
            title,
            [100 * entry.labels for entry in entries],
            [entry.mean or 0.0 for entry in entries],
            [entry.std or 0.0 for entry in entries],
        )
        for title, entries in lines.items()
    ]


def _gains(benchmark: Benchmark, summaries: Sequence[Summary]) -> list[str]:
    """Return the table of gains over the baseline, paired by seed."""
    title = next(encoder.title for encoder in benchmark.encoders if encoder.name == benchmark.baseline)
    tasks = {entry.task.name: entry for entry in summaries if entry.gains}
    if not tasks:
        return []
    head = [
        "",
        *(
            f"{entry.task.title} ({entry.task.unit})" if entry.task.unit else entry.task.title
            for entry in tasks.values()
        ),
    ]
    groups: dict[tuple[str, str, float], dict[str, Summary]] = {}
    for entry in summaries:
        if entry.gains:
            groups.setdefault((entry.encoder.title, entry.method, entry.labels), {})[entry.task.name] = entry
    rows = [
        Row(f"{name}, {method}, {percent(labels)} %", [_gain(found.get(task)) for task in tasks])
        for (name, method, labels), found in groups.items()
    ]
    text = f"Differences at the same seed to {title}; above 0 is better, whichever way the metric runs."
    return ["<h2>Gains</h2>", f'<p class="note">{html.escape(text)}</p>', _grid(head, rows)]


def _gain(entry: Summary | None) -> Entry:
    """Write a gain."""
    mean = average(entry.gains) if entry is not None else None
    if entry is None or mean is None:
        return Entry()
    sign = "+" if mean >= 0 else ""
    return Entry(sign + number(mean, deviation(entry.gains), entry.task.digits))
