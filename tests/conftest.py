"""What every test is given."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_seed_is_left_behind() -> Iterator[None]:
    """Forget the seed of a run in this process; Lightning keeps it in the environment, where later runs find it."""
    yield
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        os.environ.pop(name, None)
