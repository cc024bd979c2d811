"""Metrics of attributes, classes and ages: by hand and against scikit-learn to 1e-9, exact under two processes."""

from __future__ import annotations

import math

import pytest
import torch

from farl_lightning.errors import ConfigError, DataError
from farl_lightning.functional.bootstrap import bootstrap_mean_interval
from farl_lightning.functional.distributed import rank
from farl_lightning.metrics import AgeErrors, AttributeScores, ClassificationScores
from farl_lightning.testing.distributed import run_distributed

NAMES = ("Smiling", "Young", "Hat", "Odd")
LOGITS = torch.tensor([[1.0, 2, -1, 0.5], [-1, 1, -1, 2], [3, -2, -1, 1], [1, -1, 1, -3], [9, 9, 9, 9]])
LABELS = torch.tensor([[1, 1, 0, -1], [1, 0, 0, -1], [0, 0, -1, -1], [1, 1, 0, -1], [1, 0, 1, 1]])
FLAGS = torch.tensor([True, True, True, True, False])


def values(metric) -> dict[str, float]:
    return {name: value.item() for name, value in metric.compute().items()}


def attribute_data(count: int = 60):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(-1, 2, (count, 4), generator=generator)
    return labels + 0.8 * torch.randn(count, 4, generator=generator), labels


def class_data(count: int = 80):
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(-1, 4, (count,), generator=generator)
    logits = torch.randn(count, 5, generator=generator)
    return logits + 2 * torch.nn.functional.one_hot(labels.clamp(min=0), 5), labels


def age_data(count: int = 70):
    generator = torch.Generator().manual_seed(2)
    ages = (80 * torch.rand(count, generator=generator)).round()
    spread = 1 + 5 * torch.rand(count, generator=generator)
    answers = ages + 6 * torch.randn(count, generator=generator)
    ages[3] = math.nan
    spread[5] = math.nan
    return answers, ages, spread


def test_attributes_by_hand():
    metric = AttributeScores(NAMES)
    metric.update(LOGITS[:2], LABELS[:2], FLAGS[:2])
    metric.update(LOGITS[2:], LABELS[2:], FLAGS[2:])
    found = values(metric)
    assert found == pytest.approx(
        {
            "accuracy_Smiling": 50.0,  # yes, no, yes, yes against 1, 1, 0, 1
            "balanced_Smiling": 100 * (2 / 3 + 0) / 2,
            "accuracy_Young": 50.0,
            "balanced_Young": 50.0,
            "accuracy_Hat": 100 * 2 / 3,  # only "no" occurs: no balanced accuracy
            "accuracy_mean": (50 + 50 + 200 / 3) / 3,
            "balanced_mean": (100 / 3 + 50) / 2,
            "unknown_labels": 5.0,
        },
        abs=1e-9,
    )
    assert metric.baseline.value == pytest.approx((75 + 50 + 100) / 3)
    assert metric.baseline.low <= found["accuracy_mean"] - metric.baseline.value <= metric.baseline.high
    assert metric.rows[0] == {
        "attribute": "Smiling",
        "accuracy": 50.0,
        "balanced": pytest.approx(100 / 3),
        "no": 1,
        "yes": 3,
    }
    assert math.isnan(metric.rows[3]["accuracy"])


def test_attributes_against_scikit_learn():
    reference = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    logits, labels = attribute_data()
    metric = AttributeScores(NAMES)
    metric.update(logits, labels)
    found = values(metric)
    for column, name in enumerate(NAMES):
        known = labels[:, column] >= 0
        truth, answer = labels[known, column].numpy(), (logits[known, column] > 0).long().numpy()
        assert found[f"accuracy_{name}"] == pytest.approx(100 * reference.accuracy_score(truth, answer), abs=1e-9)
        balanced = 100 * reference.balanced_accuracy_score(truth, answer)
        assert found[f"balanced_{name}"] == pytest.approx(balanced, abs=1e-9)
    assert metric.baseline.low > 0  # half a standard deviation apart: better than the majority beyond luck


def test_the_interval_of_attributes_is_that_of_the_mean_gain():
    logits, labels = attribute_data()
    metric = AttributeScores(NAMES)
    metric.update(logits, labels)
    found = values(metric)
    known, answers = labels >= 0, (logits > 0).long()
    majority = (labels == 1).sum(0) > (labels == 0).sum(0)
    gains = ((answers == labels).double() - (majority.long() == labels).double()) * known
    per_face = 100 * (gains * len(labels) / known.sum(0)).mean(1)
    assert per_face.mean().item() == pytest.approx(found["accuracy_mean"] - metric.baseline.value, abs=1e-9)
    ends = bootstrap_mean_interval(per_face.sort().values)
    assert (metric.baseline.low, metric.baseline.high) == pytest.approx(ends, rel=1e-12)


def test_classes_by_hand_and_against_scikit_learn():
    reference = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    logits, labels = class_data()
    valid = torch.arange(80) != 7
    metric = ClassificationScores(5, tuple("abcde"))
    metric.update(logits[:30], labels[:30], valid[:30])
    metric.update(logits[30:].argmax(1), labels[30:], valid[30:])
    found = values(metric)
    kept = valid & (labels >= 0)
    truth, answer = labels[kept].numpy(), logits[kept].argmax(1).numpy()
    assert found["accuracy"] == pytest.approx(100 * reference.accuracy_score(truth, answer), abs=1e-9)
    assert found["f1_macro"] == pytest.approx(100 * reference.f1_score(truth, answer, average="macro"), abs=1e-9)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        balanced = 100 * reference.balanced_accuracy_score(truth, answer)
    assert found["balanced_accuracy"] == pytest.approx(balanced, abs=1e-9)
    each = 100 * reference.f1_score(truth, answer, average=None)
    assert [found[f"f1_{n}"] for n in "abcde"] == pytest.approx(each.tolist(), abs=1e-9)
    assert found["unknown_labels"] == (labels[valid] == -1).sum()
    assert metric.baseline.value == pytest.approx(100 * max((truth == k).mean() for k in range(5)))
    assert metric.baseline.low < found["accuracy"] - metric.baseline.value < metric.baseline.high


def test_classes_that_never_occur_have_no_score():
    metric = ClassificationScores(3)
    metric.update(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]))
    found = values(metric)
    assert "f1_2" not in found
    assert found["f1_macro"] == pytest.approx(100 * 2 / 3)
    assert math.isnan(metric.rows[2]["f1"])


def test_ages_by_hand():
    answers, ages, spread = age_data()
    metric = AgeErrors((5, 2.5))
    metric.update(answers[:40], ages[:40], spread[:40])
    metric.update(answers[40:], ages[40:], spread[40:], valid=torch.arange(40, 70) != 50)
    kept = [i for i in range(70) if i not in (3, 50)]
    errors = {i: abs(float(answers[i]) - float(ages[i])) for i in kept}
    epsilon = [1 - math.exp(-(errors[i] ** 2) / (2 * float(spread[i]) ** 2)) for i in kept if i != 5]
    truth = sorted(float(ages[i]) for i in kept)
    median = (truth[33] + truth[34]) / 2
    assert values(metric) == pytest.approx(
        {
            "mae": sum(errors.values()) / 68,
            "cs5": 100 * sum(e <= 5 for e in errors.values()) / 68,
            "cs2.5": 100 * sum(e <= 2.5 for e in errors.values()) / 68,
            "epsilon_error": sum(epsilon) / len(epsilon),
            "unknown_labels": 1,
        },
        abs=1e-9,
    )
    assert metric.baseline.value == pytest.approx(sum(abs(age - median) for age in truth) / 68, abs=1e-9)
    assert metric.baseline.high < 0  # better than the median beyond luck
    assert sum(row["faces"] for row in metric.rows) == 68
    young = [errors[i] for i in kept if ages[i] < 10]
    assert metric.rows[0] == {"ages": "0-9", "mae": pytest.approx(sum(young) / len(young)), "faces": len(young)}


def test_without_a_spread_there_is_no_epsilon_error():
    metric = AgeErrors()
    metric.update(torch.tensor([1.0]), torch.tensor([2.0]))
    assert "epsilon_error" not in values(metric)


@pytest.mark.parametrize("metric", [AttributeScores(NAMES), ClassificationScores(2), AgeErrors()])
def test_no_face_at_all_is_no_score(metric):
    found = metric.compute()
    assert all(value.isnan() for name, value in found.items() if name != "unknown_labels")
    assert math.isnan(metric.baseline.value)


def on_rank(shares: list[list[int]]) -> list[str]:
    """Judge the faces of this process, seven at a time, and return what all find together."""
    rows = shares[rank()]
    made = [AttributeScores(NAMES), ClassificationScores(5), AgeErrors((1, 5))]
    made = [metric.to("cpu") for metric in made]  # as Lightning moves them
    data = [attribute_data(), class_data(), age_data()]
    found = []
    for metric, (answers, labels, *more) in zip(made, data, strict=True):
        for begin in range(0, len(rows), 7):
            part = rows[begin : begin + 7]
            spread = {"spread": more[0][part]} if more else {}
            metric.update(answers[part], labels[part], **spread)
        results = {k: v.item() for k, v in metric.compute().items()}
        found.append(repr({**results, **metric.baseline._asdict(), "rows": metric.rows}))  # nan is not equal to nan
    return found


@pytest.mark.parametrize("first", [[], list(range(0, 60, 3))])
def test_two_processes_give_exactly_the_results_of_one(first):
    second = [index for index in range(60) if index not in first]
    (alone,) = run_distributed(on_rank, 1, [list(range(60))])
    assert run_distributed(on_rank, 2, [first, second[::-1]]) == [alone, alone]


def test_what_cannot_work():
    with pytest.raises(ConfigError, match="each once"):
        AttributeScores(("a", "a"))
    with pytest.raises(ConfigError, match="must have the 4 columns Smiling, Young"):
        AttributeScores(NAMES).update(LOGITS[:, :3], LABELS[:, :3])
    with pytest.raises(DataError, match=r"true labels \[7\]"):
        ClassificationScores(2).update(torch.tensor([0]), torch.tensor([7]))
    with pytest.raises(ConfigError, match="thetas="):
        AgeErrors(())
    with pytest.raises(ConfigError, match=r"must be \(B,\) each"):
        AgeErrors().update(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ConfigError, match=r"must be \(B,\) each"):
        ClassificationScores(2).update(torch.zeros(2, 2), torch.zeros(3, dtype=torch.int64))


def test_the_bootstrap_interval_of_a_mean():
    generator = torch.Generator().manual_seed(0)
    sample = 3 + 2 * torch.randn(400, generator=generator, dtype=torch.float64)
    low, high = bootstrap_mean_interval(sample, resamples=4000)
    half = 1.96 * sample.std().item() / 20  # of the normal approximation
    assert (high - low) / 2 == pytest.approx(half, rel=0.06)
    assert (high + low) / 2 == pytest.approx(sample.mean().item(), abs=0.02)
    assert all(math.isnan(end) for end in bootstrap_mean_interval(torch.zeros(0)))
