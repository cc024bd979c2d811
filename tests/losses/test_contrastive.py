"""Contrastive losses against hand computations, and several processes against one."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from farl_lightning.functional.distributed import rank, world_size
from farl_lightning.losses import contrastive
from farl_lightning.losses.contrastive import clip_contrast, clip_loss, info_nce, siglip_contrast, siglip_loss
from farl_lightning.testing.distributed import run_distributed
from farl_lightning.testing.memory import peak_bytes


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


def _rank_local(loss_name, image, text, scale, bias, counts=None, **options):
    """Return the loss, the raw gradients of this process's share, and the accuracy."""
    counts = counts or (len(image) // world_size(),) * world_size()
    first = sum(counts[: rank()])
    share = slice(first, first + counts[rank()])
    leaves = [x.clone().requires_grad_() for x in (image[share], text[share], scale, bias)]
    found = clip_contrast(*leaves[:3], **options) if loss_name == "clip" else siglip_contrast(*leaves, **options)
    found.loss.backward()
    grads = [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves]
    return found.loss.detach(), *grads, found.accuracy


@pytest.mark.parametrize("loss_name", ["clip", "siglip"])
@pytest.mark.parametrize(
    ("counts", "chunk_rows"),
    [((4, 4), None), ((2, 2, 2, 2), None), ((4, 4), 3), ((5, 3), None), ((8, 0), 2), ((1, 4, 0, 3), 2)],
)
def test_mean_over_processes_is_the_joint_batch(loss_name, counts, chunk_rows):
    image, text = _features(8)
    scale, bias = torch.tensor([14.0], dtype=torch.float64), torch.tensor([-4.0], dtype=torch.float64)
    joint = _rank_local(loss_name, image, text, scale, bias)
    assert 0 < joint[-1] < 1
    options = {"counts": counts, "chunk_rows": chunk_rows}
    answers = run_distributed(_rank_local_by, len(counts), options, loss_name, image, text, scale, bias)
    parts = list(zip(*answers, strict=True))
    for index in (0, -1):
        torch.testing.assert_close(torch.stack(parts[index]).mean(), joint[index], rtol=0, atol=1e-12)
    for part, whole in zip(parts[1:3], joint[1:3], strict=True):  # DDP divides the summed gradients by the processes
        torch.testing.assert_close(torch.cat(part) / len(counts), whole, rtol=0, atol=1e-12)
    for part, whole in zip(parts[3:5], joint[3:5], strict=True):
        torch.testing.assert_close(torch.stack(part).mean(0), whole, rtol=0, atol=1e-12)


def _rank_local_by(options, *args):
    return _rank_local(*args, **options)


def test_without_gather_each_process_stands_alone():
    image, text = _features(8)
    scale = torch.tensor([14.0], dtype=torch.float64)
    answers = run_distributed(_rank_local_by, 2, {"gather": False}, "clip", image, text, scale, scale)
    for own, answer in enumerate(answers):
        half = slice(4 * own, 4 * own + 4)
        torch.testing.assert_close(answer[0], clip_loss(image[half], text[half], scale), rtol=0, atol=1e-12)


def _rows_seen(image, text, chunk_rows):
    """Shapes and targets of what the criterion is shown, forward and backward."""
    seen, image = [], image.clone().requires_grad_()

    def criterion(rows):
        seen.append((tuple(rows.logits.shape), rows.targets.tolist()))
        return info_nce(rows)

    counts = contrastive.row_counts(image)
    sides = contrastive._Rows(image, text, torch.ones(1), None, counts, chunk_rows)
    sides.sums(criterion)[0].backward()
    return seen


def test_only_rank_local_rows_are_computed():
    image, text = _features(3)
    assert run_distributed(_rows_seen, 2, image, text, None) == [[((3, 6), [0, 1, 2])], [((3, 6), [3, 4, 5])]]


def test_chunks_are_computed_twice_and_never_whole():
    image, text = _features(3)
    chunks = [((2, 3), [0, 1]), ((1, 3), [2])]
    seen = _rows_seen(image, text, 2)
    assert seen[:2] == chunks  # forward
    assert sorted(seen[2:]) == sorted(chunks)  # anew in the backward pass


@pytest.mark.parametrize("chunk_rows", [None, 16])
def test_memory_grows_with_own_rows_or_with_the_chunk(chunk_rows):
    def peak(own, total):
        image, text = _features(total)
        image, text = image.requires_grad_(), text.requires_grad_()

        def step():
            rows = contrastive._Rows(image[:own], text, torch.ones(1), None, None, chunk_rows)
            rows.sums(info_nce)[0].backward()

        return peak_bytes(step)

    matrix = 128 * 1024 * 8  # bytes of a block of float64
    slope = (peak(256, 1024) - peak(128, 1024)) / matrix
    if chunk_rows is None:
        assert 2 <= slope <= 5  # logits, their log-softmax, and gradients of these
    else:
        assert slope < 0.1  # but for features and their gradients
        assert peak(256, 1024) < 5 * 16 * 1024 * 8 + 12 * 1024 * 8 * 8
