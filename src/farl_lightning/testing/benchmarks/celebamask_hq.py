"""A fake CelebAMask-HQ, with overlapping layers as the real one has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from farl_lightning.datasets.celebamask_hq import CELEBAMASK_SPLITS, IMAGES, LAYERS, MAPPING, MASKS, PARTITION
from farl_lightning.datasets.synthetic import SyntheticFace
from farl_lightning.testing.benchmarks.common import draw_faces, save_jpeg, save_mask

BENEATH = {"neck": (3, 18), "skin": tuple(range(6, 14)), "l_ear": (17,), "r_ear": (17,), "hair": (16,)}
"""Labels beneath which a layer goes on; painted in the right order, none of it is seen."""


def write_celebamask_hq(
    folder: str | Path, count: int = 6, size: int = 64, seed: int = 0
) -> dict[str, list[SyntheticFace]]:
    """Write drawn faces as CelebAMask-HQ: pictures twice as large as their masks, ids across two mask folders.

    Args:
        folder: Where to; made if needed.
        count: Faces in each split.
        size: Side of the masks in pixels.
        seed: Which faces.

    Returns:
        The faces of each split at the size of the masks, in the order of the dataset (that of the partition file, which
        is not the order of the ids).
    """
    folder, mapping, partition = Path(folder), ["idx orig_idx orig_file"], []
    splits: dict[str, list[SyntheticFace]] = {}
    for number, split in enumerate(CELEBAMASK_SPLITS):
        faces, large = (draw_faces(count, side, number, seed) for side in (size, 2 * size))
        splits[split] = list(faces)
        for index in range(count):
            row = number * count + index
            identifier, original = 2000 + count - row, row + 1  # runs against the partition file
            mapping.append(f"{identifier:<8} {original:<8} {original:06d}.jpg")
            partition.append(f"{original:06d}.jpg {number}")
            save_jpeg(folder / IMAGES / f"{identifier}.jpg", large[index])
            _save_layers(folder / MASKS / str(identifier // 2000), f"{identifier:05d}", faces[index].mask_celebamask)
    partition.append(f"{3 * count + 1:06d}.jpg 0")  # most pictures of CelebA have no high-quality version
    (folder / MAPPING).write_text("\n".join(mapping) + "\n", encoding="utf-8")
    (folder / PARTITION).write_text("\n".join(partition) + "\n", encoding="utf-8")
    return splits


def _save_layers(folder: Path, name: str, mask: npt.NDArray[np.uint8]) -> None:
    """Write one black-and-white RGB file per class that is there."""
    for label, layer in enumerate(LAYERS, start=1):
        covered = mask == label
        if covered.any():
            covered |= np.isin(mask, BENEATH.get(layer, ()))
            save_mask(folder / f"{name}_{layer}.png", np.repeat(covered[..., None] * np.uint8(255), 3, axis=-1))
