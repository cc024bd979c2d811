"""The csv files of HRNet's landmark benchmarks: one face per line, in which 300W and WFLW are read.

A line is ``image_name,scale,center_w,center_h,x0,y0,x1,y1,...``. The box is the square of side ``200 * scale`` around
the centre: 200 pixels is the person size that HRNet's code inherits from human pose estimation.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from farl_lightning.errors import DataError

HALF_SIDE = 100.0
"""Half the side of the box at scale 1, in pixels."""

_LABELS = 4  # columns before the coordinates


class CsvFace(NamedTuple):
    """One line.

    Attributes:
        picture: Name of the picture as written, relative to the folder of pictures.
        box: Left, top, right, bottom in the file's coordinates.
        landmarks: (N, 2) float64, in the file's coordinates.
        problem: What is wrong with the line; empty if nothing is. The numbers then mean nothing.
    """

    picture: str
    box: tuple[float, float, float, float]
    landmarks: npt.NDArray[np.float64]
    problem: str = ""


def read_landmark_csv(path: Path, count: int) -> list[CsvFace]:
    """Read a file of faces; a line that cannot be understood stays in the list, marked.

    Args:
        path: The file; its first line is a header. Empty lines and lines that begin with ``#`` are skipped.
        count: Number of landmarks.

    Returns:
        The faces, in the order of the file.

    Raises:
        DataError: If no line holds a face with so many landmarks: then it is another file.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            rows = [(reader.line_num, row) for reader in [csv.reader(lines)] for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"'{path}' cannot be read: {error}") from error
    faces = [_parse(number, row, count) for number, row in rows[1:] if row and not row[0].startswith("#")]
    if not any(not face.problem for face in faces):
        said = faces[0].problem if faces else "it has no lines after the header"
        raise DataError(f"'{path}' holds no face with {count} landmarks: {said}. Download it again.")
    return faces


def _parse(number: int, row: list[str], count: int) -> CsvFace:
    """Turn one line into a face."""
    wanted = _LABELS + 2 * count
    try:
        if len(row) != wanted:
            raise ValueError(f"{len(row)} columns instead of {wanted}")
        values = np.array(row[1:], np.float64)
        if not np.isfinite(values).all():
            raise ValueError(f"{int((~np.isfinite(values)).sum())} numbers are not finite")
    except ValueError as error:
        return CsvFace(row[0], (0.0, 0.0, 0.0, 0.0), np.zeros((count, 2)), f"line {number}: {error}")
    scale, x, y = values[:3].tolist()
    half = HALF_SIDE * scale
    return CsvFace(row[0], (x - half, y - half, x + half, y + half), values[3:].reshape(count, 2))
