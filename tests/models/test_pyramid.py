"""FaRL's feature pyramid."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from farl_lightning.errors import ConfigError
from farl_lightning.models.pyramid import FeaturePyramid
from tests.models import dense
from tests.models.conftest import shake


@pytest.mark.parametrize(("patch_size", "sides"), [(16, [28, 14, 7, 3]), (14, [28, 14, 7, 3]), (8, [14, 7, 3, 1])])
def test_levels_of_an_odd_grid(patch_size, sides):
    torch.manual_seed(0)
    neck = shake(FeaturePyramid(6, patch_size)).double().eval()
    maps = [torch.randn(2, 6, 7, 7, dtype=torch.float64) for _ in range(4)]
    levels = neck(maps)
    assert [level.shape[-1] for level in levels] == sides
    for ours, plain in zip(levels, dense.pyramid(neck, maps, patch_size), strict=True):
        torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize(("patch_size", "sides"), [(32, [64, 32, 16, 8]), (4, [8, 4, 2, 1])])
def test_other_patches_keep_the_strides(patch_size, sides):
    levels = FeaturePyramid(2, patch_size)([torch.randn(1, 2, 8, 8)] * 4)
    assert [level.shape[-1] for level in levels] == sides


def test_rectangles():
    levels = FeaturePyramid(2, 16)([torch.randn(1, 2, 3, 5)] * 4)
    assert [tuple(level.shape[2:]) for level in levels] == [(12, 20), (6, 10), (3, 5), (1, 2)]


def test_norm_and_activation_lie_between_the_two_doublings():
    neck = FeaturePyramid(1, 16).eval()
    convs, norm = neck.levels[0].convs, neck.levels[0].norms[0]
    with torch.no_grad():
        for conv, weight, bias in zip(convs, (2.0, 3.0), (0.0, 1.0), strict=True):
            conv.weight.fill_(weight)
            conv.bias.fill_(bias)
        norm.running_mean.fill_(0.5)
    level = neck([torch.full((1, 1, 2, 2), -1.0)] * 4)[0]
    expected = 3 * F.gelu(torch.tensor((2 * -1.0 - 0.5) / (1 + 1e-5) ** 0.5)) + 1
    torch.testing.assert_close(level, expected.expand(1, 1, 8, 8))


def test_what_does_not_fit():
    with pytest.raises(ConfigError, match="got 3"):
        FeaturePyramid(2, 16)([torch.zeros(1, 2, 4, 4)] * 3)
    with pytest.raises(ConfigError, match="3 x 3 patches are too small; this pyramid takes 4 x 4"):
        FeaturePyramid(2, 8)([torch.zeros(1, 2, 3, 3)] * 4)
    with pytest.raises(ConfigError, match="patch_size above 0"):
        FeaturePyramid(2, 0)
