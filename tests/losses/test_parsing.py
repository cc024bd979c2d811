"""Parsing losses against sums written out by hand in double precision, with gradients and degenerate input."""

from __future__ import annotations

import math

import pytest
import torch

from farl_lightning.errors import ConfigError
from farl_lightning.losses.parsing import ParsingLoss, dice_loss, parsing_loss, pixel_cross_entropy
from farl_lightning.types import Configurable, from_config


def _batch(batch=3, classes=4, height=5, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, height, width, generator=generator, dtype=torch.float64)
    target = torch.randint(classes, (batch, height, width), generator=generator)
    valid = torch.rand(batch, height, width, generator=generator) < 0.7
    return logits, target, valid


def _slow_entropy(logits, target, counts, weights):
    """One picture, pixel by pixel."""
    total = norm = 0.0
    for y in range(target.shape[0]):
        for x in range(target.shape[1]):
            if counts[y][x]:
                row = [math.exp(v) for v in logits[:, y, x].tolist()]
                label = int(target[y, x])
                total += -weights[label] * math.log(row[label] / sum(row))
                norm += weights[label]
    return total / norm if norm else 0.0


def _slow_dice(logits, target, counts):
    both, called, true = {}, {}, {}
    for y in range(target.shape[0]):
        for x in range(target.shape[1]):
            if counts[y][x]:
                row = [math.exp(v) for v in logits[:, y, x].tolist()]
                label = int(target[y, x])
                true[label] = true.get(label, 0) + 1
                both[label] = both.get(label, 0) + row[label] / sum(row)
                for c, value in enumerate(row):
                    called[c] = called.get(c, 0) + value / sum(row)
    scores = [1 - 2 * both[c] / (called[c] + true[c]) for c in true]
    return sum(scores) / len(scores) if scores else 0.0


def test_plain_loss_is_the_mean_over_pixels_then_pictures():
    logits, target, _ = _batch()
    every = torch.ones_like(target, dtype=torch.bool)
    expected = [_slow_entropy(lo, t, e, [1.0] * 4) for lo, t, e in zip(logits, target, every, strict=True)]
    assert pixel_cross_entropy(logits, target).tolist() == pytest.approx(expected, abs=1e-12)
    assert parsing_loss(logits, target).item() == pytest.approx(sum(expected) / 3, abs=1e-12)


def test_ignored_pixels_valid_mask_and_weights():
    logits, target, valid = _batch()
    target[:, 0] = 255
    weights = [0.5, 2.0, 1.0, 0.0]
    counts = valid & (target != 255)
    expected = [_slow_entropy(lo, t, c, weights) for lo, t, c in zip(logits, target, counts, strict=True)]
    options = {"ignore_index": 255, "class_weights": torch.tensor(weights)}
    assert pixel_cross_entropy(logits, target, valid_mask=valid, **options).tolist() == pytest.approx(
        expected, abs=1e-12
    )
    assert parsing_loss(logits, target, valid=valid, **options).item() == pytest.approx(sum(expected) / 3, abs=1e-12)


def test_dice_by_hand():
    logits, target, valid = _batch(seed=1)
    target[0][target[0] == 2] = 1  # a class that a picture lacks
    target[1, :2] = 255
    counts = valid & (target != 255)
    expected = [_slow_dice(lo, t, c) for lo, t, c in zip(logits, target, counts, strict=True)]
    losses = dice_loss(logits, target, ignore_index=255, valid_mask=valid)
    assert losses.tolist() == pytest.approx(expected, abs=1e-12)
    every = torch.ones_like(valid)
    assert dice_loss(logits[2:], target[2:]).item() == pytest.approx(_slow_dice(logits[2], target[2], every[2]))


def test_perfect_and_opposite_predictions_bound_dice():
    target = torch.randint(3, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    sure = 200.0 * torch.nn.functional.one_hot(target, 3).permute(0, 3, 1, 2).double()
    assert dice_loss(sure, target).tolist() == pytest.approx([0, 0], abs=1e-12)
    assert dice_loss(sure.roll(1, 1), target).tolist() == pytest.approx([1, 1], abs=1e-12)


def test_gradients_numerically():
    logits, target, valid = _batch(2, 3, 3, 4)
    target[0, 0] = 255
    weights = torch.tensor([0.5, 2.0, 1.0])

    def _loss(x):
        return parsing_loss(x, target, ignore_index=255, class_weights=weights, dice=0.7, valid=valid)

    assert torch.autograd.gradcheck(_loss, logits.requires_grad_())


def test_a_picture_without_counted_pixels_adds_zero_and_moves_nothing():
    logits, target, _ = _batch()
    target[1] = 255
    logits.requires_grad_()
    loss = parsing_loss(logits, target, ignore_index=255, dice=1.0)
    loss.backward()
    alone = parsing_loss(logits[[0, 2]], target[[0, 2]], ignore_index=255, dice=1.0)
    assert loss.item() == pytest.approx(alone.item() * 2 / 3)
    assert logits.grad[1].abs().max() == 0
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dice", [0.0, 1.0])
def test_everything_ignored_is_zero_with_finite_gradients(dice):
    logits, target, _ = _batch()
    logits.requires_grad_()
    loss, logs = ParsingLoss(dice=dice, class_weights=[1.0, 2.0, 3.0, 4.0])(logits, torch.full_like(target, 255))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().max() == 0
    assert set(logs) == ({"loss_ce", "loss_dice"} if dice else {"loss_ce"})


def test_flags_leave_out_whole_pictures():
    logits, target, _ = _batch()
    flags = torch.tensor([True, False, True])
    with_flags, _ = ParsingLoss(dice=0.5)(logits, target, flags)
    alone, _ = ParsingLoss(dice=0.5)(logits[flags], target[flags])
    assert with_flags.item() == pytest.approx(alone.item())
    assert ParsingLoss()(logits, target, torch.zeros(3).bool())[0].item() == 0


def test_module_sums_its_parts_and_half_precision_is_lifted():
    logits, target, _ = _batch()
    loss, logs = ParsingLoss(dice=0.25)(logits, target)
    assert loss.item() == pytest.approx((logs["loss_ce"] + 0.25 * logs["loss_dice"]).item())
    assert not logs["loss_ce"].requires_grad
    half, _ = ParsingLoss(dice=0.25)(logits.bfloat16(), target)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(loss.item(), rel=1e-2)


def test_module_is_plain_data():
    loss = from_config(ParsingLoss(None, [1.0, 2.0], 0.5).to_config(), Configurable)
    assert (loss.ignore_index, loss.weights.tolist(), loss.dice) == (None, [1.0, 2.0], 0.5)
    assert not loss.state_dict()


def test_mistakes_are_explained():
    logits, target, _ = _batch()
    with pytest.raises(ConfigError, match=r"logits \(3, 4, 5, 6\)"):
        parsing_loss(logits, target[:, :2])
    with pytest.raises(ConfigError, match="2 numbers for 4 classes"):
        ParsingLoss(class_weights=[1.0, 2.0])(logits, target)
    with pytest.raises(ConfigError, match="0 or more"):
        ParsingLoss(dice=-1)
