"""Fake UTKFace, MORPH II, FairFace, RAF-DB and AffectNet: age, gender, race and expression of drawn faces.

Drawings have no race, and fewer expressions than people tell apart: both are dealt out by turns.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from farl_lightning.datasets import affectnet, fairface, rafdb
from farl_lightning.datasets.synthetic import SyntheticFace
from farl_lightning.datasets.synthetic.attributes import CELEBA_ATTRIBUTES
from farl_lightning.testing.benchmarks.common import draw_faces, save_jpeg

_MALE = CELEBA_ATTRIBUTES.index("Male")


def is_male(face: SyntheticFace) -> bool:
    """Tell whether a drawn face is a man's.

    Args:
        face: The face.
    """
    return face.attributes[_MALE] == 1


def write_utkface(folder: str | Path, count: int = 12, size: int = 64, seed: int = 0) -> list[SyntheticFace]:
    """Write drawn faces as UTKFace.

    Args:
        folder: Where to; made if needed.
        count: Number of faces.
        size: Side of the pictures in pixels.
        seed: Which faces.

    Returns:
        The faces, in the order in which they were written: the dates of their names rise, the dataset sorts by name.
    """
    faces = list(draw_faces(count, size, 0, seed))
    for index, face in enumerate(faces):
        name = f"{face.age:.0f}_{int(not is_male(face))}_{index % 5}_201701{index:013d}.jpg.chip.jpg"
        save_jpeg(Path(folder) / "UTKFace" / name, face)
    return faces


def write_morph2(folder: str | Path, count: int = 6, size: int = 64, seed: int = 0) -> list[SyntheticFace]:
    """Write drawn faces as MORPH II, every person twice.

    Args:
        folder: Where to; made if needed.
        count: Number of people.
        size: Side of the pictures in pixels.
        seed: Which people.

    Returns:
        The faces, in the order of the dataset.
    """
    faces = list(draw_faces(count, size, 0, seed))
    for index, face in enumerate(faces):
        for number in range(2):
            name = f"{index:06d}_{number}{'M' if is_male(face) else 'F'}{face.age:.0f}.JPG"
            save_jpeg(Path(folder) / "Album2" / name, face)
    return [face for face in faces for _ in range(2)]


def write_fairface(folder: str | Path, count: int = 7, size: int = 64, seed: int = 0) -> dict[str, list[SyntheticFace]]:
    """Write drawn faces as FairFace.

    Args:
        folder: Where to; made if needed.
        count: Faces in each split.
        size: Side of the pictures in pixels.
        seed: Which faces.

    Returns:
        The faces of each split, in the order of the dataset.
    """
    splits = {}
    for number, (split, part) in enumerate((("train", "train"), ("test", "val"))):
        faces = splits[split] = list(draw_faces(count, size, number, seed))
        lines = ["file,age,gender,race,service_test"]
        for index, face in enumerate(faces):
            file = f"{part}/{index + 1}.jpg"
            save_jpeg(Path(folder) / file, face)
            race = fairface.RACES[index % len(fairface.RACES)]
            lines.append(f"{file},{fairface_age(face)},{fairface.GENDERS[int(not is_male(face))]},{race},True")
        (Path(folder) / f"fairface_label_{part}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return splits


def fairface_age(face: SyntheticFace) -> str:
    """Return the age group of a drawn face.

    Args:
        face: The face.
    """
    lowest = (0, 3, 10, 20, 30, 40, 50, 60, 70)
    return fairface.AGES[sum(face.age >= limit for limit in lowest) - 1]


def write_rafdb(folder: str | Path, count: int = 7, size: int = 64, seed: int = 0) -> dict[str, list[SyntheticFace]]:
    """Write drawn faces as RAF-DB: aligned and original pictures, the latter twice as large. Expressions go by turns.

    Args:
        folder: Where to; made if needed.
        count: Faces in each split.
        size: Side of the aligned pictures in pixels.
        seed: Which faces.

    Returns:
        The faces of each split at the size of the aligned pictures, in the order of the dataset.
    """
    base, lines = Path(folder) / "basic", []
    splits: dict[str, list[SyntheticFace]] = {}
    for number, split in enumerate(rafdb.RAFDB_SPLITS):
        faces, large = (draw_faces(count, side, number, seed) for side in (size, 2 * size))
        splits[split] = list(faces)
        for index, face in enumerate(large):
            stem = f"{split}_{index + 1:05d}"
            lines.append(f"{stem}.jpg {index % 7 + 1}")
            save_jpeg(base / "Image" / "aligned" / f"{stem}_aligned.jpg", faces[index])
            save_jpeg(base / "Image" / "original" / f"{stem}.jpg", face)
            words = [f"{x:.3f}\t{y:.3f}" for x, y in face.five_points.tolist()]
            words += [str(int(not is_male(face))), str(index % 3), str(sum(face.age >= age for age in (4, 20, 40, 70)))]
            _write(base / rafdb.MANUAL / f"{stem}_manu_attri.txt", words)
    _write(base / rafdb.LIST, lines)
    return splits


def write_affectnet(
    folder: str | Path, count: int = 9, size: int = 64, seed: int = 0, first_release: bool = False
) -> dict[str, list[SyntheticFace]]:
    """Write drawn faces as AffectNet. Expressions go by turns from 0 to 8, of which the last is none.

    Args:
        folder: Where to; made if needed.
        count: Faces in each split.
        size: Side of the pictures in pixels.
        seed: Which faces.
        first_release: Lists with boxes, instead of the release of cropped pictures.

    Returns:
        The faces of each split, in the order of the dataset, those without expression included.
    """
    folder, splits = Path(folder), {}
    write = _first_release if first_release else _cropped_release
    for number, split in enumerate(("train", "test")):
        splits[split] = list(draw_faces(count, size, number, seed))
        write(folder, split, splits[split])
    return splits


def _cropped_release(folder: Path, split: str, faces: list[SyntheticFace]) -> None:
    """Write a split as pictures with four small files each, numbers as text."""
    base = folder / f"{'train' if split == 'train' else 'val'}_set"
    (base / "annotations").mkdir(parents=True, exist_ok=True)
    for index, face in enumerate(faces):
        save_jpeg(base / "images" / f"{index}.jpg", face)
        values = {"exp": index % 9, "val": affect(index)[0], "aro": affect(index)[1]}
        for kind, value in values.items():
            np.save(base / "annotations" / f"{index}_{kind}.npy", np.array(str(value)))
        np.save(base / "annotations" / f"{index}_lnd.npy", face.landmarks(68).astype(np.float64).ravel())


def _first_release(folder: Path, split: str, faces: list[SyntheticFace]) -> None:
    """Write a split as one list; that of validation has no header."""
    lines = []
    if split == "train":
        lines.append(
            "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
        )
    for index, face in enumerate(faces):
        file = f"{index % 2}/{split}{index}.jpg"
        save_jpeg(folder / "Manually_Annotated_Images" / file, face)
        left, top, right, bottom = (round(value) for value in face.box)
        points = ";".join(f"{value:.2f}" for value in face.landmarks(68).ravel())
        valence, arousal = affect(index)
        lines.append(f"{file},{left},{top},{right - left},{bottom - top},{points},{index % 9},{valence},{arousal}")
    name = f"{'training' if split == 'train' else 'validation'}.csv"
    _write(folder / "Manually_Annotated_file_lists" / name, lines)


def affect(index: int) -> tuple[float, float]:
    """Return valence and arousal of a fake face: in rising order; that without expression has none.

    Args:
        index: Number of the face in its split.
    """
    return (-2.0, -2.0) if index % 9 == affectnet.EXPRESSIONS.index("contempt") + 1 else (index / 100, -index / 100)


def _write(path: Path, lines: list[str]) -> None:
    """Write a list; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
