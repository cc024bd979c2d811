"""What a result is worth: beside the answer that needs no picture, with a bootstrap interval of the difference."""

from __future__ import annotations

from typing import NamedTuple


class Baseline(NamedTuple):
    """The result without any knowledge, on the same faces."""

    value: float
    """In the metric's unit."""
    low: float
    """Lower end of the 95 % bootstrap interval of metric less baseline; nan where there is none."""
    high: float
    """Upper end."""
    kind: str
    """What answers so, such as ``"majority"``."""
