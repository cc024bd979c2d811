"""AFLW-19: AFLW with 19 landmarks, in the split of Zhu et al., "Unconstrained Face Alignment via CCL" (CVPR 2016)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from farl_lightning.datasets.faces import DatasetSource, check_split, find_root
from farl_lightning.datasets.landmark_faces import FaceRow, LandmarkDataset
from farl_lightning.datasets.landmark_sets import AFLW_19
from farl_lightning.errors import DataError, require

SPLITS = {"train": 20000, "full": 4386, "frontal": 1314}
"""Splits, and how many faces each has; "frontal" are those of the test set whose landmarks are all visible."""

_FILE = "AFLWinfo_release.mat"


class AFLW19(LandmarkDataset):
    """AFLW-19.

    Hidden landmarks are annotated, too, and count in loss and metric, as in FaRL and the field's tables; ``visible`` is
    there for who wants to look at them apart. The box is the one that the errors are normalised by, and the one that is
    cropped.

    Args:
        root: Folder with ``AFLWinfo_release.mat`` and ``data/flickr``.
        split: ``"train"``, ``"full"`` (the test set) or ``"frontal"`` (a subset of it; every sample of ``"full"``
            carries the name if it belongs to it).

    Raises:
        DatasetNotFoundError: If the annotations are missing.
        DataError: If they are no such file.
        MissingDependencyError: If SciPy, which reads MATLAB's files, is not installed.
        ConfigError: If the split is unknown.
    """

    source = DatasetSource(
        name="AFLW-19",
        page="https://www.tugraz.at/institute/icg/research/team-bischof/lrs/downloads/aflw",
        archives=("aflw-images-0.tar.gz", "aflw-images-2.tar.gz", "aflw-images-3.tar.gz"),
        terms="research only, on request; no redistribution",
        layout=(
            "data/flickr/{0,2,3}/   the three archives of the page",
            "AFLWinfo_release.mat   http://mmlab.ie.cuhk.edu.hk/projects/compositional/AFLWinfo_release.mat",
        ),
    )
    order = AFLW_19

    def __init__(self, root: str | Path, split: str = "train") -> None:
        check_split(split, tuple(SPLITS), self.source.name)
        root = find_root(root, [_FILE], self.source)
        table = read_table(root / _FILE)
        rows = (table.row(index) for index in split_rows(table.permutation, split).tolist())
        rows = (row for row in rows if split != "frontal" or "frontal" in row.subsets)
        super().__init__(rows, root / "data/flickr", SPLITS[split])


def split_rows(permutation: npt.NDArray[np.int64], split: str) -> npt.NDArray[np.int64]:
    """Return the rows of a split, "frontal" not yet picked out.

    The official file is cut after 20,000 of 24,386; an excerpt of it is cut at the same share.

    Args:
        permutation: (n,) row numbers, from 0.
        split: See :data:`SPLITS`.
    """
    train, test = SPLITS["train"], SPLITS["full"]
    cut = len(permutation) * train // (train + test)
    return permutation[:cut] if split == "train" else permutation[cut:]


class AflwTable(NamedTuple):
    """The variables of the file.

    Attributes:
        boxes: (n, 4) left, right, top, bottom: **not** the usual order.
        landmarks: (n, 19, 2) float32.
        visible: (n, 19) bool.
        names: Pictures, relative to ``data/flickr``.
        permutation: (n,) row numbers from 0: training faces first.
    """

    boxes: npt.NDArray[np.float64]
    landmarks: npt.NDArray[np.float32]
    visible: npt.NDArray[np.bool_]
    names: list[str]
    permutation: npt.NDArray[np.int64]

    def row(self, index: int) -> FaceRow:
        """Return one face.

        Args:
            index: Row of the file.
        """
        left, right, top, bottom = self.boxes[index].tolist()
        points, visible, name = self.landmarks[index], self.visible[index], self.names[index]
        problem = "" if np.isfinite(points).all() else f"row {index + 1}: a landmark is not finite"
        # FaRL names a face by its place in the split; row and picture say which face it is
        key = f"{name.rsplit('.', 1)[0].replace('/', '_')}_{index:05d}"
        subsets = ("frontal",) if visible.all() else ()
        return FaceRow(key, name, points, (left, top, right, bottom), visible, subsets, problem)


def read_table(path: Path) -> AflwTable:
    """Read the annotations.

    Args:
        path: ``AFLWinfo_release.mat``.

    Raises:
        DataError: If a variable is missing or has another size.
        MissingDependencyError: If SciPy is not installed.
    """
    scipy_io = require("scipy.io", "datasets")
    try:
        values = scipy_io.loadmat(str(path), variable_names=["bbox", "data", "mask_new", "nameList", "ra"])
        boxes = np.asarray(values["bbox"], np.float64)
        permutation = np.asarray(values["ra"], np.int64).reshape(-1) - 1  # MATLAB counts rows from 1
        # x1 ... x19, y1 ... y19; the reference takes the numbers as pixel indices from 0, and so does this
        landmarks = np.asarray(values["data"], np.float64).reshape(len(boxes), 2, AFLW_19.count).swapaxes(1, 2)
        visible = np.asarray(values["mask_new"]).reshape(len(boxes), AFLW_19.count) == 1
        names = [_text(cell) for cell in np.asarray(values["nameList"]).reshape(-1)]
        table = AflwTable(boxes.reshape(-1, 4), landmarks.astype(np.float32), visible, names, permutation)
        _check(table)
    except Exception as error:  # the reader raises whatever it likes on broken bytes
        raise DataError(f"'{path}' cannot be read ({type(error).__name__}: {error}). Download it again.") from error
    return table


def _check(table: AflwTable) -> None:
    """Refuse variables that do not belong together."""
    if len(table.names) != len(table.boxes):
        raise ValueError(f"{len(table.names)} names of {len(table.boxes)} faces")
    if not np.array_equal(np.sort(table.permutation), np.arange(len(table.boxes))):
        raise ValueError(f"'ra' is no permutation of 1 to {len(table.boxes)}")


def _text(cell: Any) -> str:
    """Return the text of a cell, which MATLAB nests in arrays."""
    while isinstance(cell, np.ndarray):
        cell = cell.reshape(-1)[0]
    return str(cell)
