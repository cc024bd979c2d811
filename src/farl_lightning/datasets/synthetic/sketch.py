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
    z: Array | float | None
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
        if isinstance(x, tuple):
            curve = _Curve(name, x, y if isinstance(y, tuple) else (y,), z, sum(map(len, x)))
        else:
            curve = _Curve(name, (x,), y if isinstance(y, tuple) else (y,), z, len(x))
        (self._paired if pair else self._alone).append(curve)

    def band(
        self, name: str, x: Array, first: Array, second: Array, z: Array | float | None = None, *, pair: bool = False
    ) -> None:
        """Add the area between two edges over the same x: along the first, back along the second."""
        curve = _Curve(name, (x, x[::-1]), (first, second[::-1]), z, 2 * len(x))
        (self._paired if pair else self._alone).append(curve)

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
            slices[name + "_left"], slices[name + "_right"] = slice(start, stop), slice(start + half, stop + half)
            start = stop
        start += half
        for name, _, _, _, length in self._alone + self._still:
            slices[name] = slice(start, start + length)
            start += length
        space = np.empty((3, start))
        self._join(space[:, half:])
        np.negative(space[0, half : 2 * half], out=space[0, :half])
        space[1:, :half] = space[1:, half : 2 * half]
        matrix, offset = _projection(pose, size)
        points = matrix @ space
        points += offset
        if self._still:
            body = slices[self._still[0].name].start
            place = np.array(((pose.x * size - 0.5,), (pose.y * size - 0.5,)))
            points[:, body:] = space[:2, body:] * (pose.scale * size) + place
        return Curves(points.T, slices)

    def _join(self, space: Array) -> None:
        """Write all curves one after the other into (3, n), each pair once."""
        curves = self._paired + self._alone + self._still
        np.concatenate([part for curve in curves for part in curve.x], out=space[0])
        np.concatenate([part for curve in curves for part in curve.y], out=space[1])
        heights, start = space[2], 0
        heights[:] = depth(space[0], space[1])
        for _, _, _, z, length in curves:
            if z is not None:
                heights[start : start + length] = z
            start += length


def _projection(pose: Pose, size: int) -> tuple[Array, Array]:
    """Return the (2, 3) matrix and the offset (2, 1) from head space to pixels."""
    yaw, pitch, roll = (math.radians(angle) for angle in (pose.yaw, pose.pitch, pose.roll))
    sin_yaw, cos_yaw = math.sin(yaw), math.cos(yaw)
    sin_pitch, cos_pitch = math.sin(pitch), math.cos(pitch)
    unit = pose.scale * size
    sin_roll, cos_roll = unit * math.sin(roll), unit * math.cos(roll)
    axes = ((cos_yaw, sin_yaw * sin_pitch), (0.0, cos_pitch), (sin_yaw, -cos_yaw * sin_pitch))
    to_right = [across * cos_roll - down * sin_roll for across, down in axes]
    to_below = [across * sin_roll + down * cos_roll for across, down in axes]
    right = pose.x * size - 0.5 - _PIVOT_Y * to_right[1] - _PIVOT_Z * to_right[2]
    below = pose.y * size - 0.5 + _PIVOT_Y * unit - _PIVOT_Y * to_below[1] - _PIVOT_Z * to_below[2]
    return np.array((to_right, to_below)), np.array(((right,), (below,)))
