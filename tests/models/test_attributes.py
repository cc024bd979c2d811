"""facer's attribute network."""

from __future__ import annotations

import pytest
import torch

from farl_lightning.errors import ConfigError
from farl_lightning.models.attributes import FaceAttributes
from farl_lightning.models.config import GlobalConfig
from farl_lightning.models.heads.attributes import AttributeHead
from tests.models import dense, plain
from tests.models.conftest import shake


def _layer_norm(norm, x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias


@pytest.mark.parametrize("taps", [(-1,), (1,), (0, -1, 2)])
def test_values(taps):
    torch.manual_seed(0)
    network = shake(FaceAttributes(GlobalConfig(dense.tiny().image, taps), 7)).double().eval()
    assert network.taps == {(-1,): (3,), (1,): (1,), (0, -1, 2): (0, 3, 2)}[taps]
    images = torch.randn(2, 3, 50, 70, dtype=torch.float64)
    tokens = plain.tokens(network.encoder, dense.up(images, (64, 64)))
    vectors = []
    for tap in network.taps:
        patches = tokens[tap][:, 1:]
        vectors += [patches.mean(1), patches.max(1).values, tokens[tap][:, 0]]
    shares = network.head.weights.flatten().exp() / network.head.weights.exp().sum()
    mixed = sum(
        share * _layer_norm(norm, v) for share, norm, v in zip(shares, network.head.norms, vectors, strict=True)
    )
    expected = mixed @ network.head.classify.weight.T + network.head.classify.bias
    torch.testing.assert_close(network(images), expected)
    network(images).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_fresh_mixture_is_even():
    head = AttributeHead(4, 2, num_taps=2)
    assert head.weights.softmax(1).flatten().tolist() == pytest.approx([1 / 6] * 6)


def test_no_attributes():
    with pytest.raises(ConfigError, match="got 0"):
        FaceAttributes(GlobalConfig(dense.tiny().image), 0)
