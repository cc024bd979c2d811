"""Faces with labels of the whole face: columns beside a list of files, opened one by one, confined to a folder."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from farl_lightning.datasets.bad_sample import BROKEN_ANNOTATION, MISSING_IMAGE, BadSample
from farl_lightning.datasets.faces import DatasetSource, FaceDataset
from farl_lightning.datasets.files import read_image
from farl_lightning.types import ATTRIBUTES, FaceRecord, FaceSpec

UNKNOWN = -1
"""The class, or the answer of an attribute, that nobody knows."""


@dataclasses.dataclass
class FaceTable:
    """Many faces, column by column: what a reader makes of a dataset's lists, and all that workers have to share.

    Attributes:
        files: Picture of each face, relative to the dataset's folder.
        labels: Labels by name: (N,) integers are classes, (N,) floats numbers, ``"attributes"`` is (N, A); see
            :class:`~farl_lightning.types.FaceBatch`.
        groups: Subgroups by column, one name per face.
        identities: Who each face shows; parts that are held out share nobody with the rest. Empty: everybody differs.
        boxes: (N, 4) float32 left, top, right, bottom in pixels; nan where none is known.
        points: (N, 5, 2) float32 eyes, nose, mouth corners, from the image's left to its right; nan where unknown.
        problems: For rows that cannot be used, what is wrong with them.
        keys: Name of each face; empty means ``files``.
    """

    files: list[str]
    labels: dict[str, npt.NDArray[np.generic]] = dataclasses.field(default_factory=dict)
    groups: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    identities: list[str] = dataclasses.field(default_factory=list)
    boxes: npt.NDArray[np.float32] | None = None
    points: npt.NDArray[np.float32] | None = None
    problems: dict[int, str] = dataclasses.field(default_factory=dict)
    keys: list[str] = dataclasses.field(default_factory=list)

    def take(self, rows: Sequence[int]) -> FaceTable:
        """Return some rows.

        Args:
            rows: Their numbers, in the order of the result.
        """
        index = np.asarray(rows, np.int64)
        return FaceTable(
            _take(self.files, rows),
            {name: column[index] for name, column in self.labels.items()},
            {name: _take(column, rows) for name, column in self.groups.items()},
            _take(self.identities, rows),
            None if self.boxes is None else self.boxes[index],
            None if self.points is None else self.points[index],
            {new: self.problems[old] for new, old in enumerate(rows) if old in self.problems},
            _take(self.keys, rows),
        )


def _take(values: list[str], rows: Sequence[int]) -> list[str]:
    """Return some values of a column, or none of a column that is not there."""
    return [values[row] for row in rows] if values else []


class LabelledFaces(FaceDataset):
    """Pictures of single faces with labels of the whole face.

    A row that cannot be used stays in the dataset: asking for it tells why, so that it is counted like a broken
    picture.

    Args:
        root: Folder that the pictures lie in. A file that leads out of it is never opened.
        table: The faces.
        spec: What the labels are.
        source: Where the dataset comes from; None for a user's own.
        expected: How many faces the official split has; None where nobody says.
    """

    def __init__(
        self,
        root: str | Path,
        table: FaceTable,
        spec: FaceSpec,
        source: DatasetSource | None = None,
        expected: int | None = None,
    ) -> None:
        self.root, self.table, self.spec, self.expected = Path(root).expanduser(), table, spec, expected
        self.origin = source
        self.keys = table.keys or table.files
        self.labels, self.groups = tuple(table.labels), tuple(table.groups)

    @property
    def photographs(self) -> list[str]:
        """Who each face shows, or its key where nobody says."""
        return self.table.identities or self.keys

    def files(self, index: int) -> Sequence[Path]:
        """Return the picture of a face.

        Args:
            index: From 0 to ``len(self) - 1``.
        """
        return [] if index in self.table.problems else [self.root / self.table.files[index]]

    def verify(self) -> list[str]:
        """Look for missing pictures and unusable rows, without opening a picture."""
        problems = {row: self.table.problems.get(row) or _outside(file) for row, file in enumerate(self.table.files)}
        lines = [f"{self.keys[row]}: {problem}" for row, problem in problems.items() if problem]
        found = super().verify()
        return [*lines, *(found or self.how_to_get())] if lines else found

    def how_to_get(self) -> list[str]:
        """Say where the dataset comes from, if it has a name."""
        return [] if self.origin is None else [self.origin.how_to_get()]

    def read(self, index: int) -> FaceRecord:
        """Read one face.

        Args:
            index: From 0 to ``len(self) - 1``.

        Raises:
            BadSample: If its row or its picture cannot be used.
        """
        table = self.table
        if index in table.problems:
            raise BadSample(BROKEN_ANNOTATION, table.problems[index])
        return FaceRecord(
            key=self.keys[index],
            image=read_image(confined(self.root, table.files[index])),
            points=None if table.points is None else known(table.points[index]),
            box=None if table.boxes is None else _box(table.boxes[index]),
            labels={name: _label(name, column[index]) for name, column in table.labels.items()},
            groups={name: column[index] for name, column in table.groups.items()},
        )


def _outside(file: str) -> str:
    """Say that a path leads out of its folder, as far as its words tell."""
    plain = os.path.normpath(file)
    return f"'{file}' leads out of the root" if plain.startswith("..") or os.path.isabs(plain) else ""


def confined(root: Path, file: str) -> Path:
    """Return where a file of a dataset is, if it lies in the dataset's folder (links followed).

    Args:
        root: The folder.
        file: Path relative to it.

    Raises:
        BadSample: If it leads elsewhere: nobody else's list decides what is read on this machine.
    """
    path = root / file
    try:
        inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # a loop of links, a zero byte
        raise BadSample(MISSING_IMAGE, f"{file!r}: {error}") from error
    if not inside:
        raise BadSample(MISSING_IMAGE, f"'{file}' leads out of '{root}'; give a root that holds all pictures")
    return path


def known(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
    """Return points, or None where they are unknown.

    Args:
        points: Any shape; nan marks what is unknown.
    """
    return None if np.isnan(points).any() else points


def _box(box: npt.NDArray[np.float32]) -> tuple[float, float, float, float] | None:
    """Return a box as four numbers, or None where it is unknown."""
    if np.isnan(box).any():
        return None
    left, top, right, bottom = (float(value) for value in box)
    return left, top, right, bottom


def _label(name: str, value: npt.NDArray[np.generic] | np.generic) -> int | float | npt.NDArray[np.int64]:
    """Return one label as a record has it."""
    if name == ATTRIBUTES:
        return np.asarray(value, np.int64)
    return float(value) if isinstance(value, np.floating) else int(value)


def label_spec(names: Mapping[str, Sequence[str]], attributes: Sequence[str] = ()) -> FaceSpec:
    """Return the specification of a dataset that has no other labels than these.

    Args:
        names: For each label the names of its classes; none for numbers.
        attributes: Names of the binary attributes.
    """
    return FaceSpec(attributes=tuple(attributes), label_names={name: tuple(classes) for name, classes in names.items()})
