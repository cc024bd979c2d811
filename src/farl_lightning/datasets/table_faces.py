"""From a table of words to faces with labels: which column is what, and what each word means."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from farl_lightning.datasets.labelled import UNKNOWN, FaceTable
from farl_lightning.datasets.table_file import TableFile
from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.text import bin_name, natural
from farl_lightning.types import ATTRIBUTES, FaceSpec

CLASS, NUMBER = "class", "number"
"""Kinds of a label column whose class names are not listed."""

YES = frozenset({"1", "1.0", "true", "yes", "y", "t"})
"""Words, in lower case, of an attribute that holds."""

NO = frozenset({"0", "0.0", "false", "no", "n", "f"})
"""Words, in lower case, of an attribute that does not hold."""

MINUS_ONE = frozenset({"-1", "-1.0"})
"""Words of attributes that mean "no" in CelebA and "unknown" elsewhere."""

Kind = str | list[str] | dict[str, str]
"""How a label column is read, see :class:`TableColumns`."""


@dataclasses.dataclass
class TableColumns:
    """What the columns of a table are.

    Attributes:
        image: Path of the picture, relative to ``folder``.
        folder: Folder of the pictures below the root.
        labels: Labels of the whole face, by column: ``"class"`` (names taken from the table, in natural order),
            ``"number"``, a list of class names in their order, or a mapping of the words in the table to class names
            (several words may mean the same class).
        attributes: Columns of yes (1, true, yes) or no (0, false, no), which together are one label.
        minus_one: What -1 means in ``attributes``: ``"no"`` (as CelebA writes it) or ``"unknown"``. Has to be said
            where a table has -1 but no 0.
        groups: Columns by whose values results are split.
        bins: Limits that divide the numbers of a column of ``groups``: ``{"age": [30, 60]}`` makes the groups
            ``"<30"``, ``"30-60"`` (60 excluded) and ``">=60"``.
        identity: Column that says who is shown: parts that are held out share nobody with training.
        split: Column that says which split a row belongs to.
        box: Four columns: left, top, right, bottom in pixels.
        points: Ten columns: x and y by turns of eyes, nose, mouth corners, from the image's left to its right.
        key: Column of unique names; None takes the path.
        missing: Words that mean "unknown".
    """

    image: str = "file"
    folder: str = ""
    labels: dict[str, str | list[str] | dict[str, str]] = dataclasses.field(default_factory=dict)
    attributes: list[str] = dataclasses.field(default_factory=list)
    minus_one: str | None = None
    groups: list[str] = dataclasses.field(default_factory=list)
    bins: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    identity: str | None = None
    split: str | None = None
    box: list[str] = dataclasses.field(default_factory=list)
    points: list[str] = dataclasses.field(default_factory=list)
    key: str | None = None
    missing: list[str] = dataclasses.field(
        default_factory=lambda: ["", "nan", "NaN", "null", "NULL", "None", "NA", "N/A"]
    )

    def __post_init__(self) -> None:
        """Refuse settings that cannot work.

        Raises:
            ConfigError: Naming the setting, its value and what is allowed.
        """
        for name, kind in self.labels.items():
            if isinstance(kind, str) and kind not in (CLASS, NUMBER):
                hint = did_you_mean(kind, (CLASS, NUMBER))
                raise ConfigError(f"label '{name}' is '{kind}'. {hint} Or list the names of its classes.")
            if isinstance(kind, list) and len(set(kind)) < max(len(kind), 1):
                raise ConfigError(f"label '{name}' needs class names that all differ, got {kind}")
        if ATTRIBUTES in self.labels:
            raise ConfigError(f"no label can be called '{ATTRIBUTES}': list yes-or-no columns under 'attributes'")
        if self.minus_one not in (None, "no", "unknown"):
            raise ConfigError(f"minus_one is 'no' or 'unknown', got {self.minus_one!r}")
        for name, count in (("box", 4), ("points", 10)):
            if len(columns := getattr(self, name)) not in (0, count):
                raise ConfigError(f"{name} needs {count} columns, got {len(columns)}: {columns}")
        for name, limits in self.bins.items():
            if name not in self.groups or not limits or sorted(set(limits)) != list(limits):
                raise ConfigError(f"bins needs a column of 'groups' and rising limits, got '{name}': {limits}")


def table_spec(tables: Sequence[TableFile], columns: TableColumns) -> FaceSpec:
    """Return what the labels of tables are; names that are not given are those that occur in any of them.

    Args:
        tables: All splits.
        columns: What the columns are.

    Raises:
        ConfigError: If a column is missing, or holds no value at all.
    """
    names = {name: _names(tables, columns, name, kind) for name, kind in columns.labels.items()}
    return FaceSpec(attributes=tuple(columns.attributes), label_names=names)


def _names(tables: Sequence[TableFile], columns: TableColumns, name: str, kind: Kind) -> tuple[str, ...]:
    """Return the class names of a column; none for numbers."""
    if kind == NUMBER:
        return ()
    if isinstance(kind, list):
        return tuple(kind)
    if isinstance(kind, dict):
        return tuple(dict.fromkeys(kind.values()))
    words = {word for table in tables for word in table.column(name, "labels")} - {None, *columns.missing}
    if not words:
        raise ConfigError(f"label '{name}' has no value in {', '.join(str(table.path) for table in tables)}")
    return tuple(sorted((word for word in words if word is not None), key=natural))


def table_faces(table: TableFile, columns: TableColumns, spec: FaceSpec) -> FaceTable:
    """Turn a table into faces. A row with a word that means nothing is marked as unusable.

    Args:
        table: The table.
        columns: What its columns are.
        spec: As :func:`table_spec` made it.

    Raises:
        ConfigError: If a column is missing, or -1 could mean two things.
    """
    reader = _Reader(table, columns)
    files = [word or "" for word in table.column(columns.image, "image")]
    for row, file in enumerate(files):
        if not file:
            reader.blame(row, f"no '{columns.image}'")
    points = reader.numbers(columns.points, "points")
    return FaceTable(
        files=[f"{columns.folder}/{file}" for file in files] if columns.folder else files,
        labels={name: reader.label(name, kind, spec) for name, kind in columns.labels.items()} | reader.attributes(),
        groups={name: reader.group(name) for name in columns.groups},
        identities=reader.identities(),
        boxes=reader.numbers(columns.box, "box"),
        points=None if points is None else points.reshape(-1, 5, 2),
        keys=reader.keys(files),
        problems=reader.problems,
    )


class _Reader:
    """Reads columns of one table, and keeps what is wrong with which row."""

    def __init__(self, table: TableFile, columns: TableColumns) -> None:
        self.table, self.columns = table, columns
        self.missing = {None, *columns.missing}
        self.problems = dict(table.problems)

    def blame(self, row: int, problem: str) -> None:
        """Mark a row; the first problem is told."""
        self.problems.setdefault(row, f"{self.table.places[row]}: {problem}")

    def words(self, name: str, purpose: str) -> list[str | None]:
        """Return a column with None for every word that means "unknown"."""
        return [None if word in self.missing else word for word in self.table.column(name, purpose)]

    def label(self, name: str, kind: Kind, spec: FaceSpec) -> npt.NDArray[np.generic]:
        """Return a label column."""
        if kind == NUMBER:
            return self._convert(name, "labels", float_word, math.nan, "no number", np.float32)
        names = {word: number for number, word in enumerate(spec.label_names[name])}
        known = {word: names[meant] for word, meant in kind.items()} if isinstance(kind, dict) else names
        listed = ", ".join(known) if len(known) <= 12 else f"the {len(known)} names of its classes"
        return self._convert(name, "labels", known.get, UNKNOWN, f"none of {listed}", np.int64)

    def attributes(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the attributes as one label, if there are any."""
        names = self.columns.attributes
        if not names:
            return {}
        words = {word for name in names for word in self.table.column(name, "attributes") if word}
        if self.columns.minus_one is None and words & MINUS_ONE and not {word.lower() for word in words} & NO:
            raise ConfigError(
                f"the attributes of '{self.table.path}' hold -1 and no 0: say whether -1 means no, as CelebA writes "
                "it, or unknown, by minus_one: no, or minus_one: unknown"
            )
        what = "neither yes (1, true) nor no (0, false)"
        read = [self._convert(name, "attributes", self._answer, UNKNOWN, what, np.int8) for name in names]
        return {ATTRIBUTES: np.stack(read, axis=1)}

    def _answer(self, word: str) -> int | None:
        """Return 1, 0 or -1; None if a word means nothing."""
        if word in MINUS_ONE:
            return 0 if self.columns.minus_one == "no" else UNKNOWN
        return 1 if word.lower() in YES else 0 if word.lower() in NO else None

    def group(self, name: str) -> list[str]:
        """Return a column of subgroups."""
        limits = self.columns.bins.get(name)
        if limits is None:
            return [word or "" for word in self.words(name, "groups")]
        values = self._convert(name, "groups", float_word, math.nan, "no number", np.float64)
        return [bin_name(float(value), limits) for value in values]

    def numbers(self, names: Sequence[str], purpose: str) -> npt.NDArray[np.float32] | None:
        """Return several columns of numbers side by side, (N, columns); None without columns."""
        if not names:
            return None
        read = [self._convert(name, purpose, float_word, math.nan, "no number", np.float32) for name in names]
        return np.stack(read, axis=1)

    def identities(self) -> list[str]:
        """Return who each face shows; rows that do not say are people of their own."""
        if self.columns.identity is None:
            return []
        words = self.words(self.columns.identity, "identity")
        return [f"{self.table.path.name}, row {row}" if word is None else word for row, word in enumerate(words)]

    def keys(self, files: list[str]) -> list[str]:
        """Return unique names; a row whose name is taken is marked."""
        column = files if self.columns.key is None else self.table.column(self.columns.key, "key")
        seen: dict[str, int] = {}
        keys = []
        for row, word in enumerate(column):
            key = word or self.table.places[row]
            if key in seen:
                self.blame(row, f"'{key}' is in {self.table.places[seen[key]]} already")
                key = f"{key} ({self.table.places[row]})"
            seen[key] = row
            keys.append(key)
        return keys

    def _convert(
        self, name: str, purpose: str, meaning: Callable[[str], float | None], unknown: float, what: str, dtype: type
    ) -> npt.NDArray[np.generic]:
        """Turn words into numbers; a word without a meaning marks its row."""
        values: npt.NDArray[np.generic] = np.full(len(self.table), unknown, dtype)
        for row, word in enumerate(self.words(name, purpose)):
            if word is None:
                continue
            if (value := meaning(word)) is None:
                self.blame(row, f"{name} '{word}' is {what}")
            else:
                values[row] = value
        return values


def float_word(word: str) -> float | None:
    """Return the finite number that a word writes, or None.

    Args:
        word: The word.
    """
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def rows_of(table: TableFile, column: str, names: Iterable[str]) -> list[int]:
    """Return the rows of a split.

    Args:
        table: The table.
        column: That says to which split a row belongs.
        names: What the split is called, in lower case.
    """
    wanted = frozenset(names)
    words = table.column(column, "split")
    return [row for row, word in enumerate(words) if (word or "").lower() in wanted]
