"""What the fake benchmark folders share: drawn faces, and files that keep them as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from farl_lightning.datasets.synthetic import SyntheticFace, SyntheticFaces

SPLIT_STRIDE = 1_000_000
"""Distance between the first faces of two splits: no person is in both."""


def draw_faces(count: int, size: int, split: int = 0, seed: int = 0) -> SyntheticFaces:
    """Return faces of which every one shows another person.

    Args:
        count: How many.
        size: Side of the pictures in pixels.
        split: Number of the split; two splits share nobody.
        seed: Which faces.
    """
    return SyntheticFaces(count, size, seed, start=split * SPLIT_STRIDE, pictures_per_identity=1)


def save_jpeg(path: Path, image: np.ndarray | SyntheticFace, quality: int = 95) -> None:
    """Write a picture as JPEG, without chroma subsampling; makes its folder.

    Args:
        path: Where to.
        image: (H, W, 3) uint8 RGB, or a drawn face.
        quality: Of the JPEG, from 1 to 95.
    """
    pixels = image.image if isinstance(image, SyntheticFace) else image
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "JPEG", quality=quality, subsampling=0)


def save_mask(path: Path, mask: np.ndarray) -> None:
    """Write a label map as it is, losslessly; makes its folder.

    Args:
        path: Where to.
        mask: (H, W) uint8 ids, or (H, W, 3) for a layer stored in colours.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def write_points(path: Path, points: np.ndarray, head: str = "") -> None:
    """Write points as text, one per line; makes the folder.

    Args:
        path: Where to.
        points: (N, 2), written to a thousandth of a pixel.
        head: First line, such as their number; nothing is written without.
    """
    lines = [head] if head else []
    lines += [f"{x:.3f} {y:.3f}" for x, y in points.tolist()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="ascii")
