"""Losses of attributes and classes, by hand in float64; unknown labels neither count nor reach the gradient."""

from __future__ import annotations

import math

import pytest
import torch

from farl_lightning.errors import ConfigError
from farl_lightning.losses import AttributeLoss, ClassificationLoss
from farl_lightning.losses.reduce import mean_known

LOGITS = torch.tensor([[0.3, -2.0, 5.0], [1.5, 0.0, -0.7]], dtype=torch.float64)
LABELS = torch.tensor([[1, 0, -1], [-1, 1, 0]])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_attributes_by_hand():
    loss = AttributeLoss([2.0, 1.0, 3.0])(LOGITS, LABELS)
    assert loss.known.tolist() == [[True, True, False], [False, True, True]]
    expected = [
        *(-2 * math.log(sigmoid(0.3)), -math.log(1 - sigmoid(-2.0))),
        *(-math.log(0.5), -math.log(1 - sigmoid(-0.7))),
    ]
    assert loss.values[loss.known].tolist() == pytest.approx(expected, rel=1e-12)
    assert mean_known(loss.values, loss.known).item() == pytest.approx(sum(expected) / 4, rel=1e-12)


@pytest.mark.parametrize(("smoothing", "weights"), [(0.0, None), (0.1, None), (0.0, [1.0, 0.5, 4.0])])
def test_classes_by_hand(smoothing, weights):
    labels = torch.tensor([2, -1])
    loss = ClassificationLoss(smoothing, weights)(LOGITS, labels)
    shares = [math.exp(x) for x in LOGITS[0].tolist()]
    logs = [math.log(share / sum(shares)) for share in shares]
    truth = [smoothing / 3 + (1 - smoothing) * (index == 2) for index in range(3)]
    expected = -sum(t * log for t, log in zip(truth, logs, strict=True)) * (weights or [1.0] * 3)[2]
    assert loss.known.tolist() == [True, False]
    assert loss.values[0].item() == pytest.approx(expected, rel=1e-12)


def test_unknown_labels_have_no_gradient():
    logits = LOGITS.clone().requires_grad_()
    loss = AttributeLoss()(logits, LABELS)
    mean_known(loss.values, loss.known).backward()
    assert logits.grad.eq(0).tolist() == LABELS.eq(-1).tolist()
    logits.grad = None
    loss = ClassificationLoss()(logits, torch.tensor([-1, -1]))
    value = mean_known(loss.values, loss.known)
    value.backward()
    assert value == 0
    assert not logits.grad.any()


def test_half_precision_is_lifted():
    assert AttributeLoss()(LOGITS.half(), LABELS).values.dtype == torch.float32
    assert ClassificationLoss()(LOGITS.bfloat16(), torch.tensor([0, 1])).values.dtype == torch.float32


def test_what_cannot_work():
    with pytest.raises(ConfigError, match="2 numbers for 3 attributes"):
        AttributeLoss([1.0, 2.0])(LOGITS, LABELS)
    with pytest.raises(ConfigError, match="must both be"):
        AttributeLoss()(LOGITS, LABELS[:, :2])
    with pytest.raises(ConfigError, match="positive_weights must be 0 or more"):
        AttributeLoss([-1.0])
    with pytest.raises(ConfigError, match="2 numbers for 3 classes"):
        ClassificationLoss(class_weights=[1.0, 2.0])(LOGITS, torch.tensor([0, 1]))
    with pytest.raises(ConfigError, match=r"labels \(2, 3\) \(B,\)"):
        ClassificationLoss()(LOGITS, LABELS)
    with pytest.raises(ConfigError, match=r"label_smoothing=1.0"):
        ClassificationLoss(1.0)
