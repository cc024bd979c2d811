"""RAF-DB: seven basic expressions of faces in the wild (Li et al., CVPR 2017)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from farl_lightning.datasets.faces import DatasetSource, check_split, find_root, not_found
from farl_lightning.datasets.labelled import UNKNOWN, FaceTable, LabelledFaces, label_spec
from farl_lightning.datasets.lists import read_lines, read_lists, read_numbers
from farl_lightning.errors import DataError
from farl_lightning.types import FaceSpec

RAFDB_SPLITS = {"train": 12271, "test": 3068}
"""The official splits and their sizes."""

EXPRESSIONS = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
"""Expressions in RAF-DB's order; its lists count from 1."""

GENDERS = ("male", "female", "")
"""Genders by their number in the annotation; the last is "unsure"."""

RACES = ("Caucasian", "African-American", "Asian")
"""Races by their number in the annotation."""

AGES = ("0-3", "4-19", "20-39", "40-69", "70+")
"""Age groups by their number in the annotation."""

LIST = "EmoLabel/list_patition_label.txt"
"""The list of pictures, as its authors spell it."""

MANUAL = "Annotation/manual"
"""The folder of the annotations by hand."""


class RAFDB(LabelledFaces):
    """15,339 faces with one of seven basic expressions, by some 40 annotators each.

    ``EmoLabel/list_patition_label.txt`` and ``Image/aligned/*_aligned.jpg`` (100 px, aligned by the authors) or
    ``Image/original/*``; ``basic/`` in front of them may be left out. ``Annotation/manual/*_manu_attri.txt``, where it
    is there, brings the groups ``gender``, ``race`` and ``age``, and five points of the original pictures.

    Args:
        root: Folder that holds lists and pictures.
        split: ``"train"`` or ``"test"``.
        aligned: Whether to read the aligned pictures.

    Raises:
        ConfigError: If the split is unknown.
        DatasetNotFoundError: If the folder is not what it should be.
        DataError: If the list cannot be read.
    """

    source = DatasetSource(
        name="RAF-DB",
        page="http://www.whdeld.cn/RAF/model1.html",
        archives=("basic.zip",),
        terms="by request; non-commercial research only",
        layout=(LIST, "Image/aligned/*_aligned.jpg or Image/original/*.jpg", f"{MANUAL}/*_manu_attri.txt (optional)"),
    )
    spec: FaceSpec = label_spec({"expression": EXPRESSIONS})

    def __init__(self, root: str | Path, split: str = "train", aligned: bool = True) -> None:
        check_split(split, tuple(RAFDB_SPLITS), "RAF-DB")
        folder, suffix = ("aligned", "_aligned.jpg") if aligned else ("original", ".jpg")
        root = Path(root).expanduser()
        inner = root / "basic" if (root / "basic").is_dir() else root
        inner = find_root(inner, (LIST, f"Image/{folder}"), self.source)
        rows = read_lists(inner / LIST, 1)
        names = [name for name in rows if name.startswith(split)]
        if not names:
            raise not_found(inner, f"lists no picture of '{split}'", self.source)
        labels, problems = _expressions(names, rows)
        stems = [name.rpartition(".")[0] for name in names]
        places, groups = _manual(inner / MANUAL, stems)
        table = FaceTable(
            files=[f"Image/{folder}/{stem}{suffix}" for stem in stems],
            keys=names,
            labels={"expression": labels},
            groups=groups,
            points=None if aligned or not groups else places,
            problems=problems,
        )
        super().__init__(inner, table, self.spec, self.source, RAFDB_SPLITS[split])


def _expressions(names: list[str], rows: dict[str, list[str]]) -> tuple[npt.NDArray[np.int64], dict[int, str]]:
    """Return the expressions, and what is wrong with some."""
    allowed = {str(number): number - 1 for number in range(1, 8)}
    labels = np.array([allowed.get(" ".join(rows[name]), UNKNOWN) for name in names], np.int64)
    wrong = np.flatnonzero(labels == UNKNOWN).tolist()
    return labels, {row: f"'{names[row]} {' '.join(rows[names[row]])}' names no expression 1 to 7" for row in wrong}


def _manual(folder: Path, stems: list[str]) -> tuple[npt.NDArray[np.float32], dict[str, list[str]]]:
    """Return five points and groups of every face, unknown where no file says; no groups without the folder."""
    places = np.full((len(stems), 5, 2), np.nan, np.float32)
    groups: dict[str, list[str]] = {"gender": [], "race": [], "age": []}
    if not folder.is_dir():
        return places, {}
    for row, stem in enumerate(stems):
        words = _words(folder / f"{stem}_manu_attri.txt")
        places[row] = read_numbers(words[:10], 10).reshape(5, 2)
        for (name, column), options, word in zip(groups.items(), (GENDERS, RACES, AGES), words[10:13], strict=True):
            del name
            column.append(options[int(word)] if word.isdecimal() and int(word) < len(options) else "")
    return places, groups


def _words(path: Path) -> list[str]:
    """Return the 13 words of an annotation; empty ones where it cannot be read."""
    try:
        words = " ".join(read_lines(path)).split()
    except DataError:
        words = []
    return words if len(words) == 13 else [""] * 13
