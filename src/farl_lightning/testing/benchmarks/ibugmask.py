"""A fake iBugMask."""

from __future__ import annotations

from pathlib import Path

from farl_lightning.datasets.ibugmask import IBUGMASK_SPLITS
from farl_lightning.datasets.synthetic import SyntheticFace
from farl_lightning.testing.benchmarks.common import draw_faces, save_jpeg, save_mask, write_points


def write_ibugmask(
    folder: str | Path, count: int = 6, size: int = 128, seed: int = 0
) -> dict[str, list[SyntheticFace]]:
    """Write drawn faces as iBugMask; in training, two faces each count as versions of one picture.

    Args:
        folder: Where to; made if needed.
        count: Faces in each split.
        size: Side of the pictures in pixels.
        seed: Which faces.

    Returns:
        The faces of each split, in the order of the dataset.
    """
    splits = {}
    for number, split in enumerate(IBUGMASK_SPLITS):
        faces = splits[split] = list(draw_faces(count, size, number, seed))
        for index, face in enumerate(faces):
            path = Path(folder) / split / (f"{index // 2:06d}_{index % 2:02d}" if split == "train" else f"{index:06d}")
            save_jpeg(path.with_suffix(".jpg"), face)
            save_mask(path.with_suffix(".png"), face.mask_lapa)
            write_points(path.with_name(f"{path.name}_landmark.txt"), face.landmarks(68))
    return splits
