"""300W: 68 landmarks (Sagonas et al., "300 Faces In-The-Wild Challenge", 2013), in FaRL's reading of it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from farl_lightning.datasets.bad_sample import BadSample
from farl_lightning.datasets.faces import DatasetSource, check_split, find_root
from farl_lightning.datasets.landmark_csv import CsvFace, read_landmark_csv
from farl_lightning.datasets.landmark_faces import FaceRow, LandmarkDataset, landmark_box
from farl_lightning.datasets.landmark_sets import IBUG_68
from farl_lightning.datasets.pts import read_pts
from farl_lightning.errors import ConfigError, DataError, did_you_mean

CSV_OFFSET = 2.0
"""What is taken off every coordinate of HRNet's csv files, and off the box, to have pixel centres at integers.

One pixel is iBUG's counting from 1; why the csv files lie one further still is not documented. FaRL subtracts 2.0 in
training and test alike, so that its numbers are only met with it: without, the truth is off by two pixels."""

PTS_OFFSET = 1.0
"""What is taken off the coordinates of iBUG's own ``.pts`` files: MATLAB's first pixel is 1."""

RENAMED = {"ibug/image_092_01.jpg": "ibug/image_092 _01.jpg"}
"""The csv files write this name without the space that the file in ``ibug.zip`` has."""

PARTS = {
    "train": ("afw", "helen/trainset", "lfpw/trainset"),
    "common": ("helen/testset", "lfpw/testset"),
    "challenging": ("ibug",),
}
"""Folders of which each part consists. The csv files say the same, line by line."""

COUNTS = {"train": 3148, "common": 554, "challenging": 135}
"""How many faces each part has."""

SPLITS = {part: (part,) for part in PARTS} | {"full": ("common", "challenging")}
"""Parts of each split; "full" is the sum of both test parts, 689 faces."""

_CSV = {
    "train": "face_landmarks_300w_train.csv",
    "common": "face_landmarks_300w_valid_common.csv",
    "challenging": "face_landmarks_300w_valid_challenge.csv",
}
_ANNOTATIONS = ("auto", "csv", "pts")
_FACE_NUMBER = re.compile(r" ?_\d+(?=\.\w+$)")


class IBug300W(LandmarkDataset):
    """300W.

    Reads HRNet's csv files (box from scale and centre), as FaRL does. Without them the ``.pts`` files beside iBUG's
    pictures do, too: the same faces, points and splits, with the square around the landmarks as box.

    Args:
        root: Folder with ``afw``, ``helen``, ``lfpw`` and ``ibug`` (or ``images`` with those in it) and the csv files.
        split: ``"train"``, ``"common"``, ``"challenging"`` or ``"full"``, which is both test parts.
        annotations: ``"csv"``, ``"pts"``, or ``"auto"``: csv files if they are there.

    Raises:
        DatasetNotFoundError: If something that the split needs is missing.
        DataError: If a csv file is none of this dataset.
        ConfigError: If a name is unknown.
    """

    source = DatasetSource(
        name="300W",
        page="https://ibug.doc.ic.ac.uk/resources/300-W/",
        archives=("afw.zip", "helen.zip", "lfpw.zip", "ibug.zip"),
        terms="research only; no redistribution",
        layout=(
            "afw/  helen/{trainset,testset}/  lfpw/{trainset,testset}/  ibug/   the four archives of the page",
            "face_landmarks_300w_{train,valid_common,valid_challenge}.csv   the annotations linked under 'Data' in",
            "    https://github.com/HRNet/HRNet-Facial-Landmark-Detection; without them the .pts files are read",
        ),
    )
    order = IBUG_68

    def __init__(self, root: str | Path, split: str = "train", annotations: str = "auto") -> None:
        check_split(split, tuple(SPLITS), self.source.name)
        if annotations not in _ANNOTATIONS:
            raise ConfigError(f"annotations '{annotations}' is unknown. {did_you_mean(annotations, _ANNOTATIONS)}")
        parts = SPLITS[split]
        if annotations == "auto":
            annotations = _available(Path(root).expanduser(), parts)
        root = find_root(root, [_CSV[part] for part in parts] if annotations == "csv" else [], self.source)
        pictures = root / "images" if (root / "images").is_dir() else root
        if annotations == "pts":
            find_root(pictures, [folder for part in parts for folder in PARTS[part]], self.source)
        read = _csv_rows if annotations == "csv" else _pts_rows
        rows = [row for part in parts for row in read(root, pictures, part)]
        super().__init__(rows, pictures, sum(COUNTS[part] for part in parts))

    @property
    def photographs(self) -> list[str]:
        """For each face the photograph: in AFW, HELEN and iBUG ``134212_1.jpg`` and ``134212_2.jpg`` are of one."""
        names = super().photographs
        return [name if name.startswith("lfpw/") else _FACE_NUMBER.sub("", name) for name in names]


def _available(root: Path, parts: tuple[str, ...]) -> str:
    """Choose the annotations: ``.pts`` only where no csv file, but pictures are."""
    has_csv = any((root / _CSV[part]).exists() for part in parts)
    pictures = root / "images" if (root / "images").is_dir() else root
    has_pictures = any((pictures / folder).is_dir() for part in parts for folder in PARTS[part])
    return "pts" if has_pictures and not has_csv else "csv"


def _csv_rows(root: Path, pictures: Path, part: str) -> list[FaceRow]:
    """Read HRNet's file of a part."""
    return [_from_csv(face, pictures, part) for face in read_landmark_csv(root / _CSV[part], IBUG_68.count)]


def _from_csv(face: CsvFace, pictures: Path, part: str) -> FaceRow:
    """Move a line of the csv to pixel centres at integers, and give the file its real name."""
    real = RENAMED.get(face.picture, face.picture)
    picture = real if (pictures / real).exists() else face.picture  # some copies of the archive were renamed
    left, top, right, bottom = (side - CSV_OFFSET for side in face.box)
    landmarks = (face.landmarks - CSV_OFFSET).astype(np.float32)
    return FaceRow(
        _key(real), picture, landmarks, (left, top, right, bottom), subsets=_subsets(part), problem=face.problem
    )


def _pts_rows(root: Path, pictures: Path, part: str) -> list[FaceRow]:
    """Read the ``.pts`` files of a part."""
    paths = [path for folder in PARTS[part] for path in sorted((pictures / folder).glob("*.pts"))]
    if not paths:
        raise DataError(f"no .pts files in {', '.join(PARTS[part])} of '{root}'. {IBug300W.source.how_to_get()}")
    return [_from_pts(path, pictures, part) for path in paths]


def _from_pts(path: Path, pictures: Path, part: str) -> FaceRow:
    """Turn one ``.pts`` file into a row; the picture lies beside it."""
    picture = path.with_suffix(".jpg") if path.with_suffix(".jpg").exists() else path.with_suffix(".png")
    name = picture.relative_to(pictures).as_posix()
    try:
        points = read_pts(path, IBUG_68.count) - PTS_OFFSET
    except BadSample as error:
        empty = np.zeros((IBUG_68.count, 2), np.float32)
        return FaceRow(_key(name), name, empty, (0.0, 0.0, 0.0, 0.0), subsets=_subsets(part), problem=error.detail)
    return FaceRow(_key(name), name, points.astype(np.float32), landmark_box(points), subsets=_subsets(part))


def _key(picture: str) -> str:
    """Name a face as FaRL does; there is one per file."""
    return picture.rsplit(".", 1)[0].replace("/", "_")


def _subsets(part: str) -> tuple[str, ...]:
    """Test faces carry the name of their part, so that one pass over "full" reports all three errors."""
    return () if part == "train" else (part,)
