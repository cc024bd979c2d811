"""The memory benchmark in its short form, and what it compares."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from benchmarks import restore_memory
from benchmarks.restore_memory import Case, Cost, judge

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")


@linux
def test_a_peak_is_measured_from_what_is_held():
    held = torch.ones(4_000_000)  # 16 MB that are there before
    before = restore_memory.reset_peak()
    extra = torch.ones(8_000_000)
    grown = restore_memory.memory("VmHWM") - before
    assert 30e6 < grown < 60e6
    assert held.sum() + extra.sum() == 12_000_000


@linux
def test_the_short_form_runs_in_fresh_processes(tmp_path, capsys):
    assert restore_memory.main(["--short", "--threads", "1", "--json", str(tmp_path / "x.json")]) == 0
    rows = json.loads((tmp_path / "x.json").read_text())["verdicts"]
    assert rows[0]["name"] == "12 megapixels, 19 classes"
    assert rows[0]["holds"] is None  # not judged
    assert "memory above the logits" in capsys.readouterr().out


def test_both_sides_give_the_same_labels():
    pytest.importorskip("facer", reason="pyfacer is not installed")
    case = Case("ours", 120, 90, 2, 5)
    logits = torch.nn.functional.interpolate(torch.randn(2, 5, 14, 14), size=(448, 448), mode="bilinear")
    points = restore_memory.five_points(case)
    for own, peer in zip(*(side(case, logits, points) for side in restore_memory.SIDES.values()), strict=True):
        assert (own == peer).float().mean() > 0.999
        assert len(own.unique()) > 2


def test_goals():
    def cost(grown: float, labels: list[int] | None = None) -> Cost:
        return Cost(int(grown), 1.0, "", labels or [1, 2])

    costs = {"ours": cost(5e7), "ours, 12 megapixels": cost(2e9), "facer": cost(8e8)}
    assert [verdict.holds for verdict in judge(costs, short=False)] == [False, True, True]
    assert [verdict.holds for verdict in judge({**costs, "facer": cost(4e7, [1, 3])}, short=False)] == [False] * 3
    del costs["facer"]
    assert [verdict.holds for verdict in judge(costs, short=False)] == [False, None]
