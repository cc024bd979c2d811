"""The timing helper, and how verdicts become exit codes."""

from __future__ import annotations

import argparse
import json
import time

import pytest

from benchmarks import common
from benchmarks.common import Timing, Verdict


def timing(name: str, *seconds: float) -> Timing:
    return Timing(name, seconds, seconds)


def test_interleave_takes_turns_and_leaves_the_warmup_out():
    calls = []
    timings = common.interleave({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3, warmup=2)
    assert calls == ["a", "b"] * 5
    assert [len(t.seconds) for t in timings.values()] == [3, 3]


def test_interleave_measures_wall_and_processor_time():
    (slept,) = common.interleave({"sleep": lambda: time.sleep(0.02)}, repeats=3, warmup=0).values()
    assert 0.02 <= slept.median < 1
    assert sum(slept.cpu_seconds) < 0.05


def test_speedup_is_the_median_of_the_ratios_of_each_round():
    # ratios 4, 2, 1: the ratio of the medians would be 6 / 2 = 3
    assert common.speedup(timing("peer", 4, 12, 6), timing("ours", 1, 6, 6)) == 2


def test_speedup_refuses_timings_of_different_length():
    with pytest.raises(ValueError, match="shorter"):
        common.speedup(timing("peer", 1, 2), timing("ours", 1))


def test_spread_is_the_distance_of_the_quartiles():
    assert timing("a", 1, 2, 3, 4, 5).spread == pytest.approx(3 / 3)
    assert timing("a", 1, 2, 3).spread == 0


def test_format_table_aligns_columns():
    table = common.format_table(["name", "x"], [["a", "1"], ["longer", "2"]])
    assert table == "name    x\n------  -\na       1\nlonger  2"


@pytest.mark.parametrize(
    ("verdict", "word"),
    [
        (Verdict("a", ">= 1", "2", True), "holds"),
        (Verdict("a", ">= 1", "0", False), "DOES NOT HOLD"),
        (Verdict("a", ">= 1", "no such hardware", None), "not applicable"),
        (Verdict("a", "reported", "7", None), "reported"),
    ],
)
def test_word_of_a_verdict(verdict, word):
    assert verdict.word == word


@pytest.mark.parametrize(
    ("require", "holds", "code"), [(True, False, 1), (False, False, 0), (True, True, 0), (True, None, 0)]
)
def test_only_a_missed_goal_that_is_required_fails(require, holds, code, tmp_path, capsys):
    args = argparse.Namespace(require=require, json=tmp_path / "new" / "out.json")
    assert common.finish(args, {"a": timing("a", 1, 3)}, [Verdict("v", "g", "m", holds)], note="kept") == code
    assert "v" in capsys.readouterr().out
    written = json.loads(args.json.read_text())
    assert written["timings"]["a"]["median"] == 2
    assert written["verdicts"] == [{"name": "v", "goal": "g", "measured": "m", "holds": holds}]
    assert written["note"] == "kept"
    assert written["machine"]["cores"] >= 1


def test_the_machine_is_described_in_general_terms():
    described = common.machine()
    assert isinstance(described["native_bf16"], bool)
    assert not {"hostname", "node", "path", "user"} & set(described)
