"""Boxes and points of the faces in photographs, read from a JSON or CSV file that lies beside them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from farl_lightning.errors import DataError, DatasetNotFoundError
from farl_lightning.transforms.places import FacePlace

MAX_BYTES = 256 * 2**20
"""Largest sidecar that is read."""

BOX_COLUMNS = ("left", "top", "right", "bottom")
POINT_COLUMNS = tuple(f"{axis}{number}" for number in range(5) for axis in "xy")

FORMAT = (
    'JSON: {"photo.jpg": [{"box": [left, top, right, bottom], "points": [[x, y], ... five of them]}]}; CSV: a header '
    f"with file, {', '.join(BOX_COLUMNS)} and / or {', '.join(POINT_COLUMNS[:2])}, ... {POINT_COLUMNS[-1]}"
)
"""What a sidecar looks like. Every face needs a box, or points, or both."""


def read_sidecar(path: str | Path) -> dict[str, list[FacePlace]]:
    """Read where faces are.

    Args:
        path: A ``.json`` or ``.csv`` file, see :data:`FORMAT`.

    Returns:
        For each photograph, by its path relative to the folder of photographs, its faces in the file's order.

    Raises:
        DatasetNotFoundError: If the file does not exist.
        DataError: If it is something else, with the place and what is wrong there.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise DatasetNotFoundError(f"'{path}', the file of boxes and points, does not exist. {FORMAT}")
    if path.suffix.lower() not in (".json", ".csv"):
        raise DataError(f"'{path}' is neither .json nor .csv. {FORMAT}")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise DataError(f"'{path}' has {size} bytes; files of boxes over {MAX_BYTES} bytes are not read")
    rows = _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path)
    faces: dict[str, list[FacePlace]] = {}
    for place, file, row in rows:
        found = faces.setdefault(Path(file).as_posix(), [])
        if row is not None:
            found.append(_face(row, f"{path.name}, {place}"))
    return faces


Rows = Iterable[tuple[str, str, Mapping[str, Any] | None]]
"""Where a row stands, the photograph, and the face; no face for a photograph that has none."""


def _json_rows(path: Path) -> Rows:
    """Yield the faces of a JSON file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also UnicodeDecodeError
        raise DataError(f"'{path}' is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"'{path}' holds a {type(content).__name__}, not an object by file names. {FORMAT}")
    for file, faces in content.items():
        faces = [faces] if isinstance(faces, dict) else faces
        if not isinstance(faces, list) or not all(isinstance(face, dict) for face in faces):
            raise DataError(f"{path.name}, '{file}': expected a list of faces. {FORMAT}")
        if not faces:
            yield f"'{file}'", file, None
        yield from ((f"'{file}', face {number}", file, face) for number, face in enumerate(faces))


def _csv_rows(path: Path) -> Rows:
    """Yield the faces of a CSV file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            names = set(reader.fieldnames or ())
            if "file" not in names or not (names >= set(BOX_COLUMNS) or names >= set(POINT_COLUMNS)):
                raise DataError(f"the header of '{path}' is {', '.join(sorted(names)) or 'missing'}. {FORMAT}")
            for row in reader:
                yield f"line {reader.line_num}", row["file"], _csv_face(row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"'{path}' is not valid CSV: {error}") from error


def _csv_face(row: Mapping[str, str | None]) -> dict[str, Any]:
    """Gather the columns of a face; a group of empty cells is left out."""
    face: dict[str, Any] = {"score": row.get("score") or None}
    for name, columns in (("box", BOX_COLUMNS), ("points", POINT_COLUMNS)):
        values = [row.get(column) for column in columns]
        if any(values):
            face[name] = values if name == "box" else [values[start : start + 2] for start in range(0, 10, 2)]
    return face


def _face(row: Mapping[str, Any], where: str) -> FacePlace:
    """Check one face."""
    try:
        return FacePlace.checked(row.get("box"), row.get("points"), row.get("score"))
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: {error}. {FORMAT}") from error
