"""The bars of the dense quickstarts: what they read, and when they hold."""

from __future__ import annotations

import pytest

from benchmarks.bars import dense_quickstart
from benchmarks.registry import Proof


def proof(folder, parsing: float, alignment: float, seconds: float = 100.0, short: bool = False) -> Proof:
    """A proof whose runs are over."""
    made = Proof(folder, short)
    for name, metric, value in (("parsing", "f1_mean", parsing), ("alignment", "nme", alignment)):
        settings = {"data": {"val_count": 128}}
        fit = {"steps": 900, "settings": settings, "metrics": {f"val/{metric}": {"value": value}}}
        made.once(f"quickstart_{name}", lambda fit=fit: (seconds, fit))
    return made


@pytest.mark.parametrize(("f1", "nme", "seconds", "holds"), [(85.0, 4.0, 239.0, True), (84.9, 4.1, 241.0, False)])
def test_goals(tmp_path, f1, nme, seconds, holds):
    done = proof(tmp_path, f1, nme, seconds)
    assert dense_quickstart.parsing_f1(done) == (f"{f1:.2f} % on 128 unseen faces", holds)
    assert dense_quickstart.alignment_nme(done)[1] is holds
    assert dense_quickstart.parsing_time(done) == (f"{seconds:.0f} s, 900 steps", holds)
    assert dense_quickstart.alignment_time(done)[1] is holds


def test_short_runs_are_not_judged(tmp_path):
    done = proof(tmp_path, 1.0, 99.0, short=True)
    assert dense_quickstart.parsing_f1(done)[1] is None
    assert dense_quickstart.alignment_time(done)[1] is None
