"""What the fake landmark benchmarks share: where a drawn face lies in its picture, and HRNet's csv files."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from farl_lightning.datasets.landmark_csv import HALF_SIDE
from farl_lightning.datasets.landmark_faces import landmark_box
from farl_lightning.datasets.synthetic import SyntheticFace
from farl_lightning.datasets.synthetic.landmarks import Part


class Placed(NamedTuple):
    """A drawn face in a picture.

    Attributes:
        face: The face.
        picture: The picture's name in the dataset.
        left: Column of the picture at which the drawing begins.
    """

    face: SyntheticFace
    picture: str
    left: int = 0

    def landmarks(self, count: int) -> npt.NDArray[np.float32]:
        """Return the true landmarks in pixels of the picture, pixel centres at integers.

        Args:
            count: 68, 98 or 19.
        """
        return self.face.landmarks(count) + np.array([self.left, 0], np.float32)


def take_points(face: SyntheticFace, parts: Iterable[Part]) -> npt.NDArray[np.float32]:
    """Take points of a face's curves.

    Args:
        face: The face.
        parts: Curves and the points of them to take; -1 is a curve's middle.

    Returns:
        (N, 2) float32 in pixels.
    """
    curves = face.scene.curves
    points = [curves[name].mean(0) if i < 0 else curves[name][i] for name, indices in parts for i in indices]
    return np.stack(points).astype(np.float32)


def write_landmark_csv(path: Path, faces: Iterable[Placed], count: int, offset: float = 0.0) -> None:
    """Write a csv file as HRNet's: ``image_name,scale,center_w,center_h``, then x and y of every landmark.

    Args:
        path: Where to.
        faces: Drawn faces.
        count: Number of landmarks.
        offset: What the file's coordinates are larger by than pixel centres at integers.
    """
    header = [f"original_{i}_{axis}" for i in range(count) for axis in "xy"]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["image_name", "scale", "center_w", "center_h", *header])
        for placed in faces:
            points = placed.landmarks(count).astype(np.float64) + offset
            left, top, right, bottom = landmark_box(points)
            place = [(right - left) / (2 * HALF_SIDE), (left + right) / 2, (top + bottom) / 2]
            writer.writerow([placed.picture, *(f"{value:.6f}" for value in (*place, *points.ravel().tolist()))])
