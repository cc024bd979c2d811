"""The landmark orders of the benchmarks: which index is what, what a flip exchanges, which points align a crop.

Left and right are always the **viewer's**: index 36 of the 68 points, ``left_eye``, lies on the image's left (it is the
subject's right eye). The orders of 68, 98 and 19 points are those the drawn faces have, too; their tables live in
:mod:`farl_lightning.datasets.synthetic.landmarks` and are taken from there. Which points make the distance between the
eyes that errors are divided by is told in :mod:`farl_lightning.functional.landmark_errors`.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from farl_lightning.datasets.synthetic.landmarks import landmark_flips, landmark_groups
from farl_lightning.errors import ConfigError
from farl_lightning.types import FaceSpec

Indices = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class LandmarkSet:
    """One landmark order.

    Attributes:
        name: Where it comes from.
        count: Number of points.
        flips: Pairs of indices that a horizontal flip exchanges; points on the middle line are in no pair.
        groups: Named parts, left and right being the viewer's.
        five: What each of the five alignment points is the mean of: eye centres, tip of the nose, mouth corners, from
            the image's left to its right.
    """

    name: str
    count: int
    flips: tuple[tuple[int, int], ...]
    groups: dict[str, Indices]
    five: tuple[Indices, Indices, Indices, Indices, Indices]

    def five_points(self, landmarks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return what an aligned crop is fitted to.

        Args:
            landmarks: (count, 2).

        Returns:
            (5, 2) float32, in the units of ``landmarks``.
        """
        return np.stack([landmarks[list(part)].mean(axis=0) for part in self.five]).astype(np.float32)

    def flip_order(self) -> npt.NDArray[np.int64]:
        """Return the order of the mirrored picture's points: its point i is the mirror image of point ``order[i]``."""
        order = np.arange(self.count)
        for left, right in self.flips:
            order[[left, right]] = right, left
        return order

    def spec(self, **fields: object) -> FaceSpec:
        """Return a specification with this order's labels.

        Args:
            **fields: Other fields of :class:`~farl_lightning.types.FaceSpec`.
        """
        labels = {"num_landmarks": self.count, "landmark_flips": self.flips, "landmark_groups": dict(self.groups)}
        return FaceSpec(**{**labels, **fields})  # type: ignore[arg-type]


def _span(start: int, stop: int) -> Indices:
    return tuple(range(start, stop))


def _ladder(first: int, last: int) -> tuple[tuple[int, int], ...]:
    """Pair the ends of a run of points that is symmetric about its middle, then the next ones inwards."""
    return tuple((first + step, last - step) for step in range((last - first + 1) // 2))


def _shared(name: str, count: int, five: tuple[Indices, Indices, Indices, Indices, Indices]) -> LandmarkSet:
    """Return an order that the drawn faces share."""
    return LandmarkSet(name, count, landmark_flips(count), landmark_groups(count), five)


# there is no pupil among the 68: the mean of the eye's contour stands for it
IBUG_68 = _shared("iBUG 68", 68, (_span(36, 42), _span(42, 48), (30,), (48,), (54,)))
"""300W, 300-VW, FaceSynthetics: jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, mouth 48-67."""

WFLW_98 = _shared("WFLW 98", 98, ((96,), (97,), (54,), (76,), (82,)))
"""WFLW: jaw 0-32, brows 33-50 (upper then lower edge), nose 51-59, eyes 60-75, mouth 76-95, pupils 96 and 97."""

AFLW_19 = _shared("AFLW 19", 19, ((7,), (10,), (13,), (15,), (17,)))
"""AFLW without its two ear points: brows 0-5, eyes (corner, centre, corner) 6-11, nose 12-14, mouth 15-17, chin 18."""

COFW_29 = LandmarkSet(
    "COFW 29",
    29,
    flips=(
        *((0, 1), (2, 3), (4, 6), (5, 7)),
        *((8, 9), (10, 11), (12, 14), (13, 15), (16, 17)),
        *((18, 19), (22, 23)),
    ),
    groups={
        "left_brow": (0, 4, 2, 5),
        "right_brow": (3, 6, 1, 7),
        "left_eye": (8, 12, 10, 13),
        "right_eye": (11, 14, 9, 15),
        "left_pupil": (16,),
        "right_pupil": (17,),
        "nose": (18, 20, 19, 21),
        "outer_mouth": (22, 24, 23, 27),
        "inner_mouth": (22, 25, 23, 26),
        "chin": (28,),
    },
    five=((16,), (17,), (20,), (22,), (23,)),
)
"""COFW and LFPW. Left and right alternate: outer (0, 1) and inner (2, 3) ends of the brows, upper and lower middle of
the left (4, 5) and of the right brow (6, 7); outer (8, 9) and inner (10, 11) eye corners, upper and lower lid of the
left (12, 13) and of the right eye (14, 15), pupils 16 and 17; nose left, right, tip, base 18-21; mouth corners 22 and
23, upper lip 24 and 25, lower lip 26 and 27 from top to bottom; chin 28."""

LAPA_106 = LandmarkSet(
    "LaPa 106",
    106,
    flips=(
        *_ladder(0, 32),
        *_ladder(33, 46)[:5],
        *((38, 50), (39, 49), (40, 48), (41, 47)),
        *_ladder(55, 65),
        *_ladder(66, 79)[:5],
        *((71, 82), (72, 81), (73, 80), (74, 83)),
        *_ladder(84, 90),
        *_ladder(91, 95),
        *_ladder(96, 100),
        *_ladder(101, 103),
        (104, 105),
    ),
    groups={
        "jaw": _span(0, 33),
        "left_brow": _span(33, 42),
        "right_brow": _span(42, 51),
        "nose": _span(51, 66),
        "left_eye": _span(66, 74),
        "right_eye": _span(75, 83),
        "left_eye_center": (74,),
        "right_eye_center": (83,),
        "outer_mouth": _span(84, 96),
        "inner_mouth": _span(96, 104),
        "left_pupil": (104,),
        "right_pupil": (105,),
    },
    five=((104,), (105,), (54,), (84,), (90,)),
)
"""LaPa: as WFLW down to the brows (0-50); nose 51-65; eyes 66-73 and 75-82, each followed by its centre; mouth 84-103;
pupils 104 and 105. Its crop is fitted to 104, 105, 54, 84 and 90, as FaRL's is."""

LANDMARK_SETS: dict[int, LandmarkSet] = {order.count: order for order in (AFLW_19, COFW_29, IBUG_68, WFLW_98, LAPA_106)}
"""The orders by number of points."""


def landmark_set(count: int) -> LandmarkSet:
    """Return the order with so many points.

    Args:
        count: 19, 29, 68, 98 or 106.

    Raises:
        ConfigError: If there is none.
    """
    if count not in LANDMARK_SETS:
        raise ConfigError(f"no landmark order has {count} points; known: {', '.join(map(str, LANDMARK_SETS))}")
    return LANDMARK_SETS[count]
