"""What the landmark benchmarks share: rows that are read once, pictures that are opened when asked for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from farl_lightning.datasets.bad_sample import BAD_LANDMARKS, BROKEN_ANNOTATION, BadSample
from farl_lightning.datasets.faces import FaceDataset
from farl_lightning.datasets.files import read_image
from farl_lightning.datasets.landmark_sets import LandmarkSet
from farl_lightning.types import FaceRecord

Box = tuple[float, float, float, float]
Points = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class FaceRow:
    """One annotated face, before its picture is opened.

    Attributes:
        key: Its name, unique in the dataset.
        picture: Path of the photograph relative to the folder of pictures; several faces may share it.
        landmarks: (N, 2) float32, pixel centres at integers.
        box: Left, top, right, bottom of the face in pixels.
        visible: (N,) bool; None means that the dataset does not say.
        subsets: Names of the subsets that the face belongs to.
        problem: What is wrong with the annotation; empty if nothing is.
    """

    key: str
    picture: str
    landmarks: Points
    box: Box
    visible: npt.NDArray[np.bool_] | None = None
    subsets: tuple[str, ...] = ()
    problem: str = ""


class LandmarkDataset(FaceDataset):
    """Base of the landmark benchmarks. A subclass reads its annotations into ``rows``.

    Landmarks partly outside of the picture are kept, as the benchmarks do (a cut-off chin is still annotated); a face
    that lies outside altogether, or whose box has no area, is refused when it is read.

    Args:
        rows: The annotated faces.
        folder: Folder below which the pictures lie.
        expected: How many faces the official split has.

    Attributes:
        order: The landmark order.
        rows: The annotated faces.
    """

    order: ClassVar[LandmarkSet]

    def __init__(self, rows: Iterable[FaceRow], folder: Path, expected: int | None = None) -> None:
        self.rows = list(rows)
        self.folder, self.expected = folder, expected
        self.spec = self.order.spec()
        self.keys = unique_names(row.key for row in self.rows)

    @property
    def photographs(self) -> list[str]:
        """For each face the picture that it is in."""
        return [row.picture for row in self.rows]

    def read(self, index: int) -> FaceRecord:
        """Read one face.

        Args:
            index: From 0 to ``len(self) - 1``.

        Raises:
            BadSample: If the annotation is malformed or the picture cannot be read.
        """
        row = self.rows[index]
        check_row(row)
        image = self.read_picture(row)
        check_inside(row.landmarks, image.shape)
        return FaceRecord(
            key=self.keys[index],
            image=image,
            landmarks=row.landmarks,
            visible=row.visible,
            points=self.order.five_points(row.landmarks),
            box=row.box,
            error_box=row.box,
            subsets=row.subsets,
        )

    def read_picture(self, row: FaceRow) -> Picture:
        """Decode the picture of a face.

        Args:
            row: The face.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            BadSample: If it cannot be read.
        """
        return read_image(self.folder / row.picture)

    def files(self, index: int) -> Sequence[Path]:
        """Return the picture of a face.

        Args:
            index: From 0 to ``len(self) - 1``.
        """
        return [self.folder / self.rows[index].picture]

    def verify(self) -> list[str]:
        """Look for missing pictures and malformed annotations, without opening a picture.

        Returns:
            One line per finding, and how to get the dataset; empty when everything is there.
        """
        problems = [f"{key}: {row.problem}" for key, row in zip(self.keys, self.rows, strict=True) if row.problem]
        found = super().verify() or ([self.source.how_to_get()] if problems else [])
        return [*problems, *found]


def check_row(row: FaceRow) -> None:
    """Refuse an annotation that nothing can be done with.

    Args:
        row: The face.

    Raises:
        BadSample: ``broken_annotation``.
    """
    if row.problem:
        raise BadSample(BROKEN_ANNOTATION, row.problem)
    left, top, right, bottom = row.box
    if not (right - left > 0 and bottom - top > 0 and all(map(math.isfinite, row.box))):
        raise BadSample(BROKEN_ANNOTATION, f"the box {tuple(round(side, 2) for side in row.box)} has no area")


def check_inside(landmarks: Points, shape: tuple[int, ...]) -> None:
    """Refuse a face of which not one landmark lies in the picture: the annotation is of another picture.

    Args:
        landmarks: (N, 2) in pixels.
        shape: Of the picture, (H, W, ...).

    Raises:
        BadSample: ``bad_landmarks``.
    """
    height, width = shape[:2]
    with np.errstate(invalid="ignore"):
        inside = (landmarks >= -0.5).all(axis=1) & (landmarks <= np.array([width - 0.5, height - 0.5])).all(axis=1)
    if not inside.any() and np.isfinite(landmarks).all():
        raise BadSample(BAD_LANDMARKS, f"all {len(landmarks)} landmarks lie outside of the {width} x {height} picture")


def landmark_box(landmarks: npt.NDArray[np.floating]) -> Box:
    """Return the square around the landmarks, by HRNet's rule: whole pixels outwards, then as wide as it is high.

    Args:
        landmarks: (N, 2) in pixels.

    Returns:
        Left, top, right, bottom.
    """
    low, high = np.floor(landmarks.min(axis=0)), np.ceil(landmarks.max(axis=0))
    (x, y), half = ((low + high) / 2).tolist(), float((high - low).max()) / 2
    return x - half, y - half, x + half, y + half


def unique_names(names: Iterable[str]) -> list[str]:
    """Tell repeated names apart: the second gets ``#2``, and so on.

    Args:
        names: In the order of the samples.
    """
    counts: dict[str, int] = {}
    unique = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        unique.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return unique
