"""Convolution, batch norm and ReLU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from farl_lightning.layers.conv_norm import ConvNorm, batch_norm
from tests.models.conftest import shake


@pytest.mark.parametrize("kernel", [1, 3])
def test_values_by_hand(kernel):
    torch.manual_seed(0)
    module, x = shake(ConvNorm(3, 4, kernel)).double(), torch.randn(2, 3, 5, 6, dtype=torch.float64)
    plain = nn.functional.conv2d(x, module.conv.weight, padding=kernel // 2)
    mean, variance = plain.mean((0, 2, 3), keepdim=True), plain.var((0, 2, 3), keepdim=True, unbiased=False)
    scaled = (plain - mean) / (variance + 1e-5).sqrt()
    expected = (scaled * module.norm.weight.view(-1, 1, 1) + module.norm.bias.view(-1, 1, 1)).clamp_min(0)
    torch.testing.assert_close(module.train()(x), expected)
    assert module.conv.bias is None


def test_fresh_weights_are_spread_by_the_number_of_outputs():
    torch.manual_seed(0)
    weight = ConvNorm(16, 200, 3).conv.weight
    assert weight.std().item() == pytest.approx((2 / (200 * 9)) ** 0.5, rel=0.05)


def test_a_batch_with_one_value_per_channel_uses_the_running_statistics():
    norm = nn.BatchNorm2d(2)
    norm.running_mean.fill_(1.0)
    x = torch.tensor([3.0, 1.0]).view(1, 2, 1, 1)
    torch.testing.assert_close(batch_norm(norm.train(), x), norm.eval()(x))
    assert norm.running_mean.tolist() == [1.0, 1.0]
    assert norm.num_batches_tracked == 0
    with pytest.raises(ValueError, match="more than 1 value"):
        norm.train()(x)
