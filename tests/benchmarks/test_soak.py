"""The storm in its short form, and that its count would notice what goes wrong."""

from __future__ import annotations

import random

from benchmarks.soak import CELLS, Storm, Tally, soak, summary


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


def test_there_are_six_cells():
    assert len(CELLS) == 6
