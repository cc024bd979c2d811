"""Fake lists of pairs in the layouts of LFW, CFP, CALFW and InsightFace, and a folder of people."""

from __future__ import annotations

import dataclasses
import io
import pickle
from pathlib import Path

from PIL import Image

from farl_lightning.datasets.synthetic import SyntheticFace, SyntheticFaces
from farl_lightning.testing.benchmarks.common import save_jpeg

FOLDS = 10


@dataclasses.dataclass(frozen=True)
class DrawnPair:
    """Two drawn faces.

    Attributes:
        first: One picture.
        second: The other.
        fold: Part of the list that the pair belongs to, from 0.
    """

    first: SyntheticFace
    second: SyntheticFace
    fold: int

    @property
    def same(self) -> bool:
        """Whether both show the same person."""
        return self.first.identity == self.second.identity


def draw_pairs(each: int = 1, size: int = 48, seed: int = 0) -> list[DrawnPair]:
    """Return pairs in ten folds: in each first some of the same person, then as many of different people.

    Args:
        each: Pairs of each kind in a fold.
        size: Side of the pictures in pixels.
        seed: Which people.
    """
    faces = SyntheticFaces(4 * each * FOLDS, size, seed, pictures_per_identity=4)
    pairs = []
    for fold in range(FOLDS):
        people = [4 * (fold * each + number) for number in range(each)]
        pairs += [DrawnPair(faces[person], faces[person + 1], fold) for person in people]
        pairs += [DrawnPair(faces[person], faces[(person + 6) % len(faces)], fold) for person in people]
    return pairs


def write_lfw(folder: str | Path, each: int = 1, size: int = 48, seed: int = 0) -> list[DrawnPair]:
    """Write drawn pairs as LFW: ``pairs.txt`` and ``lfw/{person}/{person}_0001.jpg``.

    Args:
        folder: Where to; made if needed.
        each: Pairs of each kind in a fold.
        size: Side of the pictures in pixels.
        seed: Which people.

    Returns:
        The pairs, in the order of the list.
    """
    folder, pairs = Path(folder), draw_pairs(each, size, seed)
    lines = [f"{FOLDS}\t{each}"]
    for pair in pairs:
        names = [(f"Person_{face.identity}", _number(face)) for face in (pair.first, pair.second)]
        for face, (name, number) in zip((pair.first, pair.second), names, strict=True):
            save_jpeg(folder / "lfw" / name / f"{name}_{number:04d}.jpg", face)
        words = [names[0][0], names[0][1], names[1][1]] if pair.same else [*names[0], *names[1]]
        lines.append("\t".join(str(word) for word in words))
    _write(folder / "pairs.txt", lines)
    return pairs


def write_cfp(folder: str | Path, each: int = 1, size: int = 48, seed: int = 0) -> list[DrawnPair]:
    """Write drawn pairs as CFP, frontal against profile; a drawing's second picture stands for the profile.

    Args:
        folder: Where to; made if needed.
        each: Pairs of each kind in a fold.
        size: Side of the pictures in pixels.
        seed: Which people.

    Returns:
        The pairs, in the order of the lists.
    """
    folder, pairs = Path(folder), draw_pairs(each, size, seed)
    for side, name in (("F", "frontal"), ("P", "profile")):
        lines = []
        for number, pair in enumerate(pairs, 1):
            file = f"Data/Images/{number:03d}/{name}/01.jpg"
            save_jpeg(folder / file, pair.first if side == "F" else pair.second)
            lines.append(f"{number} ../{file}")
        _write(folder / "Protocol" / f"Pair_list_{side}.txt", lines)
    for fold in range(FOLDS):
        for name, same in (("same", True), ("diff", False)):
            numbers = [n for n, pair in enumerate(pairs, 1) if pair.fold == fold and pair.same == same]
            path = folder / "Protocol" / "Split" / "FP" / f"{fold + 1:02d}" / f"{name}.txt"
            _write(path, [f"{number},{number}" for number in numbers])
    return pairs


def write_calfw(folder: str | Path, each: int = 1, size: int = 48, seed: int = 0) -> list[DrawnPair]:
    """Write drawn pairs as CALFW: all pairs of the same person first, with the number of their fold; 0 for the others.

    Args:
        folder: Where to; made if needed.
        each: Pairs of each kind in a fold.
        size: Side of the pictures in pixels.
        seed: Which people.

    Returns:
        The pairs, in the order of the list.
    """
    folder, lines = Path(folder), []
    pairs = sorted(draw_pairs(each, size, seed), key=lambda pair: not pair.same)
    for pair in pairs:
        for face in (pair.first, pair.second):
            name = f"Person_{face.identity}_{_number(face):04d}.jpg"
            save_jpeg(folder / "aligned images" / name, face)
            lines.append(f"{name} {pair.fold + 1 if pair.same else 0}")
    _write(folder / "pairs_CALFW.txt", lines)
    return pairs


def write_pairs_bin(
    path: str | Path, each: int = 1, size: int = 48, seed: int = 0, protocol: int = 4
) -> list[DrawnPair]:
    """Write drawn pairs as InsightFace's ``.bin``.

    Args:
        path: The file.
        each: Pairs of each kind in a fold.
        size: Side of the pictures in pixels.
        seed: Which people.
        protocol: Of the pickle.

    Returns:
        The pairs, in the order of the file.
    """
    pairs = draw_pairs(each, size, seed)
    pictures = [encode(face) for pair in pairs for face in (pair.first, pair.second)]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(pickle.dumps((pictures, [pair.same for pair in pairs]), protocol))
    return pairs


def encode(face: SyntheticFace) -> bytes:
    """Return a drawn face as a PNG file.

    Args:
        face: The face.
    """
    stream = io.BytesIO()
    Image.fromarray(face.image).save(stream, "PNG")
    return stream.getvalue()


def write_identities(
    folder: str | Path, people: int = 4, pictures: int = 3, size: int = 48, seed: int = 0
) -> list[SyntheticFace]:
    """Write drawn faces as a training folder, ``{person}/{picture}.jpg``.

    Args:
        folder: Where to; made if needed.
        people: Number of people.
        pictures: Pictures of each.
        size: Side of the pictures in pixels.
        seed: Which people.

    Returns:
        The faces, in the order of the dataset.
    """
    faces = list(SyntheticFaces(people * pictures, size, seed, pictures_per_identity=pictures))
    for index, face in enumerate(faces):
        save_jpeg(Path(folder) / f"{index // pictures:06d}" / f"{index % pictures}.jpg", face)
    return faces


def _number(face: SyntheticFace) -> int:
    """Return the number of a picture among those of its person, from 1."""
    return int(face.key.rpartition("-")[2]) % 4 + 1


def _write(path: Path, lines: list[str]) -> None:
    """Write a list; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
