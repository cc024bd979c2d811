"""Contrastive losses against hand computations, and several processes against one."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from farl_lightning.functional.distributed import rank, world_size
from farl_lightning.losses.contrastive import clip_loss, pair_logits, siglip_loss
from farl_lightning.testing.distributed import run_distributed


def _features(count, width=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [F.normalize(torch.randn(count, width, dtype=torch.float64, generator=generator), dim=1) for _ in range(2)]


def test_clip_loss_of_orthogonal_pairs_by_hand():
    features = torch.eye(3, dtype=torch.float64)
    expected = -math.log(math.exp(2) / (math.exp(2) + 2))
    assert clip_loss(features, features, torch.tensor(2.0, dtype=torch.float64)).item() == pytest.approx(
        expected, abs=1e-12
    )


def test_clip_loss_averages_both_directions():
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    text = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)  # logits [[1, 1], [0, 0]]
    image_to_text = math.log(2)
    text_to_image = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(1))) / 2
    loss = clip_loss(image, text, torch.tensor([1.0], dtype=torch.float64))
    assert loss.item() == pytest.approx((image_to_text + text_to_image) / 2, abs=1e-12)


def test_siglip_loss_by_hand():
    image = text = torch.eye(2, dtype=torch.float64)
    loss = siglip_loss(image, text, torch.tensor([3.0], dtype=torch.float64), torch.tensor([-1.0], dtype=torch.float64))
    expected = (2 * math.log(1 + math.exp(-2)) + 2 * math.log(1 + math.exp(-1))) / 2
    assert loss.item() == pytest.approx(expected, abs=1e-12)


def test_extreme_logits_stay_finite_and_exact():
    image = text = torch.eye(2, dtype=torch.float64)
    scale, bias = torch.tensor(100.0, dtype=torch.float64), torch.tensor(-50.0, dtype=torch.float64)
    assert siglip_loss(image, text, scale, bias).item() == pytest.approx(2 * math.exp(-50), rel=1e-9)


@pytest.mark.parametrize("loss", [clip_loss, siglip_loss])
def test_half_precision_is_computed_in_float32(loss):
    image, text = (x.to(torch.bfloat16) for x in _features(4))
    extra = () if loss is clip_loss else (torch.tensor(-3.0),)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(image, text, torch.tensor(100.0), *extra)
    assert value.dtype == torch.float32
    exact = loss(image.double(), text.double(), torch.tensor(100.0).double(), *(x.double() for x in extra))
    assert value.item() == pytest.approx(exact.item(), rel=1e-4)


def _rank_local(loss_name, image, text, scale, bias, gather=True):
    """Return the loss and the raw gradients of this process's share."""
    count = len(image) // world_size()
    share = slice(rank() * count, (rank() + 1) * count)
    leaves = [x.clone().requires_grad_() for x in (image[share], text[share], scale, bias)]
    loss = clip_loss(*leaves[:3], gather=gather) if loss_name == "clip" else siglip_loss(*leaves, gather=gather)
    loss.backward()
    return loss.detach(), *(torch.zeros_like(x) if x.grad is None else x.grad for x in leaves)


@pytest.mark.parametrize("loss_name", ["clip", "siglip"])
@pytest.mark.parametrize("processes", [2, 4])
def test_mean_over_processes_is_the_joint_batch(loss_name, processes):
    image, text = _features(8)
    scale, bias = torch.tensor([14.0], dtype=torch.float64), torch.tensor([-4.0], dtype=torch.float64)
    args = (loss_name, image, text, scale, bias)
    joint = _rank_local(*args)
    parts = list(zip(*run_distributed(_rank_local, processes, *args), strict=True))
    torch.testing.assert_close(torch.stack(parts[0]).mean(), joint[0], rtol=0, atol=1e-12)
    for part, whole in zip(parts[1:3], joint[1:3], strict=True):  # DDP divides the summed gradients by the processes
        torch.testing.assert_close(torch.cat(part) / processes, whole, rtol=0, atol=1e-12)
    for part, whole in zip(parts[3:], joint[3:], strict=True):
        torch.testing.assert_close(torch.stack(part).mean(0), whole, rtol=0, atol=1e-12)


def test_without_gather_each_process_stands_alone():
    image, text = _features(8)
    scale = torch.tensor([14.0], dtype=torch.float64)
    answers = run_distributed(_rank_local, 2, "clip", image, text, scale, scale, False)
    for own, answer in enumerate(answers):
        half = slice(4 * own, 4 * own + 4)
        torch.testing.assert_close(answer[0], clip_loss(image[half], text[half], scale), rtol=0, atol=1e-12)


def _shapes(image, text):
    logits = pair_logits(image, text, torch.ones(1))
    return tuple(logits.logits.shape), logits.targets.tolist()


def test_only_rank_local_rows_are_computed():
    image, text = _features(3)
    assert run_distributed(_shapes, 2, image, text) == [((3, 6), [0, 1, 2]), ((3, 6), [3, 4, 5])]
