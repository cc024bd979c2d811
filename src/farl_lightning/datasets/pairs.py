"""Pairs of faces, same person or not: LFW, CFP, CALFW, CPLFW, InsightFace's files (AgeDB-30, ...), one's own tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from farl_lightning.datasets.decode import decode_image
from farl_lightning.datasets.faces import FaceDataset, list_names
from farl_lightning.datasets.files import MIN_SIDE
from farl_lightning.datasets.labelled import FaceTable, LabelledFaces
from farl_lightning.datasets.lists import read_lines
from farl_lightning.datasets.pickled_pairs import read_pairs_bin
from farl_lightning.datasets.table_faces import NO, YES
from farl_lightning.datasets.table_file import READERS, read_table
from farl_lightning.errors import ConfigError, DataError, DatasetNotFoundError
from farl_lightning.types import FaceRecord, FaceSpec

FOLDS = 10
"""Parts of a pair list: a threshold is chosen on nine of them and judged on the tenth, by turns."""


@dataclasses.dataclass(frozen=True)
class PairList:
    """Pairs of rows of a dataset.

    Attributes:
        first: (P,) int64 rows.
        second: (P,) int64 rows.
        same: (P,) bool, whether both show the same person.
        folds: (P,) int64 from 0 to 9.
    """

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    same: npt.NDArray[np.bool_]
    folds: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.same)


class FacePairs(FaceDataset):
    """Pictures, each of them once however many pairs it is in, and the pairs: features are computed once per picture.

    Args:
        faces: The pictures.
        pairs: Rows of the pictures.
    """

    def __init__(self, faces: FaceDataset, pairs: PairList) -> None:
        self.faces, self.pairs = faces, pairs
        self.spec, self.keys, self.labels, self.groups = faces.spec, faces.keys, faces.labels, faces.groups
        self.rows = {key: row for row, key in enumerate(self.keys)}

    def read(self, index: int) -> FaceRecord:
        """Read one picture.

        Args:
            index: From 0 to ``len(self) - 1``.
        """
        return self.faces.read(index)

    def files(self, index: int) -> Sequence[Path]:
        """Return the file of a picture, if it has one of its own.

        Args:
            index: From 0 to ``len(self) - 1``.
        """
        return self.faces.files(index)

    def how_to_get(self) -> list[str]:
        """Return nothing: the lists come from many places."""
        return []


class EncodedFaces(FaceDataset):
    """Pictures that are in memory as encoded files.

    Args:
        pictures: The bytes of each.
        keys: Their names.
    """

    spec = FaceSpec()

    def __init__(self, pictures: Sequence[bytes], keys: list[str]) -> None:
        self.pictures, self.keys = pictures, keys

    def read(self, index: int) -> FaceRecord:
        """Decode one picture.

        Args:
            index: From 0 to ``len(self) - 1``.
        """
        image = np.asarray(decode_image(self.pictures[index], min_side=MIN_SIDE))
        return FaceRecord(key=self.keys[index], image=image)


def open_pairs(path: str | Path) -> FacePairs:
    """Open a list of pairs; what it is, is seen by what is there.

    Args:
        path: One of

            - ``*.bin``: InsightFace's file of encoded pictures (LFW, CFP-FP, AgeDB-30, CALFW, CPLFW, ...); the folds
              are consecutive tenths, as its own evaluation takes them;
            - LFW's folder: ``pairs.txt``, and ``lfw/`` or ``lfw_funneled/`` or the people's folders beside it;
            - CFP's folder: ``Protocol/Split/FP/*/{same,diff}.txt``; ``.../CFP/FF`` opens frontal pairs;
            - CALFW's or CPLFW's folder: ``pairs_CALFW.txt`` or ``pairs_CPLFW.txt``, and ``aligned images/`` or
              ``images/``;
            - a table with the columns ``first``, ``second``, ``same`` and maybe ``fold`` (from 1); paths are relative
              to it.

    Raises:
        DatasetNotFoundError: If nothing of this is there.
        DataError: If it cannot be read.
    """
    path = Path(path).expanduser()
    if path.suffix == ".bin":
        return _open_bin(path)
    if path.is_file() and path.suffix.lower() in READERS:
        return _open_table(path)
    for marker, opener in _FOLDERS.items():
        if (path / marker).exists():
            return opener(path)
    if path.name in ("FP", "FF") and (path.parent / "Protocol").is_dir():
        return _open_cfp(path.parent, path.name)
    raise DatasetNotFoundError(
        f"'{path.absolute()}' holds no pairs: it is no .bin file or table, and has none of {', '.join(_FOLDERS)}"
    )


def _open_bin(path: Path) -> FacePairs:
    """Open InsightFace's file; the same bytes are the same picture."""
    encoded, same = read_pairs_bin(path)
    unique: dict[bytes, int] = {}
    numbers = [unique.setdefault(data, len(unique)) for data in encoded]
    index = np.array(numbers, np.int64).reshape(-1, 2)
    keys = [f"{path.name}#{number}" for number in range(len(unique))]
    pairs = PairList(index[:, 0], index[:, 1], np.array(same, bool), tenths(len(same)))
    return FacePairs(EncodedFaces(list(unique), keys), pairs)


def tenths(count: int) -> npt.NDArray[np.int64]:
    """Divide a list into ten consecutive folds, the first ones longer by one where they do not come out even.

    Args:
        count: Length of the list.

    Returns:
        (count,) from 0 to 9.
    """
    sizes = [len(part) for part in np.array_split(np.arange(count), FOLDS)]
    return np.repeat(np.arange(FOLDS, dtype=np.int64), sizes)


Named = list[tuple[str, str, bool, int]]
"""Two files, whether they show the same person, and the fold."""


def _from_files(root: Path, pairs: Named) -> FacePairs:
    """Join pairs of files."""
    rows: dict[str, int] = {}
    index = [(rows.setdefault(first, len(rows)), rows.setdefault(second, len(rows))) for first, second, _, _ in pairs]
    first, second = np.array(index, np.int64).reshape(-1, 2).T
    same = np.array([pair[2] for pair in pairs], bool)
    if same.all() or not same.any():
        raise DataError(f"the pairs in '{root}' are {'all' if same.any() else 'none'} of the same person")
    listed = PairList(first, second, same, np.array([pair[3] for pair in pairs], np.int64))
    return FacePairs(LabelledFaces(root, FaceTable(list(rows)), FaceSpec()), listed)


def _open_lfw(root: Path) -> FacePairs:
    """Open LFW's view 2: ten sets of 300 pairs of each kind."""
    listed = root / "pairs.txt"
    lines = [line.split() for line in read_lines(listed)]
    if not lines or len(lines[0]) != 2 or not all(word.isdecimal() for word in lines[0]):
        raise DataError(f"'{listed}' begins with {lines[:1]} instead of the numbers of sets and pairs")
    sets, count = (int(word) for word in lines[0])
    if len(lines) - 1 != 2 * sets * count:
        raise DataError(f"'{listed}' has {len(lines) - 1} pairs instead of {2 * sets * count}")
    folder = next((f"{name}/" for name in ("lfw", "lfw_funneled", "lfw-deepfunneled") if (root / name).is_dir()), "")
    pairs: Named = []
    for number, words in enumerate(lines[1:]):
        if len(words) not in (3, 4):
            raise DataError(
                f"'{listed}', pair {number + 1}: {' '.join(words)} is neither 'name n m' nor 'name n name m'"
            )
        other = words[2] if len(words) == 4 else words[0]
        first, second = (
            f"{folder}{who}/{who}_{picture.zfill(4)}.jpg" for who, picture in ((words[0], words[1]), (other, words[-1]))
        )
        pairs.append((first, second, len(words) == 3, number // (2 * count)))
    return _from_files(root, pairs)


def _open_cfp(root: Path, kind: str = "FP") -> FacePairs:
    """Open CFP: ten folds of 350 pairs of each kind, frontal against profile (FP) or frontal (FF)."""
    protocol = root / "Protocol"
    lists = {side: _cfp_files(protocol / f"Pair_list_{side}.txt") for side in "FP"}
    pairs: Named = []
    for fold in range(FOLDS):
        for name, same in (("same", True), ("diff", False)):
            listed = protocol / "Split" / kind / f"{fold + 1:02d}" / f"{name}.txt"
            for line in read_lines(listed):
                try:
                    first, second = (
                        lists[side][word.strip()] for side, word in zip(kind, line.split(","), strict=True)
                    )
                except (KeyError, ValueError) as error:
                    raise DataError(f"'{listed}': '{line}' names no pair of the lists") from error
                pairs.append((first, second, same, fold))
    return _from_files(root, pairs)


def _cfp_files(path: Path) -> dict[str, str]:
    """Return the pictures of CFP by their number."""
    words = [line.split() for line in read_lines(path)]
    if bad := next((line for line in words if len(line) != 2), None):
        raise DataError(f"'{path}': '{' '.join(bad)}' is no number and picture")
    return {number: file.replace("\\", "/").removeprefix("../") for number, file in words}


def _open_calfw(root: Path) -> FacePairs:
    """Open CALFW or CPLFW: two lines per pair, each with a picture and 0 for different people."""
    listed = next(root / name for name in ("pairs_CALFW.txt", "pairs_CPLFW.txt") if (root / name).exists())
    lines = [line.rsplit(maxsplit=1) for line in read_lines(listed)]
    if len(lines) % 2 or any(len(line) != 2 or not line[1].isdecimal() for line in lines):
        raise DataError(f"'{listed}' does not have two lines 'picture number' for every pair")
    folder = next((f"{name}/" for name in ("aligned images", "images") if (root / name).is_dir()), "")
    answers = [line[1] != "0" for line in lines[::2]]
    folds = {same: iter(tenths(answers.count(same)).tolist()) for same in (True, False)}  # of each kind by itself
    pairs = [
        (f"{folder}{first[0]}", f"{folder}{second[0]}", same, next(folds[same]))
        for first, second, same in zip(lines[::2], lines[1::2], answers, strict=True)
    ]
    return _from_files(root, pairs)


def _open_table(path: Path) -> FacePairs:
    """Open a user's own table of pairs."""
    table = read_table(path)
    if table.problems:
        raise DataError(f"'{path}', {next(iter(table.problems.values()))}; pairs left out would change the result")
    first, second, same = (table.column(name, "pairs") for name in ("first", "second", "same"))
    folds: list[int] = tenths(len(table)).tolist()
    if "fold" in table.columns:
        folds = [int(word) - 1 if word and word.isdecimal() else -1 for word in table.columns["fold"]]
    pairs: Named = []
    for row, (one, two, answer) in enumerate(zip(first, second, same, strict=True)):
        word = (answer or "").lower()
        if not (one and two and word in YES | NO and 0 <= folds[row] < FOLDS):
            raise DataError(
                f"'{path}', {table.places[row]}: needs two files, same (yes or no), and a fold from 1 to 10"
            )
        pairs.append((one, two, word in YES, folds[row]))
    return _from_files(path.parent, pairs)


_FOLDERS: dict[str, Callable[[Path], FacePairs]] = {
    "pairs.txt": _open_lfw,
    "Protocol": _open_cfp,
    "pairs_CALFW.txt": _open_calfw,
    "pairs_CPLFW.txt": _open_calfw,
}


def identity_faces(root: str | Path, suffixes: Sequence[str] = (".jpg", ".jpeg", ".png", ".webp")) -> LabelledFaces:
    """Open a folder with one subfolder per person, as identity training sets are unpacked.

    Args:
        root: The folder; ``{person}/*.jpg``.
        suffixes: Endings of pictures, in lower case.

    Returns:
        The faces, with the label ``identity``; its classes are the subfolders, sorted.

    Raises:
        DatasetNotFoundError: If there is no such folder, or no picture in it.
        ConfigError: If there is but one person.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise DatasetNotFoundError(f"identity folder '{root.absolute()}' does not exist")
    people = sorted(folder.name for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    pictures = {person: list_names(root / person, suffixes) for person in people}
    people = [person for person in people if pictures[person]]
    if len(people) < 2:
        raise ConfigError(f"'{root}' has {len(people)} subfolders with pictures; give one subfolder per person")
    files = [f"{person}/{name}" for person in people for name in pictures[person]]
    labels = np.repeat(np.arange(len(people), dtype=np.int64), [len(pictures[person]) for person in people])
    table = FaceTable(files, {"identity": labels}, identities=[people[person] for person in labels])
    return LabelledFaces(root, table, FaceSpec(label_names={"identity": tuple(people)}))
