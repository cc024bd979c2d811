"""A fake AFLW-19: Flickr's folders and ``AFLWinfo_release.mat``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from farl_lightning.datasets.aflw19 import split_rows
from farl_lightning.errors import require
from farl_lightning.testing.benchmarks.common import draw_faces, save_jpeg
from farl_lightning.testing.benchmarks.landmarks import Placed

HIDING_YAW = 8.0
"""Degrees of turn from which the outer points of the far side count as hidden."""

_LEFT, _RIGHT = (0, 6, 12), (5, 11, 14)  # outer end of the brow, outer eye corner, side of the nose


def write_aflw19(folder: str | Path, count: int = 12, size: int = 128, seed: int = 0) -> dict[str, list[Placed]]:
    """Write drawn faces as AFLW-19.

    Args:
        folder: Where to; made if needed.
        count: Faces altogether; the first 20000/24386 of the permutation are for training.
        size: Side of the pictures in pixels.
        seed: Which faces, and the permutation.

    Returns:
        The faces of "train", "full" and "frontal", in the order of the reader.

    Raises:
        MissingDependencyError: If SciPy is not installed.
    """
    folder = Path(folder)
    faces = draw_faces(count, size, 0, seed)
    placed = [Placed(face, f"{(0, 2, 3)[i % 3]}/image{i:05d}.jpg") for i, face in enumerate(faces)]
    for item in placed:
        save_jpeg(folder / "data/flickr" / item.picture, item.face)
    visible = np.stack([visible_points(item.face.yaw) for item in placed])
    permutation = np.random.default_rng(seed).permutation(count)
    _write_mat(folder / "AFLWinfo_release.mat", placed, visible, permutation)
    rows = {split: split_rows(permutation, split).tolist() for split in ("train", "full")}
    rows["frontal"] = [row for row in rows["full"] if visible[row].all()]
    return {split: [placed[row] for row in rows[split]] for split in rows}


def visible_points(yaw: float) -> npt.NDArray[np.bool_]:
    """Return which of the 19 landmarks are called visible: the far side of a turned face hides its outer points.

    Args:
        yaw: Degrees, positive: turned towards the image's right.
    """
    visible = np.ones(19, bool)
    if abs(yaw) > HIDING_YAW:
        visible[list(_RIGHT if yaw > 0 else _LEFT)] = False
    return visible


def _write_mat(
    path: Path, placed: list[Placed], visible: npt.NDArray[np.bool_], permutation: npt.NDArray[np.int64]
) -> None:
    """Write the file with the variables and shapes of the official one."""
    names = np.empty((len(placed), 1), object)
    names[:, 0] = [item.picture for item in placed]
    boxes = [[left, right, top, bottom] for left, top, right, bottom in (item.face.box for item in placed)]
    variables = {
        "bbox": np.array(boxes, np.float64),
        "data": np.stack([item.landmarks(19).astype(np.float64).T.reshape(-1) for item in placed]),
        "mask_new": visible.astype(np.uint8),
        "nameList": names,
        "ra": permutation[None].astype(np.float64) + 1,
    }
    require("scipy.io", "datasets").savemat(str(path), variables, do_compression=True)
