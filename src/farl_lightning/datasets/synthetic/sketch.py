"""Named curves in head space, and the turn, tilt and shift that put them onto the picture.

Head space is measured in half face widths: x to the image's right, y down, z towards the viewer; the origin lies
between the eyes. The projection is orthographic.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from farl_lightning.datasets.synthetic.parameters import Pose

Array = npt.NDArray[np.float64]
Parts = Array | tuple[Array, ...]

_PIVOT_Y, _PIVOT_Z = 0.9, -0.2  # the head turns about the top of the neck


def depth(x: Array, y: Array | float) -> Array:
    """Return z on the front of the face: highest in the middle, falling off to the sides."""
    return 0.62 - 0.5 * (x * x) - 0.06 * (y * y)


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


class _Curve(NamedTuple):
    name: str
    x: tuple[Array, ...]
    y: tuple[Array, ...]
    z: Array | float
    length: int


class Sketch:
    """Collects named curves and projects all of them with one product.

    A curve may be given in parts, arrays one after the other; they are joined once, with everything else.
    """

    def __init__(self) -> None:
        self._alone: list[_Curve] = []
        self._paired: list[_Curve] = []

    def add(self, name: str, x: Parts, y: Parts, z: Array | float | None = None, *, pair: bool = False) -> None:
        """Add a curve.

        Args:
            name: Its name.
            x: Coordinates to the image's right.
            y: Coordinates downwards.
            z: Coordinates towards the viewer, or one for all points; None lays the curve onto the face.
            pair: Add it as ``name_right`` (x as given), and its mirror image as ``name_left``.
        """
        xs = x if isinstance(x, tuple) else (x,)
        height = math.nan if z is None else z
        curve = _Curve(name, xs, y if isinstance(y, tuple) else (y,), height, sum(map(len, xs)))
        (self._paired if pair else self._alone).append(curve)

    def band(
        self, name: str, x: Array, first: Array, second: Array, z: Array | float | None = None, *, pair: bool = False
    ) -> None:
        """Add the area between two edges over the same x: along the first, back along the second."""
        self.add(name, (x, x[::-1]), (first, second[::-1]), z, pair=pair)

    def project(self, pose: Pose, size: int) -> Curves:
        """Turn the head and put every curve onto the picture.

        Args:
            pose: How the head is turned and where it is.
            size: Side of the picture in pixels.
        """
        slices: dict[str, slice] = {}
        half = at = sum(curve.length for curve in self._paired)
        for curve in self._alone:
            slices[curve.name] = slice(half + at, half + at + curve.length)
            at += curve.length
        start = 0
        for curve in self._paired:
            stop = start + curve.length
            slices[f"{curve.name}_right"], slices[f"{curve.name}_left"] = (
                slice(start, stop),
                slice(start + half, stop + half),
            )
            start = stop
        flat = self._flat(at)
        space = np.concatenate((flat[:, :half], flat), axis=1)
        space[0, half : 2 * half] *= -1
        matrix, offset = _projection(pose, size)
        return Curves(space.T @ matrix + offset, slices)

    def _flat(self, count: int) -> Array:
        """Join all curves: (3, count), each pair once."""
        curves = self._paired + self._alone
        flat = np.empty((3, count))
        np.concatenate([part for curve in curves for part in curve.x], out=flat[0])
        np.concatenate([part for curve in curves for part in curve.y], out=flat[1])
        at = 0
        for curve in curves:
            flat[2, at : at + curve.length] = curve.z
            at += curve.length
        np.copyto(flat[2], depth(flat[0], flat[1]), where=np.isnan(flat[2]))
        return flat


def _projection(pose: Pose, size: int) -> tuple[Array, Array]:
    """Return the (3, 2) matrix and the offset (2,) from head space to pixels."""
    yaw, pitch, roll = (math.radians(angle) for angle in (pose.yaw, pose.pitch, pose.roll))
    sin_yaw, cos_yaw = math.sin(yaw), math.cos(yaw)
    sin_pitch, cos_pitch = math.sin(pitch), math.cos(pitch)
    unit = pose.scale * size
    sin_roll, cos_roll = unit * math.sin(roll), unit * math.cos(roll)
    rows = []
    for across, down in ((cos_yaw, sin_yaw * sin_pitch), (0.0, cos_pitch), (sin_yaw, -cos_yaw * sin_pitch)):
        rows.append((across * cos_roll - down * sin_roll, across * sin_roll + down * cos_roll))
    right = pose.x * size - 0.5 - _PIVOT_Y * rows[1][0] - _PIVOT_Z * rows[2][0]
    below = pose.y * size - 0.5 + _PIVOT_Y * unit - _PIVOT_Y * rows[1][1] - _PIVOT_Z * rows[2][1]
    return np.array(rows), np.array((right, below))
