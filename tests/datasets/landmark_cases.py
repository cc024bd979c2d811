"""Fake folders of the landmark benchmarks with their truth, for tests of readers, transforms and datamodules."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from farl_lightning.datasets.aflw19 import AFLW19
from farl_lightning.datasets.cofw import COFW
from farl_lightning.datasets.ibug300w import IBug300W
from farl_lightning.datasets.landmark_faces import LandmarkDataset
from farl_lightning.datasets.synthetic import SyntheticFace
from farl_lightning.datasets.wflw import WFLW
from farl_lightning.testing.benchmarks.aflw19 import write_aflw19
from farl_lightning.testing.benchmarks.cofw import cofw_landmarks, write_cofw
from farl_lightning.testing.benchmarks.ibug300w import write_ibug300w
from farl_lightning.testing.benchmarks.landmarks import Placed
from farl_lightning.testing.benchmarks.wflw import write_wflw

SIZE = 128


@dataclasses.dataclass(frozen=True)
class Truth:
    """One drawn face of a fake folder: the picture and label map it must read back as, and its landmarks."""

    face: SyntheticFace
    landmarks: np.ndarray
    picture: np.ndarray
    mask: np.ndarray

    @property
    def bare(self) -> bool:
        """Whether nothing covers the eyes."""
        return self.face.look.glasses is None


@dataclasses.dataclass(frozen=True)
class Case:
    """A benchmark: how to write it, open its training split, and what must come out."""

    name: str
    write: Callable[[Path], list[Truth]]
    open: Callable[[Path], LandmarkDataset]
    package: str | None = None


def _placed(faces: list[Placed], count: int) -> list[Truth]:
    """Put the faces of a picture side by side."""
    truths = []
    for placed in faces:
        together = sorted((other for other in faces if other.picture == placed.picture), key=lambda other: other.left)
        picture = np.concatenate([other.face.image for other in together], axis=1)
        alone = [np.where(other is placed, other.face.mask_lapa, 0) for other in together]
        truths.append(Truth(placed.face, placed.landmarks(count), picture, np.concatenate(alone, axis=1)))
    return truths


def _cofw(face: SyntheticFace) -> Truth:
    sides = (0, 0), (0, face.size // 4)
    picture = np.pad(face.image, (*sides, (0, 0)))
    return Truth(face, cofw_landmarks(face), picture, np.pad(face.mask_lapa, sides))


def _write_300w(folder: Path) -> list[Truth]:
    return _placed(write_ibug300w(folder, count=9, size=SIZE)["train"], 68)


def _write_wflw(folder: Path) -> list[Truth]:
    return _placed(write_wflw(folder, count=9, size=SIZE)["train"], 98)


def _write_aflw(folder: Path) -> list[Truth]:
    return _placed(write_aflw19(folder, count=12, size=SIZE)["train"], 19)


def _write_cofw(folder: Path) -> list[Truth]:
    return [_cofw(face) for face in write_cofw(folder, count=9, size=SIZE)["train"]]


CASES = {
    "300w": Case("300w", _write_300w, lambda folder: IBug300W(folder, "train")),
    "wflw": Case("wflw", _write_wflw, lambda folder: WFLW(folder, "train")),
    "aflw19": Case("aflw19", _write_aflw, lambda folder: AFLW19(folder, "train"), "scipy"),
    "cofw": Case("cofw", _write_cofw, lambda folder: COFW(folder, "train"), "h5py"),
}


def require_package(case: Case) -> None:
    """Skip, visibly, where the file format needs a package that is not installed."""
    if case.package is not None:
        pytest.importorskip(case.package, reason=f"{case.name} is read with {case.package}")
