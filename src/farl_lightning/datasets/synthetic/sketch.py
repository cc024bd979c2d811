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
        self._paired: list[_Curve] = []
        self._alone: list[_Curve] = []
        self._still: list[_Curve] = []

    def add(self, name: str, x: Parts, y: Parts, z: Array | float | None = None, *, pair: bool = False) -> None:
        """Add a curve of the head.

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

    def still(self, name: str, x: Array, y: Array, *, pair: bool = False) -> None:
        """Add a curve of the body, which does not turn with the head."""
        self._still.append(_Curve(f"{name}_right" if pair else name, (x,), (y,), 0.0, len(x)))
        if pair:
            self._still.append(_Curve(f"{name}_left", (-x,), (y,), 0.0, len(x)))

    def project(self, pose: Pose, size: int) -> Curves:
        """Turn the head and put every curve onto the picture.

        Args:
            pose: How the head is turned and where it is.
            size: Side of the picture in pixels.
        """
        slices: dict[str, slice] = {}
        start, half = 0, sum([curve.length for curve in self._paired])
        for name, _, _, _, length in self._paired:
            stop = start + length
            slices[name + "_right"], slices[name + "_left"] = slice(start, stop), slice(start + half, stop + half)
            start = stop
        start += half
        for name, _, _, _, length in self._alone + self._still:
            slices[name] = slice(start, start + length)
            start += length
        flat = self._flat(start - half)
        space = np.concatenate((flat[:, :half], flat), axis=1)
        space[0, half : 2 * half] *= -1
        matrix, offset = _projection(pose, size)
        points = space.T @ matrix + offset
        if self._still:
            body = slices[self._still[0].name].start
            place = np.array((pose.x * size - 0.5, pose.y * size - 0.5))
            points[body:] = space[:2, body:].T * (pose.scale * size) + place
        return Curves(points, slices)

    def _flat(self, length: int) -> Array:
        """Join all curves: (3, length), each pair once."""
        curves = self._paired + self._alone + self._still
        flat = np.empty((3, length))
        np.concatenate([part for curve in curves for part in curve.x], out=flat[0])
        np.concatenate([part for curve in curves for part in curve.y], out=flat[1])
        heights, start = flat[2], 0
        for _, _, _, z, size in curves:
            heights[start : start + size] = z
            start += size
        np.copyto(heights, depth(flat[0], flat[1]), where=np.isnan(heights))
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
