"""Where the reference numbers and the real pictures are, when they are there at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_CANDIDATE = Path(os.environ.get("FARL_SHARED") or Path(__file__).resolve().parents[2] / "shared")
SHARED: Path | None = _CANDIDATE if (_CANDIDATE / "parity").is_dir() else None

needs_shared = pytest.mark.skipif(
    SHARED is None, reason="reference numbers and real pictures are not here (set FARL_SHARED)"
)
"""Marks a test that cannot run without the shared material; it is skipped visibly."""
