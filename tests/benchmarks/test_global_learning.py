"""The bars of labels of the whole face and of identities: held at their limits, missed below them."""

from __future__ import annotations

import pytest

from benchmarks.bars import global_learning
from benchmarks.bars.global_learning import Gain
from benchmarks.registry import Proof


@pytest.mark.parametrize(
    ("gain", "wins"),
    [
        (Gain(60.0, 50.0, 1.0, 19.0), True),  # ten points
        (Gain(59.0, 50.0, 1.0, 17.0), False),
        (Gain(60.0, 50.0, -0.1, 20.1), False),  # chance
        (Gain(86.0, 79.0, 5.0, 9.0), True),  # a third of 21 points
        (Gain(85.9, 79.0, 5.0, 9.0), False),
    ],
)
def test_shares(gain, wins):
    assert gain.wins(percent=True) is wins


@pytest.mark.parametrize(
    ("gain", "wins"),
    [
        (Gain(10.0, 15.0, -7.0, -3.0), True),
        (Gain(10.1, 15.0, -7.0, -3.0), False),
        (Gain(10.0, 15.0, -10.0, 0.1), False),
    ],
)
def test_errors(gain, wins):
    assert gain.wins(percent=False) is wins


METRICS = {"attributes": "accuracy_mean", "expression": "accuracy", "age": "mae", "verification": "accuracy_mean"}


def judge(monkeypatch, tmp_path, config, value, seconds, short=False):
    """Judge what a config is said to have reached."""
    entry = {"value": value, "baseline": 30.0, "low": -1.0, "high": -0.5}
    if config != "age":
        entry |= {"low": 0.5, "high": 1.0}

    def fit(proof, name, file, options):
        assert (name, file) == (config, f"{config}.yaml")
        return seconds, {"metrics": {f"val/{METRICS[config]}": entry}}

    monkeypatch.setattr(global_learning, "fit_as_a_stranger", fit)
    return getattr(global_learning, config)(Proof(tmp_path, short))


@pytest.mark.parametrize(
    ("config", "enough", "too_little"),
    [("attributes", 40.0, 39.9), ("expression", 40.0, 39.9), ("age", 20.0, 20.1), ("verification", 90.0, 89.9)],
)
def test_bars_are_held_at_their_limits(monkeypatch, tmp_path, config, enough, too_little):
    measured, holds = judge(monkeypatch, tmp_path, config, enough, 299.0)
    assert holds is True
    assert f"{enough:.1f}" in measured
    assert judge(monkeypatch, tmp_path, config, too_little, 299.0)[1] is False
    assert judge(monkeypatch, tmp_path, config, enough, 301.0)[1] is False
    assert judge(monkeypatch, tmp_path, config, enough, 299.0, short=True)[1] is None
