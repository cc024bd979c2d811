"""The memory benchmark of the margin head in its short form, and its goals."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import margin_memory
from benchmarks.margin_memory import Case, Cost, judge


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_the_short_form_runs_in_fresh_processes(tmp_path, capsys):
    assert margin_memory.main(["--short", "--json", str(tmp_path / "x.json")]) == 0
    found = json.loads((tmp_path / "x.json").read_text())
    assert [row["holds"] for row in found["verdicts"]] == [None, None, None, True]  # sizes are not judged, losses are
    assert found["details"]["1 process"]["centres"] == 2 * found["details"]["2 processes"]["centres"] == 4 * 20_000 * 32
    assert "step above them" in capsys.readouterr().out


def test_goals():
    good = {"1 process": Cost(2000, int(3e8), 1, 9.0), "2 processes": Cost(1000, int(2e8), 1, 9.0)}
    good |= {"a tenth, ours": Cost(200, 300, 1, 8.0), "a tenth, plain": Cost(200, 800, 1, 8.0)}
    assert [verdict.holds for verdict in judge(good, short=False)] == [True] * 4
    bad = {**good, "2 processes": Cost(1000, int(6e8), 1, 9.001), "a tenth, ours": Cost(200, 900, 1, 8.0)}
    assert [verdict.holds for verdict in judge(bad, short=False)] == [True, False, False, False]


def test_full_cases_are_those_of_the_goal():
    assert margin_memory.cases(short=False)["2 processes"] == Case("ours", 1_000_000, 512, 128, 2)
