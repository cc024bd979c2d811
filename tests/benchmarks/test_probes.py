"""The benchmark of features and probes in its short form, and how it judges."""

from __future__ import annotations

import json

from benchmarks import probes
from benchmarks.common import Timing


def test_the_short_form(tmp_path, capsys):
    assert probes.main(["--short", "--json", str(tmp_path / "x.json")]) == 0
    found = json.loads((tmp_path / "x.json").read_text())
    assert [row["name"] for row in found["verdicts"]] == ["embed", "probe"]
    assert all(row["holds"] is None for row in found["verdicts"])
    assert found["accuracy"]["linear"] > 60
    assert "bare encoder" in capsys.readouterr().out


def test_goals_are_held_against_measurements():
    def judge(embed: float, probe: float) -> list[bool | None]:
        embedding = {"embed": Timing("", (embed,), (embed,)), "bare encoder": Timing("", (9.0,), (9.0,))}
        timings = {name: Timing("", (probe,), (probe,)) for name in ("linear", "ridge", "knn")}
        return [row.holds for row in probes.judge(embedding, timings, {"linear": 80.0}, short=False)]

    assert judge(9.9, 9.9) == [True, True]
    assert judge(10.1, 10.1) == [False, False]
