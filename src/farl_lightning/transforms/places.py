"""Where a face is in its photograph, whoever says so: a person, a file, a detector."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from farl_lightning.functional.geometry import square_box
from farl_lightning.transforms.detectors import Detections, Detector, best_overlap

Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class FacePlace:
    """Where a face is in its photograph, in pixels of the upright picture; pixel centres lie at integers.

    Attributes:
        box: Left, top, right, bottom.
        points: (5, 2) float32 eyes, nose tip, mouth corners, from the image's left to its right.
        score: How sure a detector is, 0 to 1; None for a face that somebody marked.
    """

    box: Box | None = None
    points: npt.NDArray[np.float32] | None = None
    score: float | None = None

    @property
    def crop_box(self) -> Box | None:
        """The box that ``crop="box"`` stretches over the crop.

        A marked box is taken as it is; one that a detector found hugs the face, and is grown to a square around its
        centre, as the boxes are that landmark networks are trained on.
        """
        if self.box is None or self.score is None:
            return self.box
        left, top, right, bottom = square_box(torch.tensor(self.box, dtype=torch.float64)).tolist()
        return left, top, right, bottom

    @classmethod
    def checked(cls, box: Any = None, points: Any = None, score: Any = None) -> FacePlace:
        """Make a place of anything array-like.

        Args:
            box: Four numbers, or None.
            points: Five pairs of numbers, or None.
            score: A number, or None.

        Raises:
            ValueError: If there is neither box nor points, a shape is wrong, or a number is not finite.
        """
        if box is None and points is None:
            raise ValueError("a face has neither box nor points")
        place = cls(score=None if score is None else float(score))
        if box is not None:
            sides = _numbers(box, (4,), "a box is left, top, right, bottom").tolist()
            if not (sides[0] < sides[2] and sides[1] < sides[3]):
                raise ValueError(f"a box is left, top, right, bottom with left < right and top < bottom, got {sides}")
            place = dataclasses.replace(place, box=tuple(sides))
        if points is not None:
            marks = _numbers(points, (5, 2), "points are five pairs x, y (eyes, nose tip, mouth corners)")
            place = dataclasses.replace(place, points=marks.astype(np.float32))
        return place


def _numbers(value: Any, shape: tuple[int, ...], expected: str) -> npt.NDArray[np.float64]:
    """Turn nested sequences of numbers into an array, or say what was expected."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{expected}, got {value!r}") from None
    if array.shape != shape:
        raise ValueError(f"{expected}, got {value if array.size < 12 else ''!r} of shape {array.shape}")
    if not all(map(math.isfinite, array.ravel())):
        raise ValueError(f"{expected}, all finite, got {array.tolist()}")
    return array


def found_places(found: Detections) -> list[FacePlace]:
    """Turn what a detector found into places.

    Args:
        found: The faces of one picture.
    """
    return [
        FacePlace(
            box=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
            points=None if found.points is None else found.points[number],
            score=float(found.scores[number]),
        )
        for number, box in enumerate(found.boxes)
    ]


def add_points(places: Sequence[FacePlace], image: npt.NDArray[np.uint8], detector: Detector) -> list[FacePlace]:
    """Let a detector add five points to faces that are given as boxes alone; what it does not find stays as it is.

    Args:
        places: The faces of a picture.
        image: (H, W, 3) uint8.
        detector: Asked only if points are missing.
    """
    bare = [number for number, place in enumerate(places) if place.points is None]
    if not bare:
        return list(places)
    found, completed = detector.detect(image), list(places)
    if found.points is None:
        return completed
    boxes = [box for number in bare if (box := places[number].box) is not None]
    for number, face in zip(bare, best_overlap(boxes, found), strict=True):
        if face is not None:
            completed[number] = dataclasses.replace(places[number], points=found.points[face])
    return completed
