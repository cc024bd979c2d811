"""A fake LaPa."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from farl_lightning.datasets.lapa import LAPA_SPLITS
from farl_lightning.datasets.synthetic import SyntheticFace
from farl_lightning.testing.benchmarks.common import draw_faces, save_jpeg, save_mask, write_points


def write_lapa(folder: str | Path, count: int = 6, size: int = 128, seed: int = 0) -> dict[str, list[SyntheticFace]]:
    """Write drawn faces as LaPa.

    Args:
        folder: Where to; made if needed.
        count: Faces in each split.
        size: Side of the pictures in pixels.
        seed: Which faces.

    Returns:
        The faces of each split, in the order of the dataset.
    """
    splits = {}
    for number, split in enumerate(LAPA_SPLITS):
        faces = splits[split] = list(draw_faces(count, size, number, seed))
        for index, face in enumerate(faces):
            base, name = Path(folder) / split, f"{index:08d}_0"
            save_jpeg(base / "images" / f"{name}.jpg", face)
            save_mask(base / "labels" / f"{name}.png", face.mask_lapa)
            write_points(base / "landmarks" / f"{name}.txt", lapa_landmarks(face), head="106")
    return splits


def lapa_landmarks(face: SyntheticFace) -> npt.NDArray[np.float32]:
    """Return the 106 landmarks of a drawn face.

    Args:
        face: The face.

    Returns:
        (106, 2) float32: WFLW's points in LaPa's order, the underside of the nose twice as dense, and the pupils twice.
    """
    points = face.landmarks(98)
    under = np.linspace(0, 4, 11)
    nose = np.stack([np.interp(under, np.arange(5), points[55:60, axis]) for axis in (0, 1)], -1).astype(np.float32)
    left, right = points[96:97], points[97:98]
    parts = (points[:55], nose, points[60:68], left, points[68:76], right, points[76:96], left, right)
    return np.concatenate(parts)
