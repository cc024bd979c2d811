"""A user's own faces: a table of paths and labels, a few lines of YAML, no code."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

from farl_lightning.datamodules.faces import SPLITS
from farl_lightning.datamodules.global_faces import GlobalFaceDataModule
from farl_lightning.datasets.faces import FaceDataset
from farl_lightning.datasets.labelled import FaceTable, LabelledFaces
from farl_lightning.datasets.table_faces import TableColumns, rows_of, table_faces, table_spec
from farl_lightning.datasets.table_file import TableFile, read_table
from farl_lightning.errors import ConfigError, DataError, did_you_mean

SPLIT_NAMES = {
    "train": ["train", "training"],
    "val": ["val", "valid", "validation", "dev"],
    "test": ["test", "testing"],
}
"""What splits are called in the split column of a table, in lower case."""


class TableDataModule(GlobalFaceDataModule):
    """Faces listed in tables: CSV, TSV, JSON, JSON Lines or Parquet, a path and any label columns per row.

    Splits are separate files, or a column of one file, or else drawn by ``split_seed`` and kept in ``data_split.json``;
    with ``columns.identity`` the drawn parts share nobody, and a warning tells where given ones do. Rows that make no
    sense and pictures that cannot be opened end no run: they are counted and named by their line.

    Args:
        root: Folder that all pictures lie in; a path that leads out of it is refused.
        table: The table, or one per split: ``{"train": "train.csv", "test": "test.csv"}``. Relative paths are looked
            for in ``root`` and then where the command runs.
        columns: What the columns are; see :class:`~farl_lightning.datasets.table_faces.TableColumns`.
        split_names: What splits are called in the split column; None takes :data:`SPLIT_NAMES`.
        test_fraction: Share that is held out for the test where the table has no test split.
        **kwargs: Further settings of :class:`~farl_lightning.datamodules.global_faces.GlobalFaceDataModule`.

    Raises:
        ConfigError: If a setting cannot work, or a column is not there, with the nearest match.
        DatasetNotFoundError: If a table is not there.
        DataError: If a table cannot be read, or none of its rows can be used.
    """

    def __init__(
        self,
        root: str,
        table: str | dict[str, str],
        columns: TableColumns | None = None,
        split_names: dict[str, list[str]] | None = None,
        test_fraction: float = 0.1,
        **kwargs: Any,
    ) -> None:
        self.columns = columns or TableColumns()
        self.test_fraction = _checked_share(test_fraction)
        self._tables = {split: read_table(_find(root, path)) for split, path in _by_split(table, self.columns).items()}
        self.labels = table_spec(list(self._tables.values()), self.columns)  # the base asks for it
        self._faces = self._divide(SPLIT_NAMES | (split_names or {}))
        _warn_of_common_people(self._faces)
        super().__init__(root, **kwargs)

    def official_splits(self) -> tuple[str, ...]:
        """Return the splits that the tables have."""
        return tuple(self._faces)

    def open_split(self, split: str) -> FaceDataset | None:
        """Open one split.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.
        """
        return LabelledFaces(self.root, self._faces[split], self.labels) if split in self._faces else None

    def _divide(self, names: dict[str, list[str]]) -> dict[str, FaceTable]:
        """Return the faces of every split that the tables have."""
        read = {split: table_faces(table, self.columns, self.labels) for split, table in self._tables.items()}
        for split, faces in read.items():
            if len(faces.problems) == len(faces.files):
                said = next(iter(faces.problems.values()), "it has no rows")
                raise DataError(f"no row of '{self._tables[split].path}' can be used: {said}")
        if self.columns.split is None:
            return read
        return _by_column(self._tables["train"], read["train"], self.columns.split, names)


def _warn_of_common_people(faces: dict[str, FaceTable]) -> None:
    """Warn where splits that were given show the same people: nobody meant to draw them so."""
    for one, other in itertools.combinations(faces, 2):
        if common := set(faces[one].identities) & set(faces[other].identities):
            some = ", ".join(sorted(common)[:3])
            warnings.warn(
                f"{len(common)} people are in both '{one}' and '{other}' of the tables, such as {some}; results on "
                "people that training has seen say little about others",
                stacklevel=2,
            )


def _by_column(table: TableFile, faces: FaceTable, column: str, names: dict[str, list[str]]) -> dict[str, FaceTable]:
    """Divide faces by the split column. Rows that cannot be understood are told in training."""
    if unknown := sorted(set(names) - set(SPLITS)):
        raise ConfigError(f"split_names knows no split '{unknown[0]}'. {did_you_mean(unknown[0], SPLITS)}")
    rows = {split: rows_of(table, column, [name.lower() for name in names[split]]) for split in SPLITS}
    taken = {row for split in rows.values() for row in split}
    left = [row for row in range(len(table)) if row not in taken]
    allowed = ", ".join(name for split in SPLITS for name in names[split])
    for row in left:
        word = table.columns[column][row]
        faces.problems.setdefault(row, f"{table.places[row]}: {column} '{word}' names no split; allowed: {allowed}")
    if not rows["train"] and not rows["val"] and not rows["test"]:
        raise ConfigError(f"column '{column}' of '{table.path}' names no split; allowed: {allowed} (see split_names)")
    first = next(split for split in SPLITS if rows[split])
    rows[first] = sorted([*rows[first], *left])
    return {split: faces.take(rows[split]) for split in SPLITS if rows[split]}


def _by_split(table: str | dict[str, str], columns: TableColumns) -> dict[str, str]:
    """Return one table per split; a single one is called training, whatever it will be divided into."""
    if isinstance(table, str):
        return {"train": table}
    if unknown := sorted(set(table) - set(SPLITS)):
        raise ConfigError(f"table knows no split '{unknown[0]}'. {did_you_mean(unknown[0], SPLITS)}")
    if columns.split is not None or not table:
        raise ConfigError("give one table with columns.split, or one table per split (train, val, test), not both")
    return table


def _find(root: str, path: str) -> Path:
    """Return where a table is: in the root, or from where the command runs."""
    inside = Path(root).expanduser() / Path(path).expanduser()
    return inside if inside.is_file() else Path(path).expanduser()


def _checked_share(share: float) -> float:
    """Refuse what is no share."""
    if not 0 <= share < 1:
        raise ConfigError(f"test_fraction is a share from 0 and below 1, got {share}")
    return share
