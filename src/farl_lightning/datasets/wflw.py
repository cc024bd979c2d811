"""WFLW: 98 landmarks and six subsets of the test set (Wu et al., "Look at Boundary", CVPR 2018)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from farl_lightning.datasets.faces import DatasetSource, check_split, find_root
from farl_lightning.datasets.landmark_csv import CsvFace, read_landmark_csv
from farl_lightning.datasets.landmark_faces import FaceRow, LandmarkDataset
from farl_lightning.datasets.landmark_sets import WFLW_98
from farl_lightning.errors import ConfigError, did_you_mean

SUBSETS = ("largepose", "expression", "illumination", "makeup", "occlusion", "blur")
"""The subsets of the test set, by the names of their csv files, in the order of the papers' tables."""

SPLITS = {"train": 7500, "test": 2500}
"""Splits, and how many faces each has."""


class WFLW(LandmarkDataset):
    """WFLW, from HRNet's csv files.

    Every test face carries the names of its subsets, so that one pass over the test set reports all seven errors.

    Args:
        root: Folder with ``WFLW_images`` (or ``images``) and the csv files.
        split: ``"train"`` or ``"test"``.
        subset: Keep only this subset of the test set; see :data:`SUBSETS`.

    Raises:
        DatasetNotFoundError: If a csv file is missing.
        DataError: If a csv file is none of this dataset.
        ConfigError: If a name is unknown.
    """

    source = DatasetSource(
        name="WFLW",
        page="https://wywu.github.io/projects/LAB/WFLW.html",
        archives=("WFLW_images.tar.gz",),
        terms="research only; no redistribution",
        layout=(
            "WFLW_images/   the archive of the page",
            "face_landmarks_wflw_{train,test}.csv",
            "face_landmarks_wflw_test_{largepose,expression,illumination,makeup,occlusion,blur}.csv   the annotations",
            "    linked under 'Data' in https://github.com/HRNet/HRNet-Facial-Landmark-Detection",
        ),
    )
    order = WFLW_98

    def __init__(self, root: str | Path, split: str = "train", subset: str | None = None) -> None:
        check_split(split, tuple(SPLITS), self.source.name)
        if subset is not None and (split != "test" or subset not in SUBSETS):
            hint = did_you_mean(subset, SUBSETS) if split == "test" else "Only the test set has subsets."
            raise ConfigError(f"WFLW has no subset '{subset}' of split '{split}'. {hint}")
        names = [_csv(split), *(_csv("test", name) for name in SUBSETS if split == "test")]
        root = find_root(root, names, self.source)
        members = {name: _members(root / _csv("test", name)) for name in SUBSETS} if split == "test" else {}
        faces = [(face, _key(face)) for face in read_landmark_csv(root / _csv(split), WFLW_98.count)]
        rows = [_row(face, key, tuple(name for name in members if key in members[name])) for face, key in faces]
        pictures = root / "WFLW_images" if (root / "WFLW_images").is_dir() else root / "images"
        rows = [row for row in rows if subset is None or subset in row.subsets]
        super().__init__(rows, pictures, SPLITS[split] if subset is None else None)


def _csv(split: str, subset: str | None = None) -> str:
    """Return the name of a csv file."""
    return f"face_landmarks_wflw_{split}.csv" if subset is None else f"face_landmarks_wflw_{split}_{subset}.csv"


def _members(path: Path) -> set[str]:
    """Return the keys of a subset's faces."""
    return {_key(face) for face in read_landmark_csv(path, WFLW_98.count) if not face.problem}


def _row(face: CsvFace, key: str, subsets: tuple[str, ...]) -> FaceRow:
    """Take a line as it is: from WFLW's csv files, unlike from those of 300W, FaRL takes nothing off."""
    landmarks = face.landmarks.astype(np.float32)
    return FaceRow(key, face.picture, landmarks, face.box, subsets=subsets, problem=face.problem)


def _key(face: CsvFace) -> str:
    """Name a face by its picture and the mean of its landmarks, as FaRL does: many pictures show several faces.

    The same words name a face in the files of the subsets, which repeat the lines of the test set.
    """
    x, y = face.landmarks.astype(np.float32).mean(axis=0).tolist()
    return f"{face.picture.rsplit('.', 1)[0].replace('/', '.')}_{x:.3f}_{y:.3f}"
