"""Masked-patch losses against hand computations, and uneven processes against one."""

from __future__ import annotations

import math

import pytest
import torch

from farl_lightning.functional.distributed import rank
from farl_lightning.losses.masked_image import masked_pixel_loss, masked_token_loss
from farl_lightning.testing.distributed import run_distributed


def test_token_loss_by_hand():
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]], dtype=torch.float64)
    expected = (math.log(2) + math.log(4 / 3)) / 2
    assert masked_token_loss(logits, torch.tensor([1, 0])).item() == pytest.approx(expected, abs=1e-12)


def test_pixel_loss_by_hand():
    prediction = torch.tensor([[1.0, 3.0], [0.0, 0.0]], dtype=torch.float64)
    targets = torch.tensor([[0.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    assert masked_pixel_loss(prediction, targets).item() == pytest.approx((5 + 2) / 2, abs=1e-12)


@pytest.mark.parametrize("loss", ["token", "pixel"])
def test_nothing_masked_gives_zero_with_a_gradient(loss):
    x = torch.zeros(0, 4, requires_grad=True)
    value = (
        masked_token_loss(x, torch.zeros(0, dtype=torch.int64)) if loss == "token" else masked_pixel_loss(x, x.detach())
    )
    value.backward()
    assert value.item() == 0
    assert x.grad.shape == (0, 4)


def test_half_precision_is_lifted():
    assert masked_token_loss(torch.zeros(2, 4, dtype=torch.bfloat16), torch.tensor([0, 1])).dtype == torch.float32
    half = torch.zeros(2, 4, dtype=torch.bfloat16)
    assert masked_pixel_loss(half, torch.ones(2, 4)).dtype == torch.float32


def _share(loss, weight, inputs, targets, counts):
    """Return the loss and the gradient of a shared weight for this process's rows."""
    weight = weight.clone().requires_grad_()
    start = sum(counts[: rank()])
    rows = slice(start, start + counts[rank()])
    value = (masked_token_loss if loss == "token" else masked_pixel_loss)(inputs[rows] @ weight, targets[rows])
    value.backward()
    return value.detach(), weight.grad


@pytest.mark.parametrize("counts", [(3, 3), (5, 1), (6, 0)])
@pytest.mark.parametrize("loss", ["token", "pixel"])
def test_mean_over_processes_is_the_joint_batch(loss, counts):
    generator = torch.Generator().manual_seed(1)
    inputs, weight = (torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in [(6, 4), (4, 5)])
    targets = torch.randint(5, (6,), generator=generator) if loss == "token" else inputs.new_ones(6, 5)
    joint = _share(loss, weight, inputs, targets, (6,))
    losses, grads = zip(*run_distributed(_share, 2, loss, weight, inputs, targets, counts), strict=True)
    torch.testing.assert_close(torch.stack(losses).mean(), joint[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(torch.stack(grads).mean(0), joint[1], rtol=0, atol=1e-9)
