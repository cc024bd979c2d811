"""AffectNet: expressions, valence and arousal of faces in the wild (Mollahosseini et al., 2017)."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

from farl_lightning.datasets.faces import DatasetSource, check_split, find_root, list_names, not_found
from farl_lightning.datasets.labelled import UNKNOWN, FaceTable, LabelledFaces, label_spec
from farl_lightning.datasets.lists import find_file, read_lines, read_numbers
from farl_lightning.errors import ConfigError
from farl_lightning.types import FaceSpec

EXPRESSIONS = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
"""Expressions by their number; 8 (none), 9 (uncertain) and 10 (no face) are no expressions."""

AFFECTNET_SPLITS = {7: {"train": 283901, "test": 3500}, 8: {"train": 287651, "test": 3999}}
"""Sizes of the splits of the release with pictures cropped by its authors, by number of expressions. The second is
their validation set, on which papers report, since the test set is not published."""

COLUMNS = 9
_EYES = (slice(36, 42), slice(42, 48))
_NO_RATING = -2.0


class _Face(NamedTuple):
    """One row, as words and numbers."""

    file: str
    expression: int
    valence: float
    arousal: float
    box: tuple[float, ...]
    landmarks: np.ndarray
    problem: str = ""


class AffectNet(LabelledFaces):
    """Faces with one of seven or eight expressions, and valence and arousal from -1 to 1.

    Two releases are read: ``{train,val}_set/images/*.jpg`` with ``{train,val}_set/annotations/*_{exp,val,aro,lnd}.npy``
    (cropped pictures), and ``{training,validation}.csv`` with ``Manually_Annotated_Images/`` (the first one, with face
    boxes; the lists may lie in ``Manually_Annotated_file_lists/``). Faces without an expression (8 to 10) are left out.

    Args:
        root: Folder that holds lists and pictures.
        split: ``"train"``, or ``"test"`` for the authors' validation set.
        expressions: 7, or 8 with contempt.

    Raises:
        ConfigError: If a setting is unknown.
        DatasetNotFoundError: If the folder is not what it should be.
        DataError: If a list cannot be read.
    """

    source = DatasetSource(
        name="AffectNet",
        page="http://mohammadmahoor.com/affectnet/",
        archives=("train_set.tar", "val_set.tar"),
        terms="by request; non-commercial research only",
        layout=("{train,val}_set/images/*.jpg", "{train,val}_set/annotations/*_{exp,val,aro,lnd}.npy"),
    )
    spec: FaceSpec = label_spec({"expression": EXPRESSIONS, "valence": (), "arousal": ()})

    def __init__(self, root: str | Path, split: str = "train", expressions: int = 8) -> None:
        check_split(split, ("train", "test"), "AffectNet")
        if expressions not in AFFECTNET_SPLITS:
            raise ConfigError(f"expressions are 7 or 8 (with contempt), got {expressions}")
        root = find_root(root, (), self.source)
        cropped = root / f"{'train' if split == 'train' else 'val'}_set"
        name = f"{'training' if split == 'train' else 'validation'}.csv"
        listed = find_file(root, (name, f"Manually_Annotated_file_lists/{name}"))
        if cropped.is_dir():
            faces, expected = list(_cropped(cropped)), AFFECTNET_SPLITS[expressions][split]
        elif listed is not None:
            faces, expected = list(_listed(listed)), None
        else:
            raise not_found(root, f"has neither {cropped.name} nor {name}", self.source)
        chosen = [face for face in faces if face.problem or 0 <= face.expression < expressions]
        if not any(not face.problem for face in chosen):
            raise not_found(root, f"has no face with one of {expressions} expressions in '{split}'", self.source)
        super().__init__(root, _table(chosen), affectnet_spec(expressions), self.source, expected)


def affectnet_spec(expressions: int) -> FaceSpec:
    """Return what AffectNet's labels are.

    Args:
        expressions: 7 or 8.
    """
    return label_spec({"expression": EXPRESSIONS[:expressions], "valence": (), "arousal": ()})


def _table(faces: list[_Face]) -> FaceTable:
    """Turn rows into columns."""
    return FaceTable(
        files=[face.file for face in faces],
        labels={
            "expression": np.array([face.expression for face in faces], np.int64),
            "valence": np.array([_rated(face.valence) for face in faces], np.float32),
            "arousal": np.array([_rated(face.arousal) for face in faces], np.float32),
        },
        boxes=np.array([face.box for face in faces], np.float32),
        points=np.stack([_five(face.landmarks) for face in faces]),
        problems={row: face.problem for row, face in enumerate(faces) if face.problem},
    )


def _rated(value: float) -> float:
    """Return a rating; -2 means that nobody gave one."""
    return float("nan") if value == _NO_RATING else value


def _five(landmarks: np.ndarray) -> np.ndarray:
    """Return eye centres, nose tip and mouth corners of iBUG's 68 landmarks, (136,) to (5, 2)."""
    points = landmarks.reshape(68, 2)
    return np.stack([*(points[eye].mean(0) for eye in _EYES), points[30], points[48], points[54]]).astype(np.float32)


def _cropped(folder: Path) -> Iterator[_Face]:
    """Read the release of cropped pictures; it has four small files per face."""
    nan4 = (float("nan"),) * 4
    names = list_names(folder / "images", (".jpg", ".jpeg", ".png"))
    for name in tqdm(names, desc="reading AffectNet", unit="face", delay=3, leave=False, disable=None):
        stem = folder / "annotations" / name.rpartition(".")[0]
        file = f"{folder.name}/images/{name}"
        expression, valence, arousal = (_array(stem, kind, 1)[0] for kind in ("exp", "val", "aro"))
        landmarks = _array(stem, "lnd", 136)
        problem = f"{stem.name}_exp.npy is missing or no number" if np.isnan(expression) else ""
        number = UNKNOWN if problem else int(expression)
        yield _Face(file, number, float(valence), float(arousal), nan4, landmarks, problem)


def _array(stem: Path, kind: str, count: int) -> np.ndarray:
    """Return the numbers of a small file (which holds them as text, or as numbers), nan where they are not."""
    try:
        values = np.load(f"{stem}_{kind}.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return np.full(count, np.nan, np.float32)
    return read_numbers([str(value) for value in values.ravel()[: count + 1]], count)


def _listed(path: Path) -> Iterator[_Face]:
    """Read the first release's list; its validation file came without a header."""
    for number, row in enumerate(csv.reader(read_lines(path)), 1):
        if row[0] == "subDirectory_filePath":
            continue
        values = read_numbers(row[1:5] + row[6:9], 7)
        file = f"Manually_Annotated_Images/{row[0]}"
        landmarks = read_numbers(row[5].split(";") if len(row) > 5 else [], 136)
        if len(row) != COLUMNS or np.isnan(values).any():
            problem = f"line {number}: not {COLUMNS} columns with seven numbers"
            yield _Face(file, UNKNOWN, float("nan"), float("nan"), (float("nan"),) * 4, landmarks, problem)
            continue
        x, y, width, height, expression, valence, arousal = values.tolist()
        yield _Face(file, int(expression), valence, arousal, (x, y, x + width, y + height), landmarks)
