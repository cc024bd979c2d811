"""A fake FaceSynthetics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from farl_lightning.datasets.synthetic import SyntheticFace
from farl_lightning.testing.benchmarks.common import draw_faces, save_mask, write_points

FROM_CELEBAMASK = (0, 12, 1, 15, 7, 8, 5, 6, 3, 4, 2, 9, 11, 10, 13, 16, 17, 255, 255)
"""Id in FaceSynthetics of each id of CelebAMask-HQ. Left and right change their names on the way (the subject's there,
the viewer's here); jewellery has no class of its own and becomes "ignore"."""


def write_face_synthetics(folder: str | Path, count: int = 6, size: int = 128, seed: int = 0) -> list[SyntheticFace]:
    """Write drawn faces as FaceSynthetics.

    Args:
        folder: Where to; made if needed.
        count: Number of faces.
        size: Side of the pictures in pixels.
        seed: Which faces.

    Returns:
        The faces, in the order of the dataset.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    faces = list(draw_faces(count, size, seed=seed))
    for index, face in enumerate(faces):
        name = f"{index:06d}"
        Image.fromarray(face.image).save(folder / f"{name}.png")
        save_mask(folder / f"{name}_seg.png", face_synthetics_mask(face))
        points = np.concatenate([face.landmarks(68), face.landmarks(98)[96:]])
        write_points(folder / f"{name}_ldmks.txt", points + 0.5)  # the files count from the pixels' corner
    return faces


def face_synthetics_mask(face: SyntheticFace) -> npt.NDArray[np.uint8]:
    """Return the labels of a drawn face in FaceSynthetics' ids.

    Args:
        face: The face.

    Returns:
        (H, W) uint8.
    """
    return np.array(FROM_CELEBAMASK, np.uint8)[face.mask_celebamask]
