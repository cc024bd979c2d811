"""Names of groups, and their order."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence


def natural(word: str) -> tuple[tuple[bool, float, str], ...]:
    """Return a key that sorts numbers inside of words by value: "3-9" before "10-19".

    Args:
        word: The word.
    """
    try:
        return ((False, float(word), ""),)
    except ValueError:
        parts = re.split(r"(\d+)", word)
        return tuple((not part.isdecimal(), float(part) if part.isdecimal() else 0.0, part) for part in parts if part)


def bin_name(value: float, limits: Sequence[float]) -> str:
    """Return the name of the interval that a number lies in.

    Args:
        value: The number; nan lies nowhere.
        limits: Rising; an interval begins at its lower limit.

    Returns:
        Such as ``"<30"``, ``"30-60"`` or ``">=60"``; empty for nan.

    Example:
        >>> bin_name(30, [30, 60])
        '30-60'
    """
    if math.isnan(value):
        return ""
    number = sum(value >= limit for limit in limits)
    if number == 0:
        return f"<{limits[0]:g}"
    return f">={limits[-1]:g}" if number == len(limits) else f"{limits[number - 1]:g}-{limits[number]:g}"
