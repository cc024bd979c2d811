"""Base of datasets of single faces; every record is checked before anyone sees it."""

from __future__ import annotations

import dataclasses
import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch.utils.data import Dataset

from farl_lightning.datasets.bad_sample import BAD_LANDMARKS, BROKEN_ANNOTATION, MASK_SIZE, UNKNOWN_LABEL, BadSample
from farl_lightning.errors import ConfigError, DatasetNotFoundError, did_you_mean
from farl_lightning.types import FaceRecord, FaceSpec

IGNORE = 255
"""Label id of pixels that count nowhere."""


@dataclasses.dataclass(frozen=True)
class DatasetSource:
    """Where a dataset comes from. Nothing is downloaded: the user fetches it under its own terms.

    Attributes:
        name: As its authors write it.
        page: Where it is offered.
        archives: Files to fetch there.
        terms: Licence or conditions, in a few words.
        layout: What lies below ``root`` once everything is unpacked, one line per entry.
    """

    name: str
    page: str
    archives: tuple[str, ...]
    terms: str
    layout: tuple[str, ...]

    def how_to_get(self) -> str:
        """Say in a few lines what to fetch, from where, and how to unpack it."""
        layout = "\n".join(f"  {line}" for line in self.layout)
        files = " and ".join(self.archives)
        return f"Get {files} from {self.page} ({self.terms}), and unpack so that 'root' holds:\n{layout}"


class FaceDataset(Dataset[FaceRecord]):
    """Base of datasets of single faces: lists its samples when made, opens them one by one when asked.

    A subclass sets ``source``, ``spec`` and ``keys``, and implements :meth:`read`. What :meth:`read` returns is checked
    here: the size of the label map, its ids, number and finiteness of landmarks.

    Attributes:
        source: Where the dataset comes from.
        spec: Its labels: classes and landmarks with their flip pairs. Crop and size are the transform's business.
        keys: Name of each sample, unique in the dataset, in its order.
        expected: How many samples the official split has; None where nobody says.
        labels: Columns of labels of the whole face that every record has.
        groups: Columns of subgroups that every record has.
    """

    source: ClassVar[DatasetSource]
    spec: FaceSpec
    keys: list[str]
    expected: int | None = None
    labels: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.keys)

    @property
    def photographs(self) -> list[str]:
        """What each sample was cut from. Parts of a dataset that are held out share no photograph with the rest."""
        return self.keys

    def __getitem__(self, index: int) -> FaceRecord:
        """Return a sample.

        Args:
            index: From 0 to ``len(self) - 1``; negative indices count from the end.

        Raises:
            IndexError: If there is no such sample.
            BadSample: If it cannot be used, with the reason.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} samples")
        return check_record(self.read(index % len(self)), self.spec)

    @abstractmethod
    def read(self, index: int) -> FaceRecord:
        """Read one sample from disk.

        Args:
            index: From 0 to ``len(self) - 1``.

        Raises:
            BadSample: If it cannot be read.
        """

    def files(self, index: int) -> Sequence[Path]:
        """Return the files that a sample needs, for :meth:`verify`.

        Args:
            index: From 0 to ``len(self) - 1``.
        """
        del index
        return ()

    def verify(self) -> list[str]:
        """Look for what is missing, without opening a picture.

        Returns:
            One line per finding, and how to get the dataset; empty when everything is there.
        """
        found = _count_finding(len(self), self.expected)
        folders: dict[Path, frozenset[str]] = {}
        for index, key in enumerate(self.keys):
            for path in self.files(index):
                if path.parent not in folders:
                    folders[path.parent] = file_names(path.parent)
                if path.name not in folders[path.parent]:
                    found.append(f"{key}: {path} is missing")
        return [*found, *self.how_to_get()] if found else []

    def how_to_get(self) -> list[str]:
        """Say where the dataset comes from; what :meth:`verify` ends with."""
        return [self.source.how_to_get()]


class FaceSubset(FaceDataset):
    """Some samples of a dataset.

    Args:
        dataset: The whole.
        indices: Rows of the whole, in the order of the subset.
    """

    def __init__(self, dataset: FaceDataset, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, list(indices)
        self.spec, self.labels, self.groups = dataset.spec, dataset.labels, dataset.groups
        self.keys = [dataset.keys[index] for index in self.indices]

    @property
    def photographs(self) -> list[str]:
        """What each sample was cut from."""
        whole = self.dataset.photographs
        return [whole[index] for index in self.indices]

    def read(self, index: int) -> FaceRecord:
        """Read one sample of the whole.

        Args:
            index: From 0 to ``len(self) - 1``.
        """
        return self.dataset.read(self.indices[index])

    def verify(self) -> list[str]:
        """Look for what the whole dataset lacks."""
        return self.dataset.verify()


def check_record(record: FaceRecord, spec: FaceSpec) -> FaceRecord:
    """Refuse labels that do not fit their picture or their dataset.

    Args:
        record: The sample.
        spec: Labels of the dataset.

    Returns:
        The record itself.

    Raises:
        BadSample: Saying what is wrong.
    """
    if record.mask is not None:
        _check_mask(record.mask, record.image.shape[:2], spec)
    if record.landmarks is not None and record.landmarks.shape != (spec.num_landmarks, 2):
        raise BadSample(BROKEN_ANNOTATION, f"{len(record.landmarks)} landmarks instead of {spec.num_landmarks}")
    for points in (record.landmarks, record.points):
        if points is not None and not np.isfinite(points).all():
            raise BadSample(BAD_LANDMARKS, f"{int((~np.isfinite(points)).sum())} coordinates are not finite")
    return record


def _check_mask(mask: np.ndarray, size: tuple[int, ...], spec: FaceSpec) -> None:
    """Refuse a label map of another size or with unknown ids."""
    if mask.shape != size:
        raise BadSample(MASK_SIZE, f"the label map is {_by(mask.shape)}, the picture {_by(size)} pixels")
    known = np.zeros(256, bool)
    known[: len(spec.classes)] = known[IGNORE] = True
    if not known[mask].all():
        unknown = sorted(set(np.unique(mask).tolist()) - set(np.flatnonzero(known).tolist()))
        raise BadSample(UNKNOWN_LABEL, f"ids {unknown[:8]}; allowed: 0 to {len(spec.classes) - 1}, and {IGNORE}")


def _by(size: tuple[int, ...]) -> str:
    """Write height and width as width x height."""
    return f"{size[1]} x {size[0]}"


def find_root(root: str | Path, required: Sequence[str], source: DatasetSource) -> Path:
    """Return a dataset's folder if it holds what is required.

    Otherwise the error says what is missing, where else it may lie, and how to get it.

    Args:
        root: Folder that the user gave.
        required: Files and folders that must lie below it.
        source: The dataset.

    Raises:
        DatasetNotFoundError: If something required is not there.
    """
    root = Path(root).expanduser()
    missing = [name for name in required if not (root / name).exists()]
    if not missing:
        return root
    what = "does not exist" if not root.exists() else f"has no {', '.join(map(repr, missing))}"
    raise not_found(root, what, source, required)


def not_found(root: Path, what: str, source: DatasetSource, required: Sequence[str] = ()) -> DatasetNotFoundError:
    """Return the error that says what is wrong with a dataset's folder, and how to get the dataset.

    Args:
        root: The folder that the user gave.
        what: What is wrong with it, such as "does not exist".
        source: The dataset.
        required: Files and folders by which the right folder nearby is known.
    """
    problem = f"{source.name}: '{root.absolute()}' {what}. {_elsewhere(root, required)}".rstrip()
    return DatasetNotFoundError(f"{problem}\n{source.how_to_get()}")


def _elsewhere(root: Path, required: Sequence[str]) -> str:
    """Name a folder nearby that holds what is required, or one with almost the same name."""
    nearby = [root.parent, *_folders(root), *_folders(root.parent)]
    for folder in nearby if required else ():
        if all((folder / name).exists() for name in required):
            return f"Did you mean root='{folder}'?"
    if root.exists():
        return f"It holds: {', '.join(sorted(entry.name for entry in root.iterdir())[:8]) or 'nothing'}."
    hint = did_you_mean(root.name, [folder.name for folder in _folders(root.parent)])
    return hint.split(" Allowed:")[0] if hint.startswith("Did") else ""


def list_names(folder: Path, suffixes: Sequence[str]) -> list[str]:
    """Return the names of the files in a folder with one of these suffixes, sorted.

    Args:
        folder: The folder.
        suffixes: In lower case, with the dot.
    """
    return sorted(name for name in file_names(folder) if name.lower().endswith(tuple(suffixes)))


def file_names(folder: Path) -> frozenset[str]:
    """Return the names of everything in a folder but hidden files; none if it does not exist.

    Args:
        folder: The folder.
    """
    try:
        return frozenset(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return frozenset()


def _count_finding(count: int, expected: int | None) -> list[str]:
    """Tell that samples are missing or too many."""
    return [] if expected in (None, count) else [f"{count} samples are listed, the official split has {expected}"]


def _folders(path: Path) -> list[Path]:
    """Return the folders in a folder, sorted; none if it does not exist."""
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir())
    except OSError:
        return []


def check_split(split: str, splits: Sequence[str], name: str) -> None:
    """Refuse the name of a split that a dataset does not have.

    Args:
        split: The name that was given.
        splits: Those that there are.
        name: Of the dataset.

    Raises:
        ConfigError: With the nearest match.
    """
    if split not in splits:
        raise ConfigError(f"{name} has no split '{split}'. {did_you_mean(split, splits)}")
