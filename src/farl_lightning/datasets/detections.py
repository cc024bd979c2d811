"""The face detections of LAION-Face: 30 GB of pickled dicts, turned once into tables that are looked up on disk."""

from __future__ import annotations

import importlib
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from farl_lightning.errors import ConfigError, DataError, DatasetNotFoundError

VERSION = 1
INDEX_NAME = "index.json"

_COLUMNS = 15  # left, top, right, bottom; five points (x, y); score
_PART = re.compile(r"(\d+)(?=\.[^.]+$)")
_LEGACY_MAGIC = b"\x80"  # a bare pickle, as torch wrote before 1.6


class Face(NamedTuple):
    """One detected face, in pixels of the picture as it was downloaded."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom."""
    landmarks: tuple[tuple[float, float], ...]
    """Eyes, nose, mouth corners (x, y), left to right in the image; empty when there are none."""
    score: float
    """The detector's certainty, 0 to 1."""


class DetectionTable:
    """Detections by SAMPLE_ID, memory-mapped: a look-up costs a binary search, nothing is loaded beforehand.

    Args:
        folder: As :func:`index_detections` wrote it.

    Raises:
        DatasetNotFoundError: If the folder holds no such table.
        DataError: If the table is damaged or of another version.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        path = self._folder / INDEX_NAME
        if not path.is_file():
            raise DatasetNotFoundError(
                f"detections '{folder}': {path.resolve()} is not there. The folder is written from LAION-Face's "
                "sample2detect_*.pth by: farl-lightning data index-detections"
            )
        index = json.loads(path.read_text(encoding="utf-8"))
        if index.get("version") != VERSION:
            raise DataError(f"detections '{folder}' have version {index.get('version')}; index them again")
        self._parts = [_Part(self._folder / part["name"], part) for part in index["parts"]]

    def __reduce__(self) -> tuple[type[DetectionTable], tuple[str]]:
        """Pickle by the folder: a worker maps the same files instead of receiving a copy."""
        return type(self), (str(self._folder),)

    def __len__(self) -> int:
        """Return the number of pictures with detections."""
        return sum(len(part.ids) for part in self._parts)

    def lookup(self, sample_id: int) -> list[Face] | None:
        """Return the faces of a picture.

        Args:
            sample_id: The picture's SAMPLE_ID.

        Returns:
            The faces in the detector's order; an empty list if it found none; None if the picture is not in the table.
        """
        for part in self._parts:
            if (faces := part.lookup(sample_id)) is not None:
                return faces
        return None


class _Part:
    """One part of the table: sorted ids, where each one's rows begin, rows."""

    def __init__(self, stem: Path, entry: Mapping[str, Any]) -> None:
        self.ids = _open_table(stem, "ids", (entry["samples"],))
        self._starts = _open_table(stem, "starts", (entry["samples"] + 1,))
        self._rows = _open_table(stem, "faces", (entry["faces"], _COLUMNS))

    def lookup(self, sample_id: int) -> list[Face] | None:
        """Return the faces of a picture, None if it is not in this part."""
        place = int(np.searchsorted(self.ids, sample_id))
        if place == len(self.ids) or self.ids[place] != sample_id:
            return None
        rows = self._rows[int(self._starts[place]) : int(self._starts[place + 1])]
        return [_face(row) for row in rows.tolist()]


def index_detections(
    files: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    progress: Callable[[Sequence[Path]], Any] | None = None,
) -> int:
    """Turn ``sample2detect_N.pth`` files into a table, one after the other; parts that are there already are kept.

    A file is read with ``torch.load(weights_only=True)`` and numpy's array types allowed, so nothing in it can execute.
    It is held in memory as a whole, several times its size on disk. Called again after an interruption, it goes on.

    Args:
        files: The files, each a dict int(SAMPLE_ID) -> list of (box, five landmarks, score); written by torch in its
            zip format or the older one.
        folder: Where to write the table.
        progress: Wraps the list of files while it is worked through, such as ``tqdm``.

    Returns:
        Number of pictures in the table.

    Raises:
        DatasetNotFoundError: If a file is not there.
        DataError: If a file is of another format or holds something else.
    """
    paths, target = [Path(file) for file in files], Path(folder)
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise DatasetNotFoundError(f"no such detection file: {', '.join(missing)}")
    names = [_part_name(path) for path in paths]
    if len(set(names)) < len(names):
        raise ConfigError(f"two of the files would become the same part of the table: {', '.join(sorted(names))}")
    target.mkdir(parents=True, exist_ok=True)
    for path in progress(paths) if progress else paths:
        if not _entry_path(target, _part_name(path)).exists():
            _write_part(target, _part_name(path), read_detections(path))
    entries = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(target.glob("*.part.json"))]
    _write_text(target / INDEX_NAME, json.dumps({"version": VERSION, "parts": entries}, indent=1))
    return sum(entry["samples"] for entry in entries)


def read_detections(path: str | os.PathLike[str]) -> dict[int, list[Any]]:
    """Read one ``sample2detect_N.pth`` without letting anything in it execute.

    Args:
        path: The file.

    Raises:
        DataError: If it is neither of torch's formats, needs a class that is not allowed, or is no dict of detections.
    """
    with open(path, "rb") as stream:
        magic = stream.read(1)
    zipped = zipfile.is_zipfile(path)
    if not zipped and magic != _LEGACY_MAGIC:
        raise DataError(f"'{path}' was not written by torch.save: neither a zip archive nor a pickle")
    try:
        with torch.serialization.safe_globals(list(_numpy_globals())):
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # a foreign pickle fails in many ways; none of them may show a stack of frames
        raise DataError(f"'{path}' cannot be read safely: {_cause(error)}") from error
    if not isinstance(loaded, dict) or not all(isinstance(faces, list | tuple) for faces in loaded.values()):
        raise DataError(f"'{path}' holds {type(loaded).__name__}; expected a dict SAMPLE_ID -> list of faces")
    return loaded


def _cause(error: Exception) -> str:
    """Return the sentence that matters of torch's message, which is long and recommends the unsafe way."""
    text = str(error)
    match = re.search(r"WeightsUnpickler error: (.*)", text)
    return (match.group(1) if match else text.splitlines()[0])[:300]


def _numpy_globals() -> Iterator[Any]:
    """Yield what a pickled array or number of numpy's needs, under the names of numpy 1 and of numpy 2."""
    try:
        multiarray = importlib.import_module("numpy._core.multiarray")
    except ModuleNotFoundError:  # numpy 1
        multiarray = importlib.import_module("numpy.core.multiarray")
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        yield multiarray._reconstruct, f"{module}._reconstruct"
        yield multiarray.scalar, f"{module}.scalar"
    yield from (np.ndarray, np.dtype)
    yield from {type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}


def _write_part(folder: Path, name: str, detections: Mapping[Any, Sequence[Any]]) -> None:
    """Write one part; the entry that makes it count comes last."""
    keys = np.fromiter((int(key) for key in detections), dtype=np.int64, count=len(detections))
    order = np.argsort(keys, kind="stable")
    values = list(detections.values())
    counts = np.fromiter((len(values[i]) for i in order), dtype=np.int64, count=len(order))
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    rows = np.empty((int(starts[-1]), _COLUMNS), dtype=np.float32)
    for place, i in enumerate(order):
        for number, face in enumerate(values[i]):
            rows[starts[place] + number] = _row(face, name, int(keys[i]))
    for kind, table in (("ids", keys[order]), ("starts", starts), ("faces", rows)):
        _write_table(folder / name, kind, table)
    entry = {"name": name, "samples": len(keys), "faces": len(rows)}
    _write_text(_entry_path(folder, name), json.dumps(entry))


def _row(face: Any, name: str, sample_id: int) -> np.ndarray[Any, Any]:
    """Put one detection into 15 numbers."""
    try:
        box, landmarks, score = face
        row = np.concatenate([np.ravel(box)[:4], np.ravel(landmarks), np.ravel(score)]).astype(np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: sample {sample_id}: expected (box, landmarks, score), got {face!r:.200}") from error
    if row.shape != (_COLUMNS,):
        raise DataError(f"{name}: sample {sample_id}: {len(row)} numbers instead of {_COLUMNS} (4 + 5 x 2 + 1)")
    return row


def _face(row: Sequence[float]) -> Face:
    """Turn a row into a face."""
    points = tuple((row[i], row[i + 1]) for i in range(4, 14, 2))
    return Face((row[0], row[1], row[2], row[3]), points, row[14])


def _part_name(path: Path) -> str:
    """Name the part of a file: ``part_00003`` for ``sample2detect_3.pth``, else the file's own name."""
    match = _PART.search(path.name)
    return f"part_{int(match.group(1)):05d}" if match else path.stem


def _entry_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.part.json"


def _open_table(stem: Path, kind: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Map a table into memory."""
    path = stem.with_name(f"{stem.name}.{kind}.npy")
    try:
        table: np.ndarray[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"the detection table {path} cannot be read ({error}); index the detections again") from error
    if table.shape != shape:
        raise DataError(f"the detection table {path} has shape {table.shape}, expected {shape}; index it again")
    return table


def _write_table(stem: Path, kind: str, table: np.ndarray[Any, Any]) -> None:
    """Write a table under its final name only when it is complete."""
    path = stem.with_name(f"{stem.name}.{kind}.npy")
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as stream:
        np.save(stream, table, allow_pickle=False)
    os.replace(temporary, path)


def _write_text(path: Path, text: str) -> None:
    """Write a small file under its final name only when it is complete."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
