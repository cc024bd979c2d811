"""Drawn faces with labels of the whole face: attributes, age, expression, gender, identity."""

from __future__ import annotations

import dataclasses

import numpy as np

from farl_lightning.datasets.drawn import DrawnFaces
from farl_lightning.datasets.synthetic import SyntheticFace, SyntheticFaces
from farl_lightning.datasets.synthetic.attributes import CELEBA_ATTRIBUTES
from farl_lightning.datasets.synthetic.parameters import EXPRESSIONS
from farl_lightning.types import ATTRIBUTES, FaceRecord, FaceSpec

GENDERS = ("female", "male")

_DECADES = (20, 40, 60)  # where the age groups part


class DrawnGlobalFaces(DrawnFaces):
    """Faces of :class:`~farl_lightning.datasets.synthetic.SyntheticFaces` with labels of the whole face.

    Labels: ``attributes`` (CelebA's 40; what a picture cannot show is unknown), ``age`` in years, ``expression`` (the
    seven basic ones) and ``gender``. Groups: ``gender`` and ``age_group``.

    Args:
        faces: The faces.
        cache: Draw every picture once, now, into an array that forked workers share.
    """

    def __init__(self, faces: SyntheticFaces, cache: bool = False) -> None:
        super().__init__(faces, 0, 0, cache=False)
        self.labels, self.groups = (ATTRIBUTES, "age", "expression", "gender"), ("gender", "age_group")
        self.spec = drawn_global_labels()
        if cache:
            self._records = self._draw_all()

    def _record(self, face: SyntheticFace) -> FaceRecord:
        """Return a face with its labels."""
        gender = int(face.person.male)
        return dataclasses.replace(
            super()._record(face),
            labels={
                ATTRIBUTES: np.asarray(face.attributes, np.int64),
                "age": float(face.age),
                "expression": int(face.expression),
                "gender": gender,
            },
            groups={"gender": GENDERS[gender], "age_group": age_group(face.age)},
        )


def drawn_global_labels() -> FaceSpec:
    """Return the labels of the whole face that drawn faces have, without crop and size."""
    return FaceSpec(attributes=CELEBA_ATTRIBUTES, label_names={"age": (), "expression": EXPRESSIONS, "gender": GENDERS})


def age_group(years: float) -> str:
    """Return the group that an age falls into.

    Args:
        years: Age.

    Example:
        >>> age_group(19.5), age_group(20), age_group(77)
        ('0-19', '20-39', '60+')
    """
    lower = max((limit for limit in _DECADES if years >= limit), default=0)
    upper = next((limit for limit in _DECADES if years < limit), None)
    return f"{lower}+" if upper is None else f"{lower}-{upper - 1}"
