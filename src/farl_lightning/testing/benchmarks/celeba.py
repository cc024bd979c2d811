"""A fake CelebA and a fake LFWA."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from farl_lightning.datasets.celeba import CELEBA_SPLITS, LFWA_SPLITS
from farl_lightning.datasets.synthetic import SyntheticFace
from farl_lightning.datasets.synthetic.attributes import CELEBA_ATTRIBUTES
from farl_lightning.errors import require
from farl_lightning.testing.benchmarks.common import draw_faces, save_jpeg


def write_celeba(folder: str | Path, count: int = 6, size: int = 64, seed: int = 0) -> dict[str, list[SyntheticFace]]:
    """Write drawn faces as CelebA, with its folders of lists. What a drawing cannot show is written as "no".

    Args:
        folder: Where to; made if needed.
        count: Faces in each split.
        size: Side of the pictures in pixels.
        seed: Which faces.

    Returns:
        The faces of each split, in the order of the dataset.
    """
    folder = Path(folder)
    attributes = [str(3 * count), " ".join(CELEBA_ATTRIBUTES) + " "]
    points = [str(3 * count), "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y ..."]
    partition, identities, splits = [], [], {}
    for number, split in enumerate(CELEBA_SPLITS):
        faces = splits[split] = list(draw_faces(count, size, number, seed))
        for index, face in enumerate(faces):
            name = f"{number * count + index + 1:06d}.jpg"
            save_jpeg(folder / "img_align_celeba" / name, face)
            attributes.append(f"{name} " + " ".join(f"{1 if value == 1 else -1:2d}" for value in face.attributes))
            points.append(f"{name} " + " ".join(f"{value:4.0f}" for value in face.five_points.ravel()))
            partition.append(f"{name} {number}")
            identities.append(f"{name} {face.identity}")
    _write(folder / "Anno" / "list_attr_celeba.txt", attributes)
    _write(folder / "Anno" / "list_landmarks_align_celeba.txt", points)
    _write(folder / "Anno" / "identity_CelebA.txt", identities)
    _write(folder / "Eval" / "list_eval_partition.txt", partition)
    return splits


def write_lfwa(folder: str | Path, count: int = 6, size: int = 64, seed: int = 0) -> dict[str, list[SyntheticFace]]:
    """Write drawn faces as LFWA: MATLAB files with backslashes, attributes in another order and with spaces.

    Args:
        folder: Where to; made if needed.
        count: Faces in each split.
        size: Side of the pictures in pixels.
        seed: Which faces.

    Returns:
        The faces of each split, in the order of the dataset.

    Raises:
        MissingDependencyError: Without SciPy.
    """
    folder, matlab = Path(folder), require("scipy.io", "datasets")
    splits = {split: list(draw_faces(count, size, number, seed)) for number, split in enumerate(LFWA_SPLITS)}
    names: list[str] = []
    rows: list[list[float]] = []
    indices = {}
    for split, faces in splits.items():
        indices[f"indices_img_{split}"] = np.arange(len(names), len(names) + count)[:, None] + 1.0
        for face in faces:
            person = f"Person_{face.identity}"
            save_jpeg(folder / "lfw" / person / f"{person}_0001.jpg", face)
            names.append(f"{person}\\{person}_0001.jpg")
            rows.append([float(value == 1) for value in face.attributes[::-1]])
    words = [name.replace("_", " ") for name in CELEBA_ATTRIBUTES[::-1]]
    cells = {
        "name": np.array([*names, None], object)[:-1, None],
        "AttrName": np.array([*words, None], object)[:-1, None],
    }
    matlab.savemat(str(folder / "lfw_att_40.mat"), {**cells, "label": np.array(rows)})
    matlab.savemat(str(folder / "indices_train_test.mat"), indices)
    return splits


def _write(path: Path, lines: list[str]) -> None:
    """Write a list; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
