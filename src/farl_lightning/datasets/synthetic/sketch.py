"""Named curves in head space, and the turn, tilt and shift that put them onto the picture.

Head space is measured in half face widths: x to the image's right, y down, z towards the viewer; the origin lies
between the eyes. The projection is orthographic.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from farl_lightning.datasets.synthetic.parameters import Pose

Array = npt.NDArray[np.float64]

_PIVOT_Y, _PIVOT_Z = 0.9, -0.2  # the head turns about the top of the neck


def depth(x: Array, y: Array | float) -> Array:
    """Return z on the front of the face: highest in the middle, falling off to the sides."""
    return 0.62 - 0.5 * x * x - 0.06 * y * y


class Curves:
    """Every named curve of a picture, in pixels.

    Attributes:
        points: (n, 2) pixel coordinates of all curves, pixel centres at integers.
        slices: Where in ``points`` each curve lies.
    """

    def __init__(self, points: Array, slices: dict[str, slice]) -> None:
        self.points, self.slices = points, slices

    def __getitem__(self, name: str) -> Array:
        """Return the points of one curve."""
        return self.points[self.slices[name]]

    def __contains__(self, name: str) -> bool:
        """Tell whether the picture has this curve."""
        return name in self.slices

    def joined(self, other: Curves) -> Curves:
        """Return the curves of both."""
        shift = len(self.points)
        moved = {name: slice(part.start + shift, part.stop + shift) for name, part in other.slices.items()}
        return Curves(np.concatenate((self.points, other.points)), self.slices | moved)


class Sketch:
    """Collects named curves and projects all of them with one product."""

    def __init__(self) -> None:
        self._alone: list[tuple[str, Array, Array | float, Array | float]] = []
        self._paired: list[tuple[str, Array, Array | float, Array | float]] = []

    def add(self, name: str, x: Array, y: Array | float, z: Array | float) -> None:
        """Add a curve of points (x, y, z); y and z may be one number for all."""
        self._alone.append((name, x, y, z))

    def pair(self, name: str, x: Array, y: Array | float, z: Array | float) -> None:
        """Add a curve of the image's right half as ``name_right``, and its mirror image as ``name_left``."""
        self._paired.append((name, x, y, z))

    def project(self, pose: Pose, size: int) -> Curves:
        """Turn the head and put every curve onto the picture.

        Args:
            pose: How the head is turned and where it is.
            size: Side of the picture in pixels.
        """
        half = sum(len(row[1]) for row in self._paired)
        space = np.empty((3, 2 * half + sum(len(row[1]) for row in self._alone)))
        slices: dict[str, slice] = {}
        at = 0
        for index, (name, x, y, z) in enumerate(self._paired + self._alone):
            if index == len(self._paired):
                at = 2 * half
            part = slice(at, at + len(x))
            space[0, part], space[1, part], space[2, part] = x, y, z
            at = part.stop
            if index < len(self._paired):
                slices[f"{name}_right"], slices[f"{name}_left"] = part, slice(part.start + half, part.stop + half)
            else:
                slices[name] = part
        space[:, half : 2 * half] = space[:, :half]
        space[0, half : 2 * half] *= -1
        matrix, offset = _projection(pose, size)
        return Curves(space.T @ matrix + offset, slices)


def _projection(pose: Pose, size: int) -> tuple[Array, Array]:
    """Return the (3, 2) matrix and the offset (2,) from head space to pixels."""
    yaw, pitch, roll = (math.radians(angle) for angle in (pose.yaw, pose.pitch, pose.roll))
    sin_yaw, cos_yaw = math.sin(yaw), math.cos(yaw)
    sin_pitch, cos_pitch = math.sin(pitch), math.cos(pitch)
    across = np.array([cos_yaw, 0.0, sin_yaw])
    down = np.array([sin_yaw * sin_pitch, cos_pitch, -cos_yaw * sin_pitch])
    sin_roll, cos_roll = math.sin(roll), math.cos(roll)
    turned = np.stack((across * cos_roll - down * sin_roll, across * sin_roll + down * cos_roll), axis=1)
    unit = pose.scale * size
    pivot = np.array([0.0, _PIVOT_Y, _PIVOT_Z])
    place = np.array([pose.x * size - 0.5, pose.y * size - 0.5 + _PIVOT_Y * unit])
    return turned * unit, place - pivot @ turned * unit
