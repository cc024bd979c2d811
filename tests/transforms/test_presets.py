from __future__ import annotations

import pytest
import torch

from farl_lightning.functional.random import keyed_rng
from farl_lightning.transforms.presets import Photometric

PICTURE = torch.arange(3 * 32 * 32).remainder(251).view(3, 32, 32).to(torch.uint8)


def test_zero_strengths_change_nothing():
    assert torch.equal(Photometric()(PICTURE), PICTURE)


@pytest.mark.parametrize(
    "settings",
    [
        {"brightness": 0.5},
        {"contrast": 0.5},
        {"saturation": 0.5},
        {"hue": 0.4},
        {"grayscale": 1.0},
        {"blur": 1.0, "blur_sigma": (1.0, 1.5)},
    ],
)
def test_every_strength_acts_and_repeats_by_key(settings):
    change = Photometric(**settings)
    results = []
    for key in ("a", "a", "b"):
        with keyed_rng(0, key):
            results.append(change(PICTURE))
    assert results[0].shape == PICTURE.shape
    assert results[0].dtype == torch.uint8
    assert not torch.equal(results[0], PICTURE)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2]) == ("grayscale" in settings)


def test_brightness_stays_in_its_range():
    change, grey = Photometric(brightness=0.25), torch.full((3, 4, 4), 100, dtype=torch.uint8)
    torch.manual_seed(0)
    means = [change(grey).float().mean().item() for _ in range(200)]
    assert 74 <= min(means) < 80
    assert 120 < max(means) <= 125


def test_grayscale_makes_the_channels_equal():
    grey = Photometric(grayscale=1.0)(PICTURE)
    assert torch.equal(grey[0], grey[1])
    assert torch.equal(grey[1], grey[2])


def test_jitter_is_the_probability_of_the_colour_changes():
    assert torch.equal(Photometric(brightness=0.9, hue=0.5, jitter=0.0)(PICTURE), PICTURE)
