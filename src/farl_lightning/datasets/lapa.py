"""LaPa: 11 parsing classes and 106 landmarks (Liu et al., AAAI 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from farl_lightning.datasets.faces import DatasetSource, FaceDataset, check_split, find_root, list_names, not_found
from farl_lightning.datasets.files import read_image, read_mask, read_points
from farl_lightning.datasets.landmark_sets import LAPA_106
from farl_lightning.datasets.synthetic.classes import LAPA_CLASSES, LAPA_FLIPS
from farl_lightning.types import FaceRecord, FaceSpec

LAPA_SPLITS = {"train": 18168, "val": 2000, "test": 2000}
"""The official splits and their sizes."""

FOLDERS = {"images": ".jpg", "labels": ".png", "landmarks": ".txt"}


class LaPa(FaceDataset):
    """Faces in the wild with masks of 11 classes and 106 landmarks.

    ``{split}/images/*.jpg``, ``{split}/labels/*.png``, ``{split}/landmarks/*.txt`` (their number, then x and y).
    Landmarks are taken as they are written, pixel centres at integers, as FaRL does. Left and right are the viewer's.

    Args:
        root: Folder that holds the splits.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        ConfigError: If the split is unknown.
        DatasetNotFoundError: If the folder is not there.
    """

    source = DatasetSource(
        name="LaPa",
        page="https://github.com/jd-opensource/lapa-dataset",
        archives=("LaPa.tar.gz",),
        terms="non-commercial research only; may not be passed on",
        layout=("{train,val,test}/images/*.jpg", "{train,val,test}/labels/*.png", "{train,val,test}/landmarks/*.txt"),
    )
    # ids in the order of FaRL's evaluation. The tables of facer name 2 to 5 the other way round (rb, lb, re, le); the
    # pixels decide: 4 lies on the image's left, so "left" is the viewer's here
    spec: FaceSpec = LAPA_106.spec(classes=LAPA_CLASSES, class_flips=LAPA_FLIPS)

    def __init__(self, root: str | Path, split: str = "train") -> None:
        check_split(split, tuple(LAPA_SPLITS), "LaPa")
        self.root = find_root(root, [f"{split}/{folder}" for folder in FOLDERS], self.source)
        self.split, self.expected = split, LAPA_SPLITS[split]
        # sorted, because the order in which a file system lists a folder differs from machine to machine
        names = list_names(self.root / split / "images", (".jpg",))
        if not names:
            raise not_found(self.root, f"has no pictures in '{split}/images'", self.source)
        self.keys = [name.rpartition(".")[0] for name in names]

    def files(self, index: int) -> Sequence[Path]:
        """Return picture, mask and landmarks of a sample.

        Args:
            index: From 0 to ``len(self) - 1``.
        """
        folder = self.root / self.split
        return [folder / name / f"{self.keys[index]}{suffix}" for name, suffix in FOLDERS.items()]

    def read(self, index: int) -> FaceRecord:
        """Read one sample.

        Args:
            index: From 0 to ``len(self) - 1``.

        Raises:
            BadSample: If a file is missing or broken.
        """
        image, mask, points = self.files(index)
        landmarks = read_points(points, LAPA_106.count, leading_count=True)
        return FaceRecord(
            key=self.keys[index],
            image=read_image(image),
            mask=read_mask(mask),
            landmarks=landmarks,
            points=LAPA_106.five_points(landmarks),  # landmarks 104, 105, 54, 84, 90, as in FaRL's prepare.py
        )
