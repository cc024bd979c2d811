"""Zero-shot attributes against counting by hand, alone and over two processes."""

from __future__ import annotations

import pytest
import torch

from farl_lightning.errors import ConfigError
from farl_lightning.functional.distributed import rank
from farl_lightning.metrics import ZeroShotAttributes
from farl_lightning.testing.distributed import run_distributed

NAMES = ("Smiling", "Bald")
LABELS = torch.tensor([[1, 0], [1, 0], [1, 0], [0, 1], [0, -1], [1, 1]])
ANSWERS = torch.tensor([[1, 0], [1, 1], [0, 0], [0, 0], [0, 1], [0, 0]])
VALID = torch.tensor([True, True, True, True, True, False])


def _compute(*parts, **kwargs):
    metric = ZeroShotAttributes(NAMES, **kwargs)
    for part in parts:
        metric.update(*part)
    return {name: round(value.item(), 6) for name, value in metric.compute().items()}


def test_counts_by_hand():
    values = _compute((ANSWERS, LABELS, VALID))
    # Smiling: labels 1 1 1 0 0, answers 1 1 0 0 0; majority: yes, 3 of 5
    assert values["Smiling"] == pytest.approx(4 / 5)
    assert values["Smiling_majority"] == pytest.approx(3 / 5)
    assert values["Smiling_balanced"] == pytest.approx((2 / 3 + 1) / 2, abs=1e-6)
    assert values["Smiling_gain"] == pytest.approx(1 / 5)
    # Bald: labels 0 0 0 1, answers 0 1 0 0; majority: no, 3 of 4
    assert values["Bald"] == pytest.approx(2 / 4)
    assert values["Bald_majority"] == pytest.approx(3 / 4)
    assert values["Bald_balanced"] == pytest.approx((2 / 3 + 0) / 2, abs=1e-6)
    assert values["Bald_gain"] == pytest.approx(-1 / 4)


def test_interval_is_that_of_resampled_samples():
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(200, 1, generator=generator) < 0.3).long()
    flip = torch.rand(200, 1, generator=generator) < 0.15
    answers = torch.where(flip, 1 - labels, labels)
    metric = ZeroShotAttributes(["x"])
    metric.update(answers, labels)
    values = metric.compute()
    gains = (answers == labels).float() - (labels == 0).float()  # the majority is "no"
    draws = gains[torch.randint(200, (20_000, 200), generator=generator), 0].mean(1)
    low, high = draws.quantile(torch.tensor([0.025, 0.975])).tolist()
    assert values["x_gain"].item() == pytest.approx(gains.mean().item(), abs=1e-6)
    assert values["x_gain_low"].item() == pytest.approx(low, abs=0.006)
    assert values["x_gain_high"].item() == pytest.approx(high, abs=0.006)
    assert 0 < values["x_gain_low"] < values["x_gain"] < values["x_gain_high"]


def test_majority_answers_gain_nothing_without_doubt():
    values = _compute((torch.tensor([[1, 0]]).expand(6, 2), LABELS))
    assert [values[f"Smiling_gain{end}"] for end in ("", "_low", "_high")] == [0, 0, 0]
    assert values["Smiling_balanced"] == 0.5


def test_logits_are_accepted():
    logits = torch.nn.functional.one_hot(ANSWERS, 2).float()
    assert _compute((logits, LABELS)) == _compute((ANSWERS, LABELS)) == _compute((ANSWERS.bool(), LABELS))


def _on_rank(parts):
    return _compute(parts[rank()])


def test_uneven_processes_count_every_sample_once():
    parts = [(ANSWERS[:1], LABELS[:1]), (ANSWERS[1:], LABELS[1:], VALID[1:])]
    expected = _compute((ANSWERS, LABELS, VALID))
    assert run_distributed(_on_rank, 2, parts) == [expected, expected]


def test_sides_and_attributes_without_a_label():
    labels = torch.tensor([[1, -1], [1, -1]])
    metric = ZeroShotAttributes(NAMES)
    metric.update(torch.tensor([[1, 0], [0, 1]]), labels)
    values = metric.compute()
    assert values["Smiling_balanced"].item() == 0.5  # over the one side that occurs
    assert all(value.isnan() for name, value in values.items() if name.startswith("Bald"))


def test_mistakes_are_explained():
    with pytest.raises(ConfigError, match="each once"):
        ZeroShotAttributes(["Bald", "Bald"])
    with pytest.raises(ConfigError, match="the 2 columns Smiling, Bald"):
        ZeroShotAttributes(NAMES).update(ANSWERS[:, :1], LABELS[:, :1])
