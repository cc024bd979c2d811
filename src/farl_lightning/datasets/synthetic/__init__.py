"""Faces drawn from a seed, with everything about them known."""

from __future__ import annotations

from farl_lightning.datasets.synthetic.attributes import CELEBA_ATTRIBUTES
from farl_lightning.datasets.synthetic.classes import CELEBAMASK_CLASSES, CELEBAMASK_FLIPS, LAPA_CLASSES, LAPA_FLIPS
from farl_lightning.datasets.synthetic.dataset import SyntheticFace, SyntheticFaces
from farl_lightning.datasets.synthetic.landmarks import landmark_flips, landmark_groups
from farl_lightning.datasets.synthetic.parameters import EXPRESSIONS

__all__ = [
    "CELEBAMASK_CLASSES",
    "CELEBAMASK_FLIPS",
    "CELEBA_ATTRIBUTES",
    "EXPRESSIONS",
    "LAPA_CLASSES",
    "LAPA_FLIPS",
    "SyntheticFace",
    "SyntheticFaces",
    "landmark_flips",
    "landmark_groups",
]
