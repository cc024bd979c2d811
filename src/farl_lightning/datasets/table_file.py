"""Tables from CSV, TSV, JSON, JSON Lines and Parquet: columns of words, and what is wrong with which row."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from farl_lightning.errors import ConfigError, DataError, DatasetNotFoundError, did_you_mean, require

MAX_TABLE_BYTES = 2 * 2**30
"""Largest table that is read."""

NESTED = "a list or bytes; columns hold words and numbers"
"""What is refused in a row."""


@dataclasses.dataclass
class TableFile:
    """A table as it was written.

    Attributes:
        path: Where it is.
        columns: Values by column, as words; None where a row has none.
        problems: For rows that cannot be understood, what is wrong with them; all their values are None.
        places: Where each row is written, such as ``"line 7"``.
    """

    path: Path
    columns: dict[str, list[str | None]]
    problems: dict[int, str]
    places: list[str]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.places)

    def column(self, name: str, purpose: str) -> list[str | None]:
        """Return one column.

        Args:
            name: Of the column.
            purpose: What asks for it, for the error.

        Raises:
            ConfigError: If there is no such column, with the nearest match.
        """
        if name not in self.columns:
            raise ConfigError(f"{purpose}: '{self.path}' has no column '{name}'. {did_you_mean(name, self.columns)}")
        return self.columns[name]


def read_table(path: str | Path) -> TableFile:
    """Read a table.

    The ending says how: ``.csv`` (commas, semicolons or tabs, by the header), ``.tsv``, ``.txt`` (tabs or, without
    any, spaces), ``.json`` (a list of objects, or an object of columns), ``.jsonl`` or ``.ndjson``, ``.parquet``.

    Args:
        path: The file.

    Raises:
        DatasetNotFoundError: If it is not there.
        DataError: If it is no such table.
        ConfigError: If the ending is unknown.
        MissingDependencyError: For Parquet without pyarrow.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in READERS:
        raise ConfigError(f"table '{path}' ends in none of: {', '.join(sorted(READERS))}")
    if not path.is_file():
        raise DatasetNotFoundError(f"table '{path.absolute()}' does not exist")
    if (size := path.stat().st_size) > MAX_TABLE_BYTES:
        raise DataError(f"table '{path}' has {size} bytes, the limit is {MAX_TABLE_BYTES}; divide it")
    try:
        return _to_columns(path, READERS[path.suffix.lower()](path))
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise DataError(f"table '{path}' cannot be read: {error}") from error


Row = tuple[str, dict[str, Any] | str]
"""Place and values of a row, or what is wrong with it."""


def _to_columns(path: Path, rows: Iterable[Row]) -> TableFile:
    """Turn rows into columns of words."""
    table = TableFile(path, {}, {}, [])
    for number, (place, row) in enumerate(rows):
        words = row if isinstance(row, str) else _words(row)
        table.places.append(place)
        if isinstance(words, str):
            table.problems[number], words = f"{place}: {words}", {}
        for name in words.keys() - table.columns.keys():
            table.columns[name] = [None] * number
        for name, column in table.columns.items():
            column.append(words.get(name))
    if not table.columns:
        said = next(iter(table.problems.values()), "it has no rows")
        raise DataError(f"table '{path}' holds nothing: {said}")
    return table


def _words(row: dict[str, Any]) -> dict[str, str | None] | str:
    """Write the values of a row as words; what is nested is refused, except for objects, whose entries join the row."""
    words: dict[str, str | None] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            inner = _words({f"{name}.{key}": item for key, item in value.items()})
            if isinstance(inner, str):
                return inner
            words |= inner
        elif isinstance(value, list | bytes):
            return f"column '{name}' holds {NESTED}"
        else:
            words[name] = None if value is None else str(value).strip()
    return words


def _read_csv(path: Path) -> Iterator[Row]:
    """Read comma-separated rows, or those with the separator that the header has most of."""
    header = _text(path).partition("\n")[0]
    return _read_separated(path, max(",;\t", key=header.count))


def _read_tsv(path: Path) -> Iterator[Row]:
    """Read rows separated by tabs."""
    return _read_separated(path, "\t")


def _read_txt(path: Path) -> Iterator[Row]:
    """Read rows separated by tabs, or by spaces if the header has no tab."""
    if "\t" in _text(path).partition("\n")[0]:
        return _read_separated(path, "\t")
    return _with_header((number, line.split()) for number, line in enumerate(_text(path).splitlines(), 1))


def _read_separated(path: Path, delimiter: str) -> Iterator[Row]:
    """Read rows with quotes, as spreadsheets write them."""
    reader = csv.reader(io.StringIO(_text(path), newline=""), delimiter=delimiter)
    return _with_header((reader.line_num, row) for row in reader)


def _with_header(rows: Iterator[tuple[int, list[str]]]) -> Iterator[Row]:
    """Name the values of each row by the first one."""
    header: list[str] = []
    for number, row in rows:
        if not any(value.strip() for value in row):
            continue
        if not header:
            header = [name.strip() for name in row]
            if len(set(header)) < len(header):
                raise ValueError(f"two columns have the same name: {', '.join(header)}")
        elif len(row) != len(header):
            yield f"line {number}", f"{len(row)} values instead of {len(header)}"
        else:
            yield f"line {number}", dict(zip(header, row, strict=True))


def _read_json(path: Path) -> Iterator[Row]:
    """Read a list of objects, or an object of columns."""
    data = json.loads(_text(path))
    if isinstance(data, dict) and all(isinstance(column, list) for column in data.values()):
        if len({len(column) for column in data.values()}) > 1:
            raise ValueError("its columns differ in length")
        data = [dict(zip(data, values, strict=True)) for values in zip(*data.values(), strict=True)]
    if not isinstance(data, list):
        raise ValueError("it is neither a list of objects nor an object of columns")
    for number, row in enumerate(data, 1):
        yield f"entry {number}", row if isinstance(row, dict) else f"no object but {type(row).__name__}"


def _read_jsonl(path: Path) -> Iterator[Row]:
    """Read one object per line."""
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            yield f"line {number}", f"not JSON: {error}"
        else:
            yield f"line {number}", row if isinstance(row, dict) else f"no object but {type(row).__name__}"


def _read_parquet(path: Path) -> Iterator[Row]:
    """Read a Parquet file, piece by piece."""
    parquet = require("pyarrow.parquet", "parquet")
    number = 0
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row


def _text(path: Path) -> str:
    """Return a file's text; a byte order mark is no part of it."""
    return path.read_text(encoding="utf-8-sig")


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".txt": _read_txt,
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".parquet": _read_parquet,
}
"""How a table is read, by its ending."""
