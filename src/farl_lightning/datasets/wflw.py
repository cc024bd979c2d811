"""WFLW: 98 landmarks and six subsets of the test set (Wu et al., "Look at Boundary", CVPR 2018)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from farl_lightning.datasets.faces import DatasetSource, check_split, find_root
from farl_lightning.datasets.landmark_csv import CsvFace, read_landmark_csv
from farl_lightning.datasets.landmark_faces import FaceRow, LandmarkDataset, landmark_box
from farl_lightning.datasets.landmark_sets import WFLW_98
from farl_lightning.errors import ConfigError, DataError, did_you_mean

SUBSETS = ("largepose", "expression", "illumination", "makeup", "occlusion", "blur")
"""The subsets of the test set, by the names of their csv files; their flags stand in this order in the lists, too."""

SPLITS = {"train": 7500, "test": 2500}
"""Splits, and how many faces each has."""

ANNOTATIONS = ("auto", "csv", "list")
"""HRNet's csv files, as in FaRL; the authors' own lists; or the first that is there."""

LIST = "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_{}.txt"
"""The authors' own file of a split: on each line 196 coordinates, 4 of a box, 6 flags, and the picture's name."""

_RECTANGLE = 4


class WFLW(LandmarkDataset):
    """WFLW, from HRNet's csv files or, without them, from the lists in the authors' archive.

    Both hold the same faces and points, but not the same boxes: FaRL crops by HRNet's, not by the lists' rectangles. A
    face that is read from the lists is cropped by the square around its landmarks.

    Every test face carries the names of its subsets, so that one pass over the test set reports all seven errors.

    Args:
        root: Folder with ``WFLW_images`` (or ``images``), and the csv files or ``WFLW_annotations``.
        split: ``"train"`` or ``"test"``.
        subset: Keep only this subset of the test set; see :data:`SUBSETS`.
        annotations: ``"csv"``, ``"list"``, or ``"auto"``: csv files if they are there.

    Raises:
        DatasetNotFoundError: If a file is missing.
        DataError: If a file is none of this dataset.
        ConfigError: If a name is unknown.
    """

    source = DatasetSource(
        name="WFLW",
        page="https://wywu.github.io/projects/LAB/WFLW.html",
        archives=("WFLW_images.tar.gz", "WFLW_annotations.tar.gz"),
        terms="research only; no redistribution",
        layout=(
            "WFLW_images/   and   WFLW_annotations/   the two archives of the page",
            "face_landmarks_wflw_{train,test}.csv   what FaRL reads, with",
            "face_landmarks_wflw_test_{largepose,expression,illumination,makeup,occlusion,blur}.csv",
            "    linked under 'Data' in https://github.com/HRNet/HRNet-Facial-Landmark-Detection; or else the lists",
        ),
    )
    order = WFLW_98

    def __init__(
        self, root: str | Path, split: str = "train", subset: str | None = None, annotations: str = "auto"
    ) -> None:
        check_split(split, tuple(SPLITS), self.source.name)
        if subset is not None and (split != "test" or subset not in SUBSETS):
            hint = did_you_mean(subset, SUBSETS) if split == "test" else "Only the test set has subsets."
            raise ConfigError(f"WFLW has no subset '{subset}' of split '{split}'. {hint}")
        if annotations not in ANNOTATIONS:
            raise ConfigError(f"annotations '{annotations}' is unknown. {did_you_mean(annotations, ANNOTATIONS)}")
        root = Path(root).expanduser()
        if annotations == "auto":
            has_list = (root / LIST.format(split)).exists() and not (root / _csv(split)).exists()
            annotations = "list" if has_list else "csv"
        rows = _csv_rows(root, split) if annotations == "csv" else _list_rows(root, split)
        rows = [row for row in rows if subset is None or subset in row.subsets]
        pictures = root / "WFLW_images" if (root / "WFLW_images").is_dir() else root / "images"
        super().__init__(rows, pictures, SPLITS[split] if subset is None else None)


def _csv(split: str, subset: str | None = None) -> str:
    """Return the name of a csv file."""
    return f"face_landmarks_wflw_{split}.csv" if subset is None else f"face_landmarks_wflw_{split}_{subset}.csv"


def _csv_rows(root: Path, split: str) -> list[FaceRow]:
    """Read HRNet's file of a split; a face belongs to a subset if the subset's file has it, too."""
    subsets = SUBSETS if split == "test" else ()
    find_root(root, [_csv(split), *(_csv("test", name) for name in subsets)], WFLW.source)
    members = {name: _members(root / _csv("test", name)) for name in subsets}
    rows = []
    for face in read_landmark_csv(root / _csv(split), WFLW_98.count):
        key = _key(face)
        rows.append(_row(face, key, tuple(name for name in subsets if key in members[name])))
    return rows


def _members(path: Path) -> set[str]:
    """Return the keys of a subset's faces."""
    return {_key(face) for face in read_landmark_csv(path, WFLW_98.count) if not face.problem}


def _list_rows(root: Path, split: str) -> list[FaceRow]:
    """Read the authors' list of a split."""
    find_root(root, [LIST.format(split)], WFLW.source)
    path = root / LIST.format(split)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [_from_list(number, line.split(), split) for number, line in enumerate(lines, 1) if line.strip()]
    if all(row.problem for row in rows):
        said = rows[0].problem if rows else "it is empty"
        raise DataError(f"'{path}' holds no face with {WFLW_98.count} landmarks: {said}. Download it again.")
    return rows


def _from_list(number: int, words: list[str], split: str) -> FaceRow:
    """Turn one line of a list into a row."""
    points, wanted = 2 * WFLW_98.count, 2 * WFLW_98.count + _RECTANGLE + len(SUBSETS) + 1
    try:
        if len(words) != wanted:
            raise ValueError(f"{len(words)} columns instead of {wanted}")
        values = np.array(words[:-1], np.float64)
        if not np.isfinite(values).all():
            raise ValueError("a number is not finite")
    except ValueError as error:
        face = CsvFace(words[-1], (0.0, 0.0, 0.0, 0.0), np.zeros((WFLW_98.count, 2)), f"line {number}: {error}")
        return _row(face, _key(face), ())
    landmarks = values[:points].reshape(-1, 2)
    flags = values[points + _RECTANGLE :] == 1
    subsets = tuple(name for name, flag in zip(SUBSETS, flags.tolist(), strict=True) if flag and split == "test")
    face = CsvFace(words[-1], landmark_box(landmarks), landmarks)
    return _row(face, _key(face), subsets)


def _row(face: CsvFace, key: str, subsets: tuple[str, ...]) -> FaceRow:
    """Take a line as it is: from WFLW's files, unlike from those of 300W, FaRL takes nothing off."""
    landmarks = face.landmarks.astype(np.float32)
    return FaceRow(key, face.picture, landmarks, face.box, subsets=subsets, problem=face.problem)


def _key(face: CsvFace) -> str:
    """Name a face by its picture and the mean of its landmarks, as FaRL does: many pictures show several faces.

    The same words name a face in the files of the subsets, which repeat the lines of the test set.
    """
    x, y = face.landmarks.astype(np.float32).mean(axis=0).tolist()
    return f"{face.picture.rsplit('.', 1)[0].replace('/', '.')}_{x:.3f}_{y:.3f}"
