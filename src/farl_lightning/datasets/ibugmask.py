"""iBugMask: 11 parsing classes in the wild (Lin et al., Image and Vision Computing 2021)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from farl_lightning.datasets.faces import DatasetSource, FaceDataset, check_split, find_root, list_names, not_found
from farl_lightning.datasets.files import read_image, read_mask, read_points, square_around
from farl_lightning.datasets.landmark_sets import IBUG_68
from farl_lightning.types import FaceRecord, FaceSpec

IBUGMASK_SPLITS = {"train": 21866, "test": 1000}
"""The official splits and their sizes; there is no validation split."""

IBUGMASK_CLASSES = (
    *("background", "skin", "left_eyebrow", "right_eyebrow", "left_eye", "right_eye"),
    *("nose", "upper_lip", "inner_mouth", "lower_lip", "hair"),
)
"""Names by id, as the authors' README gives them."""

IBUGMASK_FLIPS = ((2, 3), (4, 5))
"""Pairs of ids that a horizontal flip exchanges, whichever side "left" may mean."""

_VERSION = re.compile(r"_\d\d$")


class IBugMask(FaceDataset):
    """Faces in the wild with masks of 11 classes: Helen turned to large poses in training, hand-made masks in the test.

    ``{train,test}/{name}.jpg``, ``{name}.png`` (labels) and ``{name}_landmark.txt`` (68 points) side by side.

    Args:
        root: Folder ``ibugmask_release``.
        split: ``"train"`` or ``"test"``.

    Raises:
        ConfigError: If the split is unknown.
        DatasetNotFoundError: If the folder is not there.
    """

    source = DatasetSource(
        name="iBugMask",
        page="https://github.com/hhj1897/face_parsing#ibugmask-dataset",
        archives=("ibugmask_release.zip",),
        terms="research only; may not be passed on",
        layout=("{train,test}/*.jpg", "{train,test}/*.png", "{train,test}/*_landmark.txt"),
    )
    spec: FaceSpec = IBUG_68.spec(classes=IBUGMASK_CLASSES, class_flips=IBUGMASK_FLIPS)

    def __init__(self, root: str | Path, split: str = "train") -> None:
        check_split(split, tuple(IBUGMASK_SPLITS), "iBugMask")
        self.root = find_root(root, [split], self.source)
        self.split, self.expected = split, IBUGMASK_SPLITS[split]
        names = list_names(self.root / split, (".jpg",))
        if not names:
            raise not_found(self.root, f"has no pictures in '{split}'", self.source)
        self.keys = [name[:-4] for name in names]

    @property
    def photographs(self) -> list[str]:
        """The picture behind each sample: in training ``1234_00`` and ``1234_07`` show one, turned to other poses."""
        return [_VERSION.sub("", key) for key in self.keys]

    def files(self, index: int) -> Sequence[Path]:
        """Return picture, mask and landmarks of a sample.

        Args:
            index: From 0 to ``len(self) - 1``.
        """
        folder, key = self.root / self.split, self.keys[index]
        return [folder / f"{key}.jpg", folder / f"{key}.png", folder / f"{key}_landmark.txt"]

    def read(self, index: int) -> FaceRecord:
        """Read one sample.

        Args:
            index: From 0 to ``len(self) - 1``.

        Raises:
            BadSample: If a file is missing or broken.
        """
        image, mask, points = self.files(index)
        landmarks = read_points(points, IBUG_68.count)
        return FaceRecord(
            key=self.keys[index],
            image=read_image(image),
            mask=read_mask(mask),
            landmarks=landmarks,
            points=IBUG_68.five_points(landmarks),
            box=square_around(landmarks),
        )
