"""Counts and scores of label maps against counting pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch

from farl_lightning.errors import ConfigError, DataError
from farl_lightning.functional import segmentation
from farl_lightning.functional.boundary import boundary_f1, boundary_matches
from farl_lightning.functional.segmentation import (
    confusion_matrix,
    f1_scores,
    foreground_mean,
    iou_scores,
    present_classes,
)


def _maps(classes=4, height=9, width=11, seed=0, dtype=torch.int64):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(classes, (height, width), generator=generator)
    flip = torch.rand(height, width, generator=generator) < 0.3
    return torch.where(flip, (target + 1) % classes, target).to(dtype), target.to(dtype)


def _slow(pred, target, classes, ignore=None):
    table = [[0] * classes for _ in range(classes)]
    for p, t in zip(pred.flatten().tolist(), target.flatten().tolist(), strict=True):
        if t != ignore:
            table[t][p] += 1
    return table


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_confusion_by_hand(dtype):
    pred, target = _maps(dtype=dtype)
    target[2:4] = 100
    table = confusion_matrix(pred, target, 4, ignore_index=100)
    assert table.dtype == torch.int64
    assert table.tolist() == _slow(pred, target, 4, 100)
    assert table.sum() == 7 * 11


def test_ignored_truth_may_meet_any_prediction():
    pred, target = torch.tensor([200, 1, 0]), torch.tensor([255, 1, 1])
    assert confusion_matrix(pred, target, 2, ignore_index=255).tolist() == [[0, 0], [1, 1]]
    assert confusion_matrix(pred[:0], target[:0], 2).sum() == 0


def test_many_classes_and_many_chunks(monkeypatch):
    monkeypatch.setattr(segmentation, "_CHUNK", 7)
    pred, target = _maps(classes=250, dtype=torch.uint8)
    assert confusion_matrix(pred, target, 250).tolist() == _slow(pred, target, 250)


@pytest.mark.parametrize(
    ("pred", "target", "text"),
    [
        ([0, 1], [0, 7], r"true labels \[7\] are not in 0..2 or 255 \(ignored\)"),
        ([0, -1], [0, 1], r"predicted labels \[-1\]"),
        ([0, 65537], [0, 1], r"predicted labels \[65537\]"),
        ([3, 0], [-2, 0], r"true labels \[-2\] and predicted labels \[3\]"),
    ],
)
def test_wrong_labels_are_named(pred, target, text):
    with pytest.raises(DataError, match=text):
        confusion_matrix(torch.tensor(pred), torch.tensor(target), 3, ignore_index=255)


def test_pictures_of_other_size_are_refused():
    with pytest.raises(ConfigError, match=r"\(2, 3\) and true labels \(3, 2\)"):
        confusion_matrix(torch.zeros(2, 3), torch.zeros(3, 2), 3)


def test_scores_by_hand():
    table = torch.tensor([[5, 1, 0], [2, 3, 0], [0, 0, 0]])
    assert f1_scores(table)[:2].tolist() == pytest.approx([10 / 13, 6 / 9])
    assert iou_scores(table)[:2].tolist() == pytest.approx([5 / 8, 3 / 6])
    assert present_classes(table).tolist() == [True, True, False]
    assert f1_scores(table)[2].isnan()
    assert iou_scores(table)[2].isnan()
    called = torch.tensor([[5, 0, 1], [0, 3, 0], [0, 0, 0]])  # predicted but not there: a score of 0, not absent
    assert f1_scores(called)[2] == 0
    assert iou_scores(called)[2] == 0


def test_means():
    scores = torch.tensor([1.0, 0.5, torch.nan, 0.25], dtype=torch.float64)
    assert foreground_mean(scores).item() == pytest.approx(0.375)
    assert foreground_mean(scores, None).item() == pytest.approx(1.75 / 3)
    assert foreground_mean(scores, 3).item() == pytest.approx(0.75)
    assert foreground_mean(scores, absent="nan").isnan()
    assert foreground_mean(scores[[0, 1, 3]], absent="nan").item() == pytest.approx(0.375)
    assert foreground_mean(scores[:1]).isnan()
    with pytest.raises(ConfigError, match="absent='zero'"):
        foreground_mean(scores, absent="zero")


def _slow_outline(labels, ignored):
    height, width = labels.shape
    found = {}
    for y in range(height):
        for x in range(width):
            around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            inside = [(a, b) for a, b in around if 0 <= a < height and 0 <= b < width and not ignored[a, b]]
            if not ignored[y, x] and any(labels[a, b] != labels[y, x] for a, b in inside):
                found.setdefault(int(labels[y, x]), []).append((y, x))
    return found


def _slow_matches(pred, target, classes, tolerance, ignore):
    ignored = target == ignore
    own, true = _slow_outline(pred, ignored), _slow_outline(target, ignored)
    rows = []
    for c in range(classes):
        a, b = own.get(c, []), true.get(c, [])
        near = [[p for p in x if any(math.dist(p, q) <= tolerance for q in y)] for x, y in ((a, b), (b, a))]
        rows.append([len(near[0]), len(a), len(near[1]), len(b)])
    return rows


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 1.5, 2.3, 4.0, 30.0])
@pytest.mark.parametrize("size", [(12, 17), (17, 5), (1, 9), (1, 1)])
def test_boundary_matches_by_hand(tolerance, size):
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randint(4, (2, 1, 4, 4), generator=generator).float()
    pred, target = torch.nn.functional.interpolate(coarse, size, mode="nearest").long()[:, 0]
    target[: size[0] // 4, size[1] // 2 :] = 255
    counts = boundary_matches(pred, target, 4, tolerance, ignore_index=255)
    assert counts.tolist() == _slow_matches(pred, target, 4, tolerance, 255)


def test_a_shifted_square_matches_within_its_shift():
    target = torch.zeros(40, 60, dtype=torch.uint8)
    target[10:30, 20:40] = 1
    pred = target.roll(3, 1)
    assert boundary_f1(boundary_matches(pred, target, 3, 3.0))[:2].tolist() == [1.0, 1.0]
    close = boundary_f1(boundary_matches(pred, target, 3, 2.0))
    # the square's outline: 76 pixels; of the shifted one 36 lie on the two long sides (and up to 2 beyond them) ...
    assert 0.4 < close[1] < 0.6
    assert close[2].isnan()


def test_boundary_scores_by_hand():
    counts = torch.tensor([[3, 4, 1, 2], [0, 5, 0, 0], [0, 5, 0, 7], [0, 0, 0, 0]])
    precision, recall = 3 / 4, 1 / 2
    scores = boundary_f1(counts)
    assert scores[:3].tolist() == pytest.approx([2 * precision * recall / (precision + recall), 0, 0])
    assert scores[3].isnan()


def test_boundary_mistakes_are_explained():
    with pytest.raises(ConfigError, match=r"must be \(H, W\) of one size"):
        boundary_matches(torch.zeros(2, 3), torch.zeros(3, 2), 3, 1.0)
    with pytest.raises(ConfigError, match="tolerance=-1"):
        boundary_matches(torch.zeros(2, 3), torch.zeros(2, 3), 3, -1.0)
