"""Names, ids and flip pairs of the two parsing conventions that the drawn masks follow."""

from __future__ import annotations

LAPA_CLASSES = (
    "background",
    "face_lr_rr",
    "lb",
    "rb",
    "le",
    "re",
    "nose",
    "ul",
    "im",
    "ll",
    "hair",
)
"""LaPa's 11 classes by id. Left and right are the viewer's: ``le`` (4) lies on the image's left."""

LAPA_FLIPS = ((2, 3), (4, 5))
"""Pairs of LaPa ids that a horizontal flip exchanges."""

CELEBAMASK_CLASSES = (
    "background",
    "neck",
    "face",
    "cloth",
    "rr",
    "lr",
    "rb",
    "lb",
    "re",
    "le",
    "nose",
    "imouth",
    "llip",
    "ulip",
    "hair",
    "glass",
    "hat",
    "earr",
    "neckl",
)
"""CelebAMask-HQ's 19 classes by id, under FaRL's names. ``re`` (8, the dataset's own ``l_eye``: the subject's left)
lies on the image's right."""

CELEBAMASK_FLIPS = ((4, 5), (6, 7), (8, 9))
"""Pairs of CelebAMask-HQ ids that a horizontal flip exchanges."""
