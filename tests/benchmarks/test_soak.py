"""The storm in its short form, and that its count would notice what goes wrong."""

from __future__ import annotations

import random

import pytest

from benchmarks import soak as soak_module
from benchmarks.cuts import Cuts, _moments, compare
from benchmarks.multinode import Lives, Step
from benchmarks.soak import CELLS, Storm, Tally, soak, soak_cable, summary


def test_a_short_storm_is_survived():
    tallies = soak(0, ["one process, 0 workers"], ends=2, epochs=2)
    (tally,) = tallies.values()
    assert tally.kills + tally.signals == 2
    assert tally.finished == 1
    assert tally.holds(), summary(tallies)
    assert summary(tallies).endswith("all survived; samples lost 0, samples repeated 0")


def test_lost_repeated_and_different_samples_are_noticed(tmp_path):
    rows = [[{"step": step, "keys": [f"k{step}"], "loss": "1"} for step in range(3)]]
    storm = Storm(None, {}, tmp_path, random.Random(0), Tally())
    storm._compare(rows, rows)
    assert storm.tally.holds()
    storm._compare(rows, [[rows[0][0], rows[0][0], {**rows[0][2], "loss": "2"}]])
    assert (storm.tally.lost, storm.tally.repeated) == (1, 1)
    assert storm.tally.different == ["rank 0, step 1: keys, step"]
    assert not storm.tally.holds()
    assert "NOT all survived; samples lost 1, samples repeated 1" in summary({"a": storm.tally})


def test_a_soak_that_is_ended_early_tells_what_it_saw(monkeypatch, capsys):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Storm, "ride", stopped)
    with pytest.raises(SystemExit) as ended:
        soak(0, ["one process, 0 workers"], ends=1, epochs=1)
    assert ended.value.code == 130
    assert "ended early" in (out := capsys.readouterr().out)
    assert "0 faults injected, NOT all survived" in out


def test_a_soak_that_fails_tells_what_it_saw_and_leaves_no_checkpoints(monkeypatch, capsys):
    folders = []

    def failing(storm, *_):
        folders.append(storm.folder)
        if len(folders) == 2:
            assert not folders[0].exists()
            raise OSError("the disk is full")

    monkeypatch.setattr(Storm, "ride", failing)
    with pytest.raises(OSError, match="the disk is full"):
        soak(10, ["one process, 0 workers"], ends=1, epochs=1)
    assert "ended early" in capsys.readouterr().out
    assert len(folders) == 2
    assert not folders[1].exists()


def test_there_are_six_cells():
    assert len(CELLS) == 6


def lives(steps: dict[int, tuple[str, str]]) -> Lives:
    return Lives([None], [{number: Step((key,), loss) for number, (key, loss) in steps.items()}])


def test_what_a_cable_loses_repeats_and_changes_is_noticed():
    whole = [lives({1: ("a", "0x1"), 2: ("b", "0x2")}), lives({1: ("c", "0x1"), 2: ("d", "0x2")})]
    assert compare(whole, whole, [1.0, 2.5]) == Cuts(2, 3.5, 0, 0, [])
    found = compare(whole, [lives({1: ("a", "0x1")}), lives({1: ("c", "0x1"), 2: ("d", "0x9"), 3: ("d", "0x3")})], [])
    assert (found.lost, found.repeated) == (1, 1)
    assert found.different == ["rank 0, step 2", "rank 1, step 2"]


def test_cuts_come_early_enough():
    for seed in range(20):
        moments = _moments(random.Random(seed), 20, 50)
        assert moments == sorted(set(moments))
        assert moments[0] >= 1
        assert moments[-1] <= 45
    assert len(_moments(random.Random(0), 20, 10)) == 5


def test_hosts_that_cannot_be_made_are_told(monkeypatch):
    monkeypatch.setattr(soak_module, "obstacle", lambda: "network namespaces need root")
    assert soak_cable(3) == ("two hosts: not tried: network namespaces need root", True)
    monkeypatch.setattr(soak_module, "obstacle", lambda: None)
    monkeypatch.setattr(soak_module, "storm_of_cuts", lambda *_: Cuts(3, 12.0, 1, 0, ["rank 0, step 2"]))
    text, holds = soak_cable(3)
    assert not holds
    assert text == (
        "two hosts: cable cut 3 times, 12 s in all, NOT survived; samples lost 1, samples repeated 0, "
        "different from rank 0, step 2 on"
    )
