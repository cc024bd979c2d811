"""The scaling benchmark in its short form, in this process, and its arithmetic."""

from __future__ import annotations

import json

import pytest

from benchmarks import common, scaling
from farl_lightning.planning import Tower, Workload
from farl_lightning.planning.arithmetic import _contrast_bytes


@pytest.fixture
def alone(monkeypatch):
    """Processes cost seconds each; what they run is the same here."""
    monkeypatch.setattr(scaling, "run_distributed", lambda fn, count, *args, timeout=0: [fn(*args)] * count)


def test_the_short_form_reports_every_section(alone, tmp_path, capsys):
    assert scaling.main(["--short", "--json", str(tmp_path / "x.json")]) == 0
    rows = json.loads((tmp_path / "x.json").read_text())["verdicts"]
    assert [row["name"] for row in rows] == [
        "a. weak scaling, short",
        "b. contrastive memory",
        "b. with chunk_rows",
        "c. accumulate_contrastive, 2 pairs per part",
    ]
    assert all(row["holds"] is None for row in rows)  # tiny forms are not judged
    assert "32" in capsys.readouterr().out


def test_contrast_takes_the_bytes_that_plans_compute():
    peaks = [scaling.contrast_peak(batch, 16, None) for batch in (64, 128, 256)]
    assert scaling._second_difference((64, 128, 256), peaks) == pytest.approx(scaling.BYTES, rel=0.15)
    chunked = [scaling.contrast_peak(batch, 16, 8) for batch in (64, 128, 256)]
    assert abs(scaling._second_difference((64, 128, 256), chunked)) < 1
    tower = Tower(8, 1, 1, 2)
    work = Workload(tower, 16, 16, True, tower, 10, 16, contrast=True, batch_size=256)
    assert sum(_contrast_bytes(work, 1)) == pytest.approx(peaks[-1], rel=0.15)


def test_the_coefficient_of_a_parabola():
    assert scaling._second_difference((1, 2, 4), [3 * x * x + 5 * x + 7 for x in (1, 2, 4)]) == 3


def test_processes_that_wait_are_found(monkeypatch):
    def slow(fn, count, *args, timeout=0):
        return [[0.1 * count]] * count

    monkeypatch.setattr(scaling, "run_distributed", slow)
    options = scaling.parse_arguments(["--repeats", "2"])
    _, verdicts = scaling.run_weak_scaling(options)
    assert [(verdict.measured, verdict.holds) for verdict in verdicts] == [("50.0%", False)] * 2


def test_overhead_is_judged_for_the_largest_parts_alone(monkeypatch):
    timing = {parts: common.Timing("", (seconds,), (seconds,)) for parts, seconds in ((1, 1.0), (scaling.PARTS, 1.5))}
    monkeypatch.setattr(scaling, "_time_parts", lambda *_: (timing, {1: 400, scaling.PARTS: 100}))
    monkeypatch.setattr(scaling, "time_passes", lambda *_: (1.3, 1.0))
    _, verdicts = scaling.run_accumulation(scaling.parse_arguments([]))
    assert [verdict.holds for verdict in verdicts] == [None, False]
    assert verdicts[1].name == "c. accumulate_contrastive, 32 pairs per part"
    assert verdicts[1].measured == "1.50 x, 4.00 x lower (passes alone 1.30 x)"
