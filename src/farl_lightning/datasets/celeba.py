"""CelebA and LFWA: 40 attributes of the whole face (Liu et al., ICCV 2015)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from farl_lightning.datasets.faces import DatasetSource, check_split, find_root, not_found
from farl_lightning.datasets.labelled import FaceTable, LabelledFaces, label_spec
from farl_lightning.datasets.lists import find_file, read_lists, read_numbers
from farl_lightning.datasets.synthetic.attributes import CELEBA_ATTRIBUTES
from farl_lightning.errors import DataError, require
from farl_lightning.types import ATTRIBUTES, FaceSpec

CELEBA_SPLITS = {"train": 162770, "val": 19867, "test": 19962}
"""The official splits and their sizes."""

LFWA_SPLITS = {"train": 6263, "test": 6880}
"""The official splits and their sizes."""

IMAGES = ("img_align_celeba", "Img/img_align_celeba", "img_align_celeba/img_align_celeba")
"""Where the aligned pictures lie: beside the lists, in the folders of the download, as nested by mirrors."""


class CelebA(LabelledFaces):
    """202,599 portraits of celebrities with 40 attributes, aligned and cropped by the authors to 178 x 218 pixels.

    The lists are read as the authors publish them (``Anno/list_attr_celeba.txt``, ``Eval/list_eval_partition.txt``;
    their folders may be left out) or as ``.csv`` of the same names. Where they are there,
    ``list_landmarks_align_celeba`` gives the five points that an aligned crop needs, and ``identity_CelebA`` who is
    shown. Results are split by the groups ``gender`` and ``age`` (the attributes ``Male`` and ``Young``).

    Args:
        root: Folder that holds pictures and lists.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        ConfigError: If the split is unknown.
        DatasetNotFoundError: If the folder is not what it should be.
    """

    source = DatasetSource(
        name="CelebA",
        page="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        archives=("img_align_celeba.zip", "list_attr_celeba.txt", "list_eval_partition.txt"),
        terms="non-commercial research only",
        layout=(
            "img_align_celeba/*.jpg",
            "list_attr_celeba.txt",
            "list_eval_partition.txt",
            "list_landmarks_align_celeba.txt (for aligned crops)",
            "identity_CelebA.txt (optional)",
        ),
    )
    spec: FaceSpec = label_spec({}, CELEBA_ATTRIBUTES)

    def __init__(self, root: str | Path, split: str = "train") -> None:
        check_split(split, tuple(CELEBA_SPLITS), "CelebA")
        root = find_root(root, (), self.source)
        folder = next((name for name in IMAGES[::-1] if (root / name).is_dir()), None)
        lists = {name: find_file(root, (name, f"Anno/{name}", f"Eval/{name}")) for name in _lists()}
        attributes, partition = _first(lists, "list_attr_celeba"), _first(lists, "list_eval_partition")
        if folder is None or attributes is None or partition is None:
            raise not_found(root, "lacks pictures, attributes or partition", self.source)
        parts = read_lists(partition, 1)
        wanted = str(list(CELEBA_SPLITS).index(split))
        table = _celeba_table(
            [name for name, row in parts.items() if row == [wanted]],
            folder,
            read_lists(attributes, 40, CELEBA_ATTRIBUTES),
            _optional(lists, "list_landmarks_align_celeba", 10),
            _optional(lists, "identity_CelebA", 1),
        )
        if not table.files:
            raise not_found(root, f"lists no picture of '{split}'", self.source)
        super().__init__(root, table, self.spec, self.source, CELEBA_SPLITS[split])


def _lists() -> list[str]:
    """Return the names of CelebA's lists."""
    names = ("list_attr_celeba", "list_eval_partition", "list_landmarks_align_celeba", "identity_CelebA")
    return [f"{name}{suffix}" for name in names for suffix in (".txt", ".csv")]


def _first(lists: dict[str, Path | None], name: str) -> Path | None:
    """Return a list in whichever form it is there."""
    return lists[f"{name}.txt"] or lists[f"{name}.csv"]


def _optional(lists: dict[str, Path | None], name: str, columns: int) -> dict[str, list[str]]:
    """Read a list that need not be there."""
    path = _first(lists, name)
    return {} if path is None else read_lists(path, columns)


def _celeba_table(
    names: list[str],
    folder: str,
    attributes: dict[str, list[str]],
    points: dict[str, list[str]],
    identities: dict[str, list[str]],
) -> FaceTable:
    """Join CelebA's lists by the names of the pictures."""
    problems: dict[int, str] = {}
    answers = np.full((len(names), 40), -1, np.int8)
    places = np.full((len(names), 10), np.nan, np.float32)
    for row, name in enumerate(names):
        words = attributes.get(name, [])
        if len(words) == 40 and set(words) <= {"1", "-1"}:
            answers[row] = [word == "1" for word in words]
        else:
            problems[row] = _wrong(name, words)
        places[row] = read_numbers(points.get(name, []), 10)
    male, young = (answers[:, CELEBA_ATTRIBUTES.index(name)] for name in ("Male", "Young"))
    return FaceTable(
        files=[f"{folder}/{name}" for name in names],
        keys=names,
        labels={ATTRIBUTES: answers},
        groups={"gender": _named(male, "female", "male"), "age": _named(young, "old", "young")},
        identities=[_who(identities, name) for name in names] if identities else [],
        points=places.reshape(-1, 5, 2) if points else None,
        problems=problems,
    )


def _who(identities: dict[str, list[str]], name: str) -> str:
    """Return who is shown; a picture that is not listed shows a person of its own."""
    return (identities.get(name) or [name])[0]


def _wrong(name: str, words: list[str]) -> str:
    """Say what is wrong with a line of attributes."""
    if not words:
        return f"{name} has no attributes"
    odd = sorted(set(words) - {"1", "-1"})
    return f"{name} has {len(words)} attributes instead of 40" if not odd else f"{name} has an attribute of '{odd[0]}'"


def _named(answers: npt.NDArray[Any], no: str, yes: str) -> list[str]:
    """Turn answers into names of groups."""
    return [yes if answer == 1 else no if answer == 0 else "" for answer in answers.tolist()]


class LFWA(LabelledFaces):
    """LFW with CelebA's 40 attributes: 13,143 pictures of 5749 people.

    ``lfw_att_40.mat`` (``name``, ``label``, ``AttrName``), ``indices_train_test.mat`` (``indices_img_train``,
    ``indices_img_test``, from 1) and the pictures in ``lfw/``. Reading ``.mat`` needs SciPy.

    Args:
        root: Folder that holds the lists; they may lie in ``anno/``.
        split: ``"train"`` or ``"test"``.

    Raises:
        ConfigError: If the split is unknown.
        DatasetNotFoundError: If the folder is not what it should be.
        DataError: If the lists do not fit together.
        MissingDependencyError: Without SciPy.
    """

    source = DatasetSource(
        name="LFWA",
        page="https://mmlab.ie.cuhk.edu.hk/projects/LFWA.html",
        archives=("lfw.zip", "anno.zip"),
        terms="non-commercial research only",
        layout=("lfw/{person}/{person}_0001.jpg", "lfw_att_40.mat", "indices_train_test.mat"),
    )
    spec: FaceSpec = label_spec({}, CELEBA_ATTRIBUTES)

    def __init__(self, root: str | Path, split: str = "train") -> None:
        check_split(split, tuple(LFWA_SPLITS), "LFWA")
        root = find_root(root, ("lfw",), self.source)
        labels, indices = (find_file(root, (name, f"anno/{name}")) for name in self.source.layout[1:])
        if labels is None or indices is None:
            raise not_found(root, "lacks lfw_att_40.mat or indices_train_test.mat", self.source)
        rows = _load(indices)[f"indices_img_{split}"].astype(np.int64).ravel() - 1
        names, answers = _lfwa_labels(_load(labels))
        if rows.size and not 0 <= rows.min() <= rows.max() < len(names):
            raise DataError(f"'{indices}' counts to {rows.max() + 1}, but '{labels}' has {len(names)} pictures")
        chosen = [names[row] for row in rows.tolist()]
        male, young = (answers[rows, CELEBA_ATTRIBUTES.index(name)] for name in ("Male", "Young"))
        table = FaceTable(
            files=[f"lfw/{name}" for name in chosen],
            keys=chosen,
            labels={ATTRIBUTES: answers[rows]},
            groups={"gender": _named(male, "female", "male"), "age": _named(young, "old", "young")},
            identities=[name.partition("/")[0] for name in chosen],
        )
        super().__init__(root, table, self.spec, self.source, LFWA_SPLITS[split])


def _load(path: Path) -> dict[str, Any]:
    """Read a MATLAB file; only arrays, cells and text."""
    scipy_io = require("scipy.io", "datasets")
    try:
        found: dict[str, Any] = scipy_io.loadmat(str(path))
    except Exception as error:  # the reader raises whatever it likes on broken bytes
        raise DataError(f"'{path}' cannot be read ({type(error).__name__}: {error}). Download it again.") from error
    return found


def _lfwa_labels(found: dict[str, Any]) -> tuple[list[str], npt.NDArray[np.int8]]:
    """Return the pictures, and their answers in the order of CelebA."""
    names = [str(cell[0]).replace("\\", "/") for cell in found["name"].ravel()]
    order = [str(cell[0]).strip().replace(" ", "_").lower() for cell in found["AttrName"].ravel()]
    missing = [name for name in CELEBA_ATTRIBUTES if name.lower() not in order]
    if missing or found["label"].shape != (len(names), len(order)):
        raise DataError(
            f"lfw_att_40.mat has {found['label'].shape} labels of {len(names)} pictures, and lacks: {missing[:5]}"
        )
    columns = [order.index(name.lower()) for name in CELEBA_ATTRIBUTES]
    return names, (found["label"][:, columns] > 0).astype(np.int8)
