"""A fake WFLW: pictures, some with two faces, HRNet's csv files of the splits and subsets, and the authors' lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from farl_lightning.datasets.synthetic import SyntheticFaces
from farl_lightning.datasets.wflw import LIST, SUBSETS
from farl_lightning.errors import ConfigError
from farl_lightning.testing.benchmarks.common import draw_faces, save_jpeg
from farl_lightning.testing.benchmarks.landmarks import Placed, write_landmark_csv

_SHARE = 3  # every third face belongs to a subset


def write_wflw(folder: str | Path, count: int = 6, size: int = 128, seed: int = 0) -> dict[str, list[Placed]]:
    """Write drawn faces as WFLW. Two faces each share a picture, side by side.

    Args:
        folder: Where to; made if needed.
        count: Faces in each of "train" and "test", at least 3.
        size: Height of the pictures in pixels.
        seed: Which faces.

    Returns:
        The faces of "train", of "test" and of each of its subsets, in the order of the csv files.

    Raises:
        ConfigError: If there are too few faces for six subsets that are not empty.
    """
    if count < _SHARE:
        raise ConfigError(f"count is {count}; subsets need at least {_SHARE} faces")
    folder = Path(folder)
    found = {
        split: _save_pictures(folder / "WFLW_images", split, draw_faces(count, size, number, seed))
        for number, split in enumerate(("train", "test"))
    }
    for split in ("train", "test"):
        _write_list(folder / LIST.format(split), found[split])
    for number, subset in enumerate(SUBSETS):
        found[f"test_{subset}"] = [face for i, face in enumerate(found["test"]) if (i + number) % _SHARE == 0]
    for name, faces in found.items():
        write_landmark_csv(folder / f"face_landmarks_wflw_{name}.csv", faces, 98)
    return found


def _write_list(path: Path, faces: list[Placed]) -> None:
    """Write the authors' list of a split: landmarks, rectangle, flags of the subsets, picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for i, placed in enumerate(faces):
        left, top, right, bottom = (round(side) for side in placed.face.box)
        place = [left + placed.left, top, right + placed.left, bottom]
        flags = [int((i + number) % _SHARE == 0) for number in range(len(SUBSETS))]
        points = [f"{value:.6f}" for value in placed.landmarks(98).ravel().tolist()]
        lines.append(" ".join(map(str, [*points, *place, *flags, placed.picture])))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _save_pictures(folder: Path, split: str, faces: SyntheticFaces) -> list[Placed]:
    """Write the pictures of a split; return the faces in them."""
    placed = []
    for first in range(0, len(faces), 2):
        together = [faces[i] for i in range(first, min(first + 2, len(faces)))]
        name = f"{first % 61}--Drawn/{first % 61}_Drawn_{split}_{first}.jpg"
        save_jpeg(folder / name, np.concatenate([face.image for face in together], axis=1))
        placed += [Placed(face, name, i * faces.image_size) for i, face in enumerate(together)]
    return placed
