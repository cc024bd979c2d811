"""Ways to learn an age: loss and answer of each by hand in float64, and each learns."""

from __future__ import annotations

import math

import pytest
import torch

from farl_lightning.errors import ConfigError
from farl_lightning.losses import (
    AgeDistribution,
    AgeExpectation,
    AgeMeanVariance,
    AgeOrdinal,
    AgeRegression,
)
from farl_lightning.losses.reduce import mean_known

ALL = [AgeExpectation, AgeMeanVariance, AgeDistribution, AgeOrdinal, AgeRegression]
OUTPUTS = torch.tensor([[0.2, 1.0, -0.5, 2.0], [0.0, 0.0, 3.0, -1.0]], dtype=torch.float64)
AGES = torch.tensor([21.6, 20.4], dtype=torch.float64)


def softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(x) for x in row)
    return [math.exp(x) / total for x in row]


def mean(row: list[float]) -> float:
    return sum(share * year for share, year in zip(softmax(row), range(20, 24), strict=True))


def test_expectation_by_hand():
    method = AgeExpectation(20, 23)
    assert method.num_outputs == 4
    loss = method.loss(OUTPUTS, AGES)
    rows = OUTPUTS.tolist()
    assert loss.values.tolist() == pytest.approx([-math.log(softmax(rows[0])[2]), -math.log(softmax(rows[1])[0])])
    assert method.decode(OUTPUTS).tolist() == pytest.approx([mean(rows[0]), mean(rows[1])], rel=1e-12)


def test_mean_variance_by_hand():
    loss = AgeMeanVariance(20, 23).loss(OUTPUTS, AGES)
    for row, age, label, value in zip(OUTPUTS.tolist(), AGES.tolist(), (2, 0), loss.values.tolist(), strict=True):
        shares, m = softmax(row), mean(row)
        variance = sum(p * (year - m) ** 2 for p, year in zip(shares, range(20, 24), strict=True))
        assert value == pytest.approx(-math.log(shares[label]) + 0.2 * (m - age) ** 2 / 2 + 0.05 * variance, rel=1e-12)
    assert set(loss.parts) == {"loss_ce", "loss_mean", "loss_variance"}


def test_distribution_by_hand():
    loss = AgeDistribution(20, 23, sigma=1.5).loss(OUTPUTS, AGES)
    for row, age, value in zip(OUTPUTS.tolist(), AGES.tolist(), loss.values.tolist(), strict=True):
        truth = softmax([-((year - age) ** 2) / (2 * 1.5**2) for year in range(20, 24)])
        divergence = sum(t * math.log(t / p) for t, p in zip(truth, softmax(row), strict=True))
        assert value == pytest.approx(divergence + abs(mean(row) - age), rel=1e-12)


def test_ordinal_by_hand():
    method = AgeOrdinal(20, 24)
    assert method.shared
    loss = method.loss(OUTPUTS, torch.tensor([21.6, 24.0], dtype=torch.float64))
    for row, older, value in zip(OUTPUTS.tolist(), (2, 4), loss.values.tolist(), strict=True):
        p = [1 / (1 + math.exp(-x)) for x in row]
        expected = sum(-math.log(q if k < older else 1 - q) for k, q in enumerate(p))
        assert value == pytest.approx(expected, rel=1e-12)
    assert method.decode(OUTPUTS).tolist() == [23.0, 21.0]
    soft = [20 + sum(1 / (1 + math.exp(-x)) for x in row) for row in OUTPUTS.tolist()]
    assert AgeOrdinal(20, 24, soft=True).decode(OUTPUTS).tolist() == pytest.approx(soft, rel=1e-12)


def test_ordinal_answers_begin_in_order_and_even():
    bias = AgeOrdinal(0, 4).start_bias()
    torch.testing.assert_close(bias.sigmoid(), torch.tensor([0.8, 0.6, 0.4, 0.2]))


def test_regression_by_hand():
    method = AgeRegression(0, 80, scale=10)
    outputs = torch.tensor([[0.5], [-2.0]], dtype=torch.float64)
    assert method.decode(outputs).tolist() == [45.0, 20.0]
    assert method.loss(outputs, AGES).values.tolist() == pytest.approx([45 - 21.6, 0.4])
    assert AgeRegression(0, 80).scale == 20


@pytest.mark.parametrize("kind", ALL)
def test_unknown_ages_do_not_count_and_others_are_brought_into_range(kind):
    torch.manual_seed(0)
    method = kind(20, 23)
    outputs = torch.randn(4, method.num_outputs, dtype=torch.float64, requires_grad=True)
    ages = torch.tensor([math.nan, 90.0, 23.0, -5.0], dtype=torch.float64)
    loss = method.loss(outputs, ages)
    assert loss.known.tolist() == [False, True, True, True]
    same = method.loss(outputs[[1, 3]], torch.tensor([23.0, 20.0], dtype=torch.float64))
    torch.testing.assert_close(loss.values[[1, 3]], same.values)
    mean_known(loss.values, loss.known).backward()
    assert outputs.grad.isfinite().all()
    assert not outputs.grad[0].any()
    assert outputs.grad[1:].any(1).all()


@pytest.mark.parametrize("kind", ALL)
def test_each_learns_an_age(kind):
    method = kind(0, 60)
    start = method.start_bias()
    outputs = torch.zeros(1, method.num_outputs) if start is None else start[None].clone()
    outputs.requires_grad_()
    optimizer = torch.optim.Adam([outputs], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        method.loss(outputs, torch.tensor([17.0])).values.sum().backward()
        optimizer.step()
    assert method.decode(outputs.detach()).item() == pytest.approx(17, abs=1.5)


@pytest.mark.parametrize("kind", ALL)
def test_gradients_are_those_of_the_loss(kind):
    torch.manual_seed(0)
    method = kind(20, 23)
    outputs = torch.randn(2, method.num_outputs, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: method.loss(x, AGES).values, outputs)


@pytest.mark.parametrize("kind", ALL)
def test_half_precision_is_lifted(kind):
    method = kind(20, 23)
    outputs = torch.randn(2, method.num_outputs).bfloat16()
    assert method.loss(outputs, AGES.float()).values.dtype == torch.float32
    assert method.decode(outputs).dtype == torch.float32


def test_what_cannot_work():
    with pytest.raises(ConfigError, match="min_age 30 must be below max_age 20"):
        AgeExpectation(30, 20)
    with pytest.raises(ConfigError, match="sigma must be above 0"):
        AgeDistribution(sigma=0)
    with pytest.raises(ConfigError, match="weights must be 0 or more"):
        AgeMeanVariance(mean_weight=-1)
    with pytest.raises(ConfigError, match="scale must be above 0"):
        AgeRegression(scale=0)
    with pytest.raises(ConfigError, match=r"outputs \(2, 4\) must be \(2, 101\) for AgeExpectation"):
        AgeExpectation().loss(OUTPUTS, AGES)


def test_a_method_is_saved_as_plain_data():
    assert AgeOrdinal(10, 70, soft=True).to_config() == {
        "class_path": "farl_lightning.losses.age.AgeOrdinal",
        "init_args": {"min_age": 10, "max_age": 70, "shared": True, "soft": True},
    }
