"""Activations."""

from __future__ import annotations

import pytest
import torch

from farl_lightning.layers.activation import QuickGELU


@pytest.mark.parametrize("requires_grad", [False, True])
def test_values(requires_grad):
    x = torch.tensor([-2.0, 0.0, 1.0, 30.0], dtype=torch.float64, requires_grad=requires_grad)
    expected = torch.tensor([-2 / (1 + 30.0845), 0.0, 0.845796, 30.0], dtype=torch.float64)
    torch.testing.assert_close(QuickGELU()(x).detach(), expected, rtol=1e-4, atol=1e-6)


def test_gradient():
    x = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(QuickGELU(), x)


def test_does_not_write_into_its_input():
    x = torch.randn(8, requires_grad=True)
    before = x.detach().clone()
    QuickGELU()(x).sum().backward()
    assert torch.equal(x.detach(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_ways_agree(dtype):
    x = (4 * torch.randn(1000)).to(dtype)
    plain = QuickGELU()(x)
    fused = QuickGELU()(x.clone().requires_grad_())
    assert fused.dtype == dtype
    torch.testing.assert_close(fused.detach(), plain, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-3)
