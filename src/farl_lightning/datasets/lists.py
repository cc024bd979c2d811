"""Lists in which datasets write one picture per line: its name, then words."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from farl_lightning.errors import DataError


def find_file(root: Path, names: Sequence[str]) -> Path | None:
    """Return the first file that is there.

    Args:
        root: Folder to look in.
        names: Paths relative to it.
    """
    return next((root / name for name in names if (root / name).is_file()), None)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a list that are not empty, without the spaces around them.

    Args:
        path: The file.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror or error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_lists(path: Path, columns: int, header: Sequence[str] = ()) -> dict[str, list[str]]:
    """Read a list of pictures, separated by commas in ``.csv`` and by spaces elsewhere.

    Lines that do not begin with the name of a picture (a count, a header) are passed over, but a header has to name
    the columns in the order that is expected.

    Args:
        path: The file.
        columns: How many words follow the name.
        header: Names of the columns, where they matter.

    Returns:
        The words by picture, in the order of the file; a line with another number of words keeps what it has.

    Raises:
        DataError: If no line has so many words, or the header names other columns.
    """
    lines = read_lines(path)
    rows = list(csv.reader(lines)) if path.suffix == ".csv" else [line.split() for line in lines]
    found = {row[0]: [word.strip() for word in row[1:]] for row in rows if is_picture(row[0])}
    if not any(len(words) == columns for words in found.values()):
        raise DataError(f"'{path}' has no line of a picture and {columns} words; download it again")
    for row in rows[:2]:
        if header and not is_picture(row[0]) and len(row) >= columns and tuple(row[-columns:]) != tuple(header):
            raise DataError(f"'{path}' names its columns {', '.join(row[-columns:][:5])}, ..., in another order")
    return found


def is_picture(word: str) -> bool:
    """Tell whether a word is the name of a picture.

    Args:
        word: The word.
    """
    return word.lower().endswith((".jpg", ".jpeg", ".png", ".bmp"))


def read_numbers(words: Sequence[str], count: int) -> npt.NDArray[np.float32]:
    """Return words as numbers; nan everywhere if there are others than so many, or one is no number.

    Args:
        words: The words.
        count: How many there must be.

    Returns:
        (count,) float32.
    """
    try:
        values = np.array([float(word) for word in words], np.float32)
    except ValueError:
        values = np.empty(0, np.float32)
    return values if values.size == count and np.isfinite(values).all() else np.full(count, np.nan, np.float32)
