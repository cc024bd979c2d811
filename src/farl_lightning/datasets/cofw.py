"""COFW: 29 landmarks under occlusion (Burgos-Artizzu et al., "Robust face landmark estimation under occlusion", 2013).

The colour version comes as two MATLAB 7.3 files, which are HDF5 and hold pictures, landmarks and flags of occlusion
alike. They are read as they are, with h5py; nothing has to be converted first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from farl_lightning.datasets.bad_sample import BROKEN_IMAGE, HUGE_IMAGE, BadSample
from farl_lightning.datasets.decode import MAX_PIXELS
from farl_lightning.datasets.faces import DatasetSource, check_split, find_root
from farl_lightning.datasets.landmark_faces import FaceRow, LandmarkDataset, Picture, landmark_box
from farl_lightning.datasets.landmark_sets import COFW_29
from farl_lightning.errors import ConfigError, DataError, did_you_mean, require

SPLITS = {"train": 1345, "test": 507}
"""Splits, and how many faces each has; the first 845 of training are LFPW's."""

BOXES = ("landmarks", "detector")
"""Where the crop comes from: the square around the landmarks, as in HRNet and what followed it (and in the boxes of
300W and WFLW), or the file's own boxes, which imitate a detector."""

MATLAB_OFFSET = 1.0
"""What is taken off every coordinate: MATLAB's first pixel is 1."""


class _Names(NamedTuple):
    file: str
    pictures: str
    landmarks: str
    boxes: str


_NAMES = {
    "train": _Names("COFW_train_color.mat", "IsTr", "phisTr", "bboxesTr"),
    "test": _Names("COFW_test_color.mat", "IsT", "phisT", "bboxesT"),
}


class COFW(LandmarkDataset):
    """COFW in colour; ``visible`` is False where a landmark is occluded. Occluded landmarks count in loss and metric.

    The files are opened anew for every picture: an open HDF5 file neither survives a fork nor can be sent to a worker.

    Args:
        root: Folder with ``COFW_train_color.mat`` and ``COFW_test_color.mat``.
        split: ``"train"`` or ``"test"``.
        boxes: ``"landmarks"`` or ``"detector"``; see :data:`BOXES`.

    Raises:
        DatasetNotFoundError: If the split's file is missing.
        DataError: If it is no such file.
        MissingDependencyError: If h5py is not installed.
        ConfigError: If a name is unknown.
    """

    source = DatasetSource(
        name="COFW",
        page="http://www.vision.caltech.edu/xpburgos/ICCV13/",
        archives=("COFW_color.zip",),
        terms="research only; no redistribution",
        layout=("COFW_train_color.mat", "COFW_test_color.mat"),
    )
    order = COFW_29

    def __init__(self, root: str | Path, split: str = "train", boxes: str = "landmarks") -> None:
        check_split(split, tuple(SPLITS), self.source.name)
        if boxes not in BOXES:
            raise ConfigError(f"boxes '{boxes}' is unknown. {did_you_mean(boxes, BOXES)}")
        self.names = _NAMES[split]
        root = find_root(root, [self.names.file], self.source)
        values, sides = _read_annotations(root / self.names.file, self.names)
        given = list(sides) if boxes == "detector" else [None] * len(values)
        rows = (_row(f"{split}_{i:04d}", values[i], box) for i, box in enumerate(given))
        super().__init__(rows, root, SPLITS[split])

    def read_picture(self, row: FaceRow) -> Picture:
        """Read the picture of a face from the file.

        Args:
            row: The face.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            BadSample: If it is no picture, or too large.
        """
        with require("h5py", "datasets").File(self.folder / self.names.file, "r") as file:
            stored = file[file[self.names.pictures][0, int(row.picture.rsplit("_", 1)[1])]]
            if stored.ndim not in (2, 3) or stored.dtype != np.uint8:
                raise BadSample(BROKEN_IMAGE, f"{row.picture}: {stored.dtype} numbers of shape {stored.shape}")
            if stored.shape[-1] * stored.shape[-2] > MAX_PIXELS:
                raise BadSample(HUGE_IMAGE, f"{row.picture}: {stored.shape[-2]} x {stored.shape[-1]} pixels")
            return _to_rgb(stored[()])

    def files(self, index: int) -> Sequence[Path]:
        """Return the file that all pictures lie in.

        Args:
            index: From 0 to ``len(self) - 1``.
        """
        del index
        return [self.folder / self.names.file]


def _to_rgb(stored: Any) -> Picture:
    """Turn MATLAB's axes around: HDF5 lists them last to first, so that (H, W, 3) is stored as (3, W, H)."""
    picture = np.asarray(stored).T
    if picture.ndim == 2 or picture.shape[2] == 1:  # some pictures of the colour files are grey
        picture = np.repeat(picture.reshape(*picture.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(picture[..., :3])


def _read_annotations(path: Path, names: _Names) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Read (n, 87) numbers, x and y of 29 landmarks and their flags, and (n, 4) boxes, left, top, width, height."""
    h5py = require("h5py", "datasets")
    try:
        with h5py.File(path, "r") as file:
            pictures = file[names.pictures].shape
            values, boxes = (np.asarray(file[name], np.float64).T for name in (names.landmarks, names.boxes))
        if values.ndim != 2 or values.shape[1] != 3 * COFW_29.count:
            raise ValueError(f"'{names.landmarks}' has shape {values.shape} instead of (n, {3 * COFW_29.count})")
        if boxes.shape != (len(values), 4) or pictures != (1, len(values)):
            raise ValueError(f"{len(values)} faces, boxes of shape {boxes.shape}, pictures of shape {pictures}")
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"'{path}' cannot be read ({type(error).__name__}: {error}). Download it again.") from error
    return values, boxes


def _row(name: str, values: npt.NDArray[np.float64], detected: npt.NDArray[np.float64] | None) -> FaceRow:
    """Turn one face's numbers into a row."""
    parts = values.reshape(3, COFW_29.count)
    points, occluded = parts[:2].T - MATLAB_OFFSET, parts[2] > 0.5
    box = (0.0, 0.0, 0.0, 0.0)
    problem = "" if np.isfinite(points).all() else f"{name}: a landmark is not finite"
    if detected is not None:
        left, top, width, height = detected.tolist()
        # MATLAB draws pixel 1 from 0.5 to 1.5, so that a box at (1, 1) begins at the centre of the first pixel
        box = (left - MATLAB_OFFSET, top - MATLAB_OFFSET, left + width - MATLAB_OFFSET, top + height - MATLAB_OFFSET)
    elif not problem:
        box = landmark_box(points)
    return FaceRow(name, name, points.astype(np.float32), box, ~occluded, problem=problem)
