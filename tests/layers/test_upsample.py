"""Learned doubling."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from farl_lightning.layers.upsample import Upsample
from tests.models.conftest import shake


def _plain(module, x):
    """Transposed convolutions as torch has them."""
    for index, conv in enumerate(module.convs):
        x = conv(F.gelu(module.norms[index - 1](x)) if index else x)
    return x


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("doublings", [1, 2, 3])
def test_values_statistics_and_gradients(doublings, training):
    torch.manual_seed(0)
    ours = shake(Upsample(6, doublings)).double().train(training)
    plain = Upsample(6, doublings).double().train(training)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 6, 3, 5, dtype=torch.float64)
    results = []
    for module, run in ((ours, ours), (plain, lambda x: _plain(plain, x))):
        given = x.clone().requires_grad_()
        y = run(given)
        (y * torch.linspace(0, 1, y.numel(), dtype=torch.float64).view_as(y)).sum().backward()
        results.append([y, given.grad, *(p.grad for p in module.parameters()), *module.buffers()])
    assert results[0][0].shape == (2, 6, 3 * 2**doublings, 5 * 2**doublings)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
