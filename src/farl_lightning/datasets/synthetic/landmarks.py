"""The three landmark orders, taken from points of the drawn curves.

Order: 68 points as in iBUG 300-W, 98 as in WFLW, 19 as in AFLW. All run from the image's left to its right, so that
"left" in the names of this module is the viewer's.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from farl_lightning.datasets.synthetic.sketch import Array, Curves

Part = tuple[str, tuple[int, ...]]
"""A curve and the points of it to take, in order."""

_MOUTH: tuple[Part, ...] = (
    ("upper_lip", (0, 2, 4, 6, 8, 10, 12)),
    ("lower_lip", (10, 8, 6, 4, 2)),
)
_INNER_MOUTH: tuple[Part, ...] = (("inner_mouth", (0, 3, 6, 9, 12, 16, 19, 22)),)
_NOSE: tuple[Part, ...] = (("bridge", (0, 1, 2, 3)), ("nose", (11, 10, 9, 8, 7)))

IBUG_68: tuple[Part, ...] = (
    ("jaw", tuple(range(0, 33, 2))),
    ("brow_line_left", (0, 2, 4, 6, 8)),
    ("brow_line_right", (8, 6, 4, 2, 0)),
    *_NOSE,
    ("eye_left", (0, 4, 8, 12, 16, 20)),
    ("eye_right", (12, 8, 4, 0, 20, 16)),
    *_MOUTH,
    *_INNER_MOUTH,
)
"""Jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, mouth 48-67."""

WFLW_98: tuple[Part, ...] = (
    ("jaw", tuple(range(33))),
    ("brow_line_left", (0,)),
    ("brow_left", (2, 4, 6, 8, 9, 11, 13, 15)),
    ("brow_right", (8, 6, 4, 2)),
    ("brow_line_right", (0,)),
    ("brow_right", (15, 13, 11, 9)),
    *_NOSE,
    ("eye_left", (0, 3, 6, 9, 12, 15, 18, 21)),
    ("eye_right", (12, 9, 6, 3, 0, 21, 18, 15)),
    *_MOUTH,
    *_INNER_MOUTH,
    ("pupil_left", (-1,)),
    ("pupil_right", (-1,)),
)
"""Jaw 0-32, brows 33-50, nose 51-59, eyes 60-75, mouth 76-95, pupils 96-97."""

AFLW_19: tuple[Part, ...] = (
    ("brow_line_left", (0, 4, 8)),
    ("brow_line_right", (8, 4, 0)),
    ("eye_left", (0, -1, 12)),
    ("eye_right", (12, -1, 0)),
    ("nose", (11,)),
    ("bridge", (3,)),
    ("nose", (7,)),
    ("upper_lip", (0,)),
    ("inner_mouth", (-1,)),
    ("upper_lip", (12,)),
    ("jaw", (16,)),
)
"""Brows 0-5, eyes (corner, centre, corner) 6-11, nose 12-14, mouth (corner, centre, corner) 15-17, chin 18."""

ORDERS: dict[int, tuple[Part, ...]] = {68: IBUG_68, 98: WFLW_98, 19: AFLW_19}
"""The landmark orders by number of points."""


def take_landmarks(curves: Curves, count: int) -> npt.NDArray[np.float32]:
    """Return the landmarks of a picture.

    Args:
        curves: The curves of the picture.
        count: 68, 98 or 19.

    Returns:
        (count, 2) float32, (x, y) in pixels, pixel centres at integers. Landmarks may lie outside of the picture.
    """
    points: list[Array] = []
    for name, indices in ORDERS[count]:
        curve = curves[name]
        points.extend(curve.mean(axis=0) if index < 0 else curve[index] for index in indices)
    return np.stack(points).astype(np.float32)


@functools.cache
def landmark_flips(count: int) -> tuple[tuple[int, int], ...]:
    """Return the pairs of indices that a horizontal flip exchanges; points on the middle line are in no pair.

    Args:
        count: 68, 98 or 19.
    """
    if count == 68:
        pairs = _mirror(0, 17) + _mirror(17, 27) + _mirror(31, 36)
        pairs += ((36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46))
        pairs += _mirror(48, 55) + _mirror(55, 60) + _mirror(60, 65) + _mirror(65, 68)
    elif count == 98:
        pairs = _mirror(0, 33) + _mirror(33, 38, 46) + _mirror(38, 42, 50) + _mirror(55, 60)
        pairs += _mirror(60, 65, 72) + _mirror(65, 68, 75)
        pairs += _mirror(76, 83) + _mirror(83, 88) + _mirror(88, 93) + _mirror(93, 96) + ((96, 97),)
    else:
        pairs = _mirror(0, 6) + _mirror(6, 12) + _mirror(12, 15) + _mirror(15, 18)
    return pairs


def _mirror(start: int, stop: int, last: int | None = None) -> tuple[tuple[int, int], ...]:
    """Pair ``start`` with ``last`` (by default ``stop - 1``), the next with the one before, and so on."""
    if last is None:
        return tuple((start + step, stop - 1 - step) for step in range((stop - start) // 2))
    return tuple((start + step, last - step) for step in range(stop - start))


@functools.cache
def landmark_groups(count: int) -> dict[str, tuple[int, ...]]:
    """Return the named parts of an order, left and right being the viewer's.

    Args:
        count: 68, 98 or 19.
    """
    spans = {
        68: {
            "jaw": (0, 17),
            "left_brow": (17, 22),
            "right_brow": (22, 27),
            "nose": (27, 36),
            "left_eye": (36, 42),
            "right_eye": (42, 48),
            "outer_mouth": (48, 60),
            "inner_mouth": (60, 68),
        },
        98: {
            "jaw": (0, 33),
            "left_brow": (33, 42),
            "right_brow": (42, 51),
            "nose": (51, 60),
            "left_eye": (60, 68),
            "right_eye": (68, 76),
            "outer_mouth": (76, 88),
            "inner_mouth": (88, 96),
            "left_pupil": (96, 97),
            "right_pupil": (97, 98),
        },
        19: {
            "left_brow": (0, 3),
            "right_brow": (3, 6),
            "left_eye": (6, 9),
            "right_eye": (9, 12),
            "nose": (12, 15),
            "mouth": (15, 18),
            "chin": (18, 19),
        },
    }
    return {name: tuple(range(*span)) for name, span in spans[count].items()}
