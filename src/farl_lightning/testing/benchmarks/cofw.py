"""A fake COFW: two MATLAB 7.3 files with pictures, landmarks and flags of occlusion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from farl_lightning.datasets.cofw import MATLAB_OFFSET
from farl_lightning.datasets.synthetic import SyntheticFace, SyntheticFaces
from farl_lightning.datasets.synthetic.landmarks import Part
from farl_lightning.errors import require
from farl_lightning.testing.benchmarks.common import draw_faces
from farl_lightning.testing.benchmarks.landmarks import take_points

COFW_PARTS: tuple[Part, ...] = (
    *(("brow_line_left", (0,)), ("brow_line_right", (0,)), ("brow_line_left", (8,)), ("brow_line_right", (8,))),
    *(("brow_left", (4, 13)), ("brow_right", (4, 13))),
    *(("eye_left", (0,)), ("eye_right", (0,)), ("eye_left", (12,)), ("eye_right", (12,))),
    *(("eye_left", (6, 18)), ("eye_right", (6, 18))),
    *(("pupil_left", (-1,)), ("pupil_right", (-1,))),
    *(("nose", (11, 7)), ("bridge", (3,)), ("nose", (9,))),
    *(("upper_lip", (0, 12, 6, 19)), ("lower_lip", (19, 6)), ("jaw", (16,))),
)
"""Where the 29 landmarks lie on the curves of a drawn face."""

_FILES = {"train": ("COFW_train_color.mat", "Tr"), "test": ("COFW_test_color.mat", "T")}
_EYES = tuple(range(8, 18))


def cofw_landmarks(face: SyntheticFace) -> npt.NDArray[np.float32]:
    """Return the 29 landmarks of a drawn face.

    Args:
        face: The face.

    Returns:
        (29, 2) float32 in pixels, pixel centres at integers.
    """
    return take_points(face, COFW_PARTS)


def cofw_occluded(face: SyntheticFace) -> npt.NDArray[np.bool_]:
    """Return which of the 29 landmarks are occluded: the eyes behind sunglasses.

    Args:
        face: The face.
    """
    occluded = np.zeros(29, bool)
    if face.look.glasses is not None and face.look.glasses.kind == "sun":
        occluded[list(_EYES)] = True
    return occluded


def write_cofw(folder: str | Path, count: int = 6, size: int = 128, seed: int = 0) -> dict[str, list[SyntheticFace]]:
    """Write drawn faces as COFW; the last picture of each file is grey, as some of the real ones are.

    Args:
        folder: Where to; made if needed.
        count: Faces in each of "train" and "test".
        size: Height of the pictures in pixels; their width is larger by a quarter, with nothing in it.
        seed: Which faces.

    Returns:
        The faces of each split, in order.

    Raises:
        MissingDependencyError: If h5py is not installed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for number, (split, (name, suffix)) in enumerate(_FILES.items()):
        faces = draw_faces(count, size, number, seed)
        _write_mat(folder / name, suffix, faces)
        found[split] = list(faces)
    return found


def _write_mat(path: Path, suffix: str, faces: SyntheticFaces) -> None:
    """Write a file with the variables and axes that MATLAB gives it: last axis first."""
    h5py = require("h5py", "datasets")
    points = np.stack([cofw_landmarks(face).T.reshape(-1) + MATLAB_OFFSET for face in faces])
    occluded = np.stack([cofw_occluded(face) for face in faces])
    boxes = np.array([(left, top, right - left, bottom - top) for left, top, right, bottom in _boxes(faces)])
    with h5py.File(path, "w", userblock_size=512) as file:
        file[f"phis{suffix}"] = np.concatenate([points, occluded], axis=1).astype(np.float64).T
        file[f"bboxes{suffix}"] = (boxes + np.array([MATLAB_OFFSET, MATLAB_OFFSET, 0, 0])).T
        cells = file.create_dataset(f"Is{suffix}", (1, len(faces)), h5py.ref_dtype)
        for i, face in enumerate(faces):
            cells[0, i] = _picture(file, f"#refs#/{i}", face, grey=i == len(faces) - 1).ref


def _boxes(faces: SyntheticFaces) -> list[tuple[float, float, float, float]]:
    return [face.box for face in faces]


def _picture(file: Any, name: str, face: SyntheticFace, *, grey: bool) -> Any:
    """Write one picture, wider than high so that exchanged axes are noticed."""
    pixels = np.pad(face.image, ((0, 0), (0, face.size // 4), (0, 0)))
    if grey:
        pixels = pixels.mean(axis=2).round().astype(np.uint8)
    return file.create_dataset(name, data=pixels.T)
