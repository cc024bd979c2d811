"""FaceSynthetics: renders with 19 parsing classes and 70 landmarks (Wood et al., ICCV 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from farl_lightning.datasets.faces import DatasetSource, FaceDataset, file_names, not_found
from farl_lightning.datasets.files import read_image, read_mask, read_points, square_around
from farl_lightning.datasets.landmark_sets import IBUG_68
from farl_lightning.types import FaceRecord, FaceSpec

FACE_SYNTHETICS_CLASSES = (
    *("background", "skin", "nose", "right_eye", "left_eye", "right_brow", "left_brow", "right_ear", "left_ear"),
    *(
        "mouth_interior",
        "top_lip",
        "bottom_lip",
        "neck",
        "hair",
        "beard",
        "clothing",
        "glasses",
        "headwear",
        "facewear",
    ),
)
"""Names by id, as its README gives them; 255 is "ignore". In the masks left and right are the viewer's: class 3
(``right_eye``) lies on the image's right, as measured on every mask, while landmarks 36-41 lie on the image's left."""

FACE_SYNTHETICS_FLIPS = ((3, 4), (5, 6), (7, 8))
"""Pairs of ids that a horizontal flip exchanges."""

_STORED_POINTS = 70  # the 68 of iBUG, then two pupils

# In the files the corner of the top-left pixel is (0, 0). Measured on 56 renders of the sample: the middle of eye and
# mouth masks lies 0.52 +- 0.08 px left of the middle of their landmarks if pixel centres are taken to be integers.
_TO_PIXEL_CENTRES = 0.5


class FaceSynthetics(FaceDataset):
    """Renders of 512 px with masks of 19 classes and the 68 iBUG landmarks; samples of 100, 1000 and 100 000 pictures.

    ``{id}.png``, ``{id}_seg.png``, ``{id}_ldmks.txt``, all in one folder. There is no official split: see
    :func:`farl_lightning.datasets.splits.hold_out`. Landmarks are stored from the pixels' corner and shifted by half a
    pixel here; the pupils are left out. They are projections of points of the head, seen or hidden.

    Args:
        root: Folder of the files.
        masks: Whether to read masks; without them only landmarks are labels.

    Raises:
        DatasetNotFoundError: If the folder is not there or holds no such pictures.
    """

    source = DatasetSource(
        name="FaceSynthetics",
        page="https://github.com/microsoft/FaceSynthetics",
        archives=("dataset_100.zip, dataset_1000.zip or dataset_100000.zip",),
        terms="R-UDA licence: non-commercial research; the terms travel with the data",
        layout=("{id}.png", "{id}_seg.png", "{id}_ldmks.txt"),
    )
    spec: FaceSpec = IBUG_68.spec(classes=FACE_SYNTHETICS_CLASSES, class_flips=FACE_SYNTHETICS_FLIPS)

    def __init__(self, root: str | Path, masks: bool = True) -> None:
        self.root, self.masks = Path(root).expanduser(), masks
        self.spec = type(self).spec if masks else IBUG_68.spec()
        if not self.root.is_dir():
            raise not_found(self.root, "does not exist", self.source)
        stems = (name[:-4] for name in file_names(self.root) if name.endswith(".png"))
        self.keys = sorted(stem for stem in stems if stem.isdigit())  # leaves out masks and other pictures
        if not self.keys:
            folders = ", ".join(entry.name for entry in sorted(self.root.iterdir()) if entry.is_dir())
            what = "holds no {id}.png" + (f", but folders: {folders}" if folders else "")
            raise not_found(self.root, what, self.source)

    def files(self, index: int) -> Sequence[Path]:
        """Return picture, landmarks and, if asked for, mask of a sample.

        Args:
            index: From 0 to ``len(self) - 1``.
        """
        endings = (".png", "_ldmks.txt", *(["_seg.png"] if self.masks else []))
        return [self.root / f"{self.keys[index]}{ending}" for ending in endings]

    def read(self, index: int) -> FaceRecord:
        """Read one sample.

        Args:
            index: From 0 to ``len(self) - 1``.

        Raises:
            BadSample: If a file is missing or broken.
        """
        image, points, *mask = self.files(index)
        landmarks = (read_points(points, _STORED_POINTS) - _TO_PIXEL_CENTRES)[: IBUG_68.count].astype(np.float32)
        return FaceRecord(
            key=self.keys[index],
            image=read_image(image),
            mask=read_mask(mask[0]) if mask else None,
            landmarks=landmarks,
            points=IBUG_68.five_points(landmarks),
            box=square_around(landmarks),
        )
