"""The bootstrap interval against plain resampling and closed forms."""

from __future__ import annotations

import pytest
import torch

from farl_lightning.functional.bootstrap import bootstrap_sign_interval


def test_plain_resampling_gives_the_same_interval():
    differences = torch.tensor([1.0] * 30 + [-1.0] * 12 + [0.0] * 58)
    generator = torch.Generator().manual_seed(5)
    means = differences[torch.randint(100, (20_000, 100), generator=generator)].mean(1)
    expected = means.quantile(torch.tensor([0.025, 0.975])).tolist()
    low, high = bootstrap_sign_interval(torch.tensor([30]), torch.tensor([12]), torch.tensor([100]))
    assert [low.item(), high.item()] == pytest.approx(expected, abs=0.011)  # means come in steps of 0.01


def test_certain_differences_have_no_width():
    low, high = bootstrap_sign_interval(torch.tensor([0, 50, 0]), torch.tensor([0, 0, 50]), torch.tensor([50, 50, 50]))
    assert low.tolist() == high.tolist() == [0, 1, -1]


def test_seed_fixes_the_draws_and_level_widens():
    counts = torch.tensor([30]), torch.tensor([12]), torch.tensor([100])
    assert bootstrap_sign_interval(*counts) == bootstrap_sign_interval(*counts)
    low, high = bootstrap_sign_interval(*counts, level=0.99)
    inner = bootstrap_sign_interval(*counts, level=0.5)
    assert low < inner[0] < inner[1] < high


def test_no_samples_give_nan():
    low, high = bootstrap_sign_interval(torch.tensor([0]), torch.tensor([0]), torch.tensor([0]))
    assert low.isnan()
    assert high.isnan()
