"""What the benchmark on real renders and its bars agree on; imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

OVERFIT_GOAL = 97.0
"""F1 in percent of renders that were learned by heart."""

SCORES = {"parsing": "f1_mean", "alignment": "nme"}
"""The score of each task that the table shows, in percent."""


def shared_renders() -> Path | None:
    """Return the renders beside the repository, or None."""
    from tests.shared import SHARED

    folder = None if SHARED is None else SHARED / "real" / "facesynthetics"
    return folder if folder is not None and folder.is_dir() else None
