"""The bars of dense learning: held at their limits, missed below them, skipped where there are no renders."""

from __future__ import annotations

import json

import pytest

from benchmarks.bars import dense_learning
from benchmarks.bars.dense_learning import Learning
from benchmarks.registry import Finished, Proof
from farl_lightning.testing.benchmarks import write_face_synthetics

SCORES = {"parsing": ("f1_mean", 85.0), "alignment": ("nme", 4.0)}
BARS = {"parsing": dense_learning.parsing, "alignment": dense_learning.alignment}


def judge(tmp_path, kind, seconds=239.0, faces=128, worse=0.0, short=False):
    """Judge a quickstart's results, at values that hold just so unless told."""
    name, value = SCORES[kind]
    value += worse if kind == "alignment" else -worse
    fit = {"metrics": {f"val/{name}": {"value": value}}, "settings": {"data": {"val_count": faces}}}
    proof = Proof(tmp_path, short)
    proof.once(kind, lambda: Learning(seconds, fit))
    return BARS[kind](proof)[1]


@pytest.mark.parametrize("kind", BARS)
def test_quickstarts_hold_at_their_limits(tmp_path, kind):
    assert judge(tmp_path, kind) is True


@pytest.mark.parametrize("kind", BARS)
@pytest.mark.parametrize("missed", [{"seconds": 241.0}, {"faces": 127}, {"worse": 0.01}])
def test_quickstarts_miss_beyond_their_limits(tmp_path, kind, missed):
    assert judge(tmp_path, kind, **missed) is False


@pytest.mark.parametrize("kind", BARS)
def test_a_short_quickstart_is_not_judged(tmp_path, kind):
    assert judge(tmp_path, kind, short=True) is None


@pytest.mark.parametrize("measure", [dense_learning.overfits, dense_learning.renders_measured])
def test_without_renders_nothing_is_judged(monkeypatch, tmp_path, measure):
    monkeypatch.setattr(dense_learning, "shared_renders", lambda: None)
    measured, holds = measure(Proof(tmp_path))
    assert holds is None
    assert "set FARL_SHARED" in measured


def proof_with(monkeypatch, tmp_path, runs, code=0):
    """Return a proof whose benchmark writes these runs."""
    monkeypatch.setattr(dense_learning, "shared_renders", lambda: tmp_path)

    def run(self, name, command, timeout=0):
        folder = tmp_path / name
        folder.mkdir()
        if runs is not None:
            (folder / f"{name}.json").write_text(json.dumps({"runs": runs}))
        return Finished(code, 1.0, "out of luck", tmp_path / "log")

    monkeypatch.setattr(Proof, "run", run)
    proof = Proof(tmp_path)
    proof.once("quickstart", lambda: None)
    checkpoint = tmp_path / "quickstart" / "last.ckpt"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    return proof


def one_run(kind, start, score):
    """Return a run as the benchmark writes it."""
    return {"kind": kind, "start": start, "seconds": 60.0, "metrics": {{"parsing": "f1_mean"}.get(kind, "nme"): score}}


@pytest.mark.parametrize(("score", "holds"), [(97.1, True), (97.0, False)])
def test_eight_renders_are_learned_by_heart_above_the_goal(monkeypatch, tmp_path, score, holds):
    proof = proof_with(monkeypatch, tmp_path, [one_run("parsing", "random", score)], code=int(not holds))
    assert dense_learning.overfits(proof)[1] is holds


def every_run(**changes):
    """Return the runs of two starts on both tasks, and those without looking."""
    names = ("without looking", "random weights", "quickstart pretraining")
    return [one_run(kind, name, changes.get(kind, 50.0)) for kind in ("parsing", "alignment") for name in names]


def test_renders_are_judged_on_being_measured(monkeypatch, tmp_path):
    measured, holds = dense_learning.renders_measured(proof_with(monkeypatch, tmp_path, every_run()))
    assert holds is True
    assert "quickstart pretraining: 50.0 / 50.0" in measured


@pytest.mark.parametrize("runs", [every_run(parsing=float("nan")), every_run()[:-1], every_run()[:3]])
def test_a_missing_number_is_a_missed_bar(monkeypatch, tmp_path, runs):
    assert dense_learning.renders_measured(proof_with(monkeypatch, tmp_path, runs))[1] is False


def test_a_benchmark_that_breaks_is_told(monkeypatch, tmp_path):
    with pytest.raises(RuntimeError, match="out of luck"):
        dense_learning.overfits(proof_with(monkeypatch, tmp_path, None, code=1))


def test_the_short_bar_runs_the_benchmark(monkeypatch, tmp_path):
    write_face_synthetics(tmp_path / "renders", count=8, size=64)
    monkeypatch.setattr(dense_learning, "shared_renders", lambda: tmp_path / "renders")
    measured, holds = dense_learning.overfits(Proof(tmp_path / "proof", short=True))
    assert holds is None
    assert measured.startswith("F1 ")


def test_the_short_quickstart_of_alignment_runs(tmp_path):
    measured, holds = dense_learning.alignment(Proof(tmp_path, short=True))
    assert holds is None
    assert "NME" in measured
    assert "of 8 in" in measured
