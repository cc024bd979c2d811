"""A fake 300W: the four archives' folders with ``.pts`` files, and HRNet's csv files."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from farl_lightning.datasets.ibug300w import CSV_OFFSET, PARTS, PTS_OFFSET, RENAMED
from farl_lightning.testing.benchmarks.common import draw_faces, save_jpeg
from farl_lightning.testing.benchmarks.landmarks import Placed, write_landmark_csv

_CSV = {"train": "train", "common": "valid_common", "challenging": "valid_challenge"}


def write_ibug300w(folder: str | Path, count: int = 6, size: int = 128, seed: int = 0) -> dict[str, list[Placed]]:
    """Write drawn faces as 300W.

    Args:
        folder: Where to; made if needed.
        count: Faces in each of the parts "train", "common" and "challenging".
        size: Side of the pictures in pixels.
        seed: Which faces.

    Returns:
        The faces of each part, in the order of the csv files.
    """
    folder = Path(folder)
    parts: dict[str, list[Placed]] = {}
    for number, (part, folders) in enumerate(PARTS.items()):
        faces = draw_faces(count, size, number, seed)
        parts[part] = [Placed(face, _name(folders[i % len(folders)], i)) for i, face in enumerate(faces)]
        for placed in parts[part]:
            _save(folder / RENAMED.get(placed.picture, placed.picture), placed)
        write_landmark_csv(folder / f"face_landmarks_300w_{_CSV[part]}.csv", parts[part], 68, CSV_OFFSET)
    return parts


def _name(folder: str, number: int) -> str:
    """Name a picture; the first of "ibug" is the one whose name the csv gets wrong."""
    if folder == "ibug" and number == 0:
        return next(iter(RENAMED))
    if folder.startswith("lfpw"):
        return f"{folder}/image_{number:04d}.png"
    return f"{folder}/image_{number:03d}_1.jpg" if folder == "ibug" else f"{folder}/{1000 + number}_1.jpg"


def _save(path: Path, placed: Placed) -> None:
    """Write the picture and its ``.pts`` file."""
    if path.suffix == ".png":
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(placed.face.image).save(path)
    else:
        save_jpeg(path, placed.face)
    points = (placed.landmarks(68) + PTS_OFFSET).tolist()
    lines = "\n".join(f"{x:.6f} {y:.6f}" for x, y in points)
    path.with_suffix(".pts").write_text(f"version: 1\nn_points:  68\n{{\n{lines}\n}}\n", encoding="ascii")
