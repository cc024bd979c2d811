"""Parsing metrics over batches, pictures of any size, flags, and two processes."""

from __future__ import annotations

import pytest
import torch

from farl_lightning.errors import ConfigError
from farl_lightning.functional.boundary import boundary_f1, boundary_matches
from farl_lightning.functional.distributed import rank
from farl_lightning.functional.segmentation import confusion_matrix, f1_scores, iou_scores
from farl_lightning.metrics import BoundaryF1, ParsingF1
from farl_lightning.testing.distributed import run_distributed

NAMES = ("background", "skin", "hair", "hat")


def _pictures(count, sizes=((20, 24),), classes=3, seed=0):
    """Blocks of labels, and predictions that shift some of them."""
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for index in range(count):
        coarse = torch.randint(classes, (1, 1, 4, 4), generator=generator).float()
        size = sizes[index % len(sizes)]
        target = torch.nn.functional.interpolate(coarse, size, mode="nearest")[0, 0].to(torch.uint8)
        pairs.append((target.roll(index % 3 + 1, 1), target))
    return [p for p, _ in pairs], [t for _, t in pairs]


def _values(metric):
    return {name: value.item() for name, value in metric.compute().items()}


def test_scores_are_those_of_one_matrix_over_all_pictures():
    preds, targets = _pictures(5, sizes=((20, 24), (7, 31)))
    targets[0][:5] = 255
    metric = ParsingF1(4, NAMES)
    metric.update(preds[:2], targets[:2])
    metric.update(preds[2:], targets[2:])
    table = sum(confusion_matrix(p, t, 4, ignore_index=255) for p, t in zip(preds, targets, strict=True))
    f1, iou = f1_scores(table), iou_scores(table)
    values = _values(metric)
    assert values["f1_mean"] == pytest.approx(100 * f1[1:3].mean().item())
    assert values["iou_mean"] == pytest.approx(100 * iou[1:3].mean().item())
    assert values["f1_skin"] == pytest.approx(100 * f1[1].item())
    assert values["iou_background"] == pytest.approx(100 * iou[0].item())
    assert values["accuracy"] == pytest.approx(100 * (table.diagonal().sum() / table.sum()).item())
    assert torch.equal(metric.table, table)


def test_absent_classes_are_named_and_never_nan():
    preds, targets = _pictures(2)
    metric = ParsingF1(4, NAMES)
    metric.update(preds, targets)
    values = metric.compute()
    assert metric.absent_classes == ("hat",)
    assert values["absent_classes"] == 1
    assert "f1_hat" not in values
    assert all(value.isfinite() for value in values.values())
    metric.update([torch.full((2, 2), 3)], [torch.zeros(2, 2)])  # predicted where it is not: it counts, with 0
    assert metric.compute()["f1_hat"] == 0
    assert metric.absent_classes == ()


def test_batched_tensors_and_flags():
    preds, targets = (torch.stack(side) for side in _pictures(4))
    flags = torch.tensor([True, False, True, False])
    flagged, chosen, whole = ParsingF1(3), ParsingF1(3), ParsingF1(3)
    flagged.update(preds, targets, flags)
    chosen.update(preds[flags], targets[flags].long())
    whole.update(preds, targets)
    assert _values(flagged) == _values(chosen) != _values(whole)
    flagged.update(preds, targets, torch.zeros(4).bool())
    assert _values(flagged) == _values(chosen)


def test_reset_starts_anew_and_nothing_counted_has_no_mean():
    preds, targets = _pictures(2)
    metric = ParsingF1(3)
    metric.update(preds, targets)
    before = _values(metric)
    metric.reset()
    metric.update(preds, targets)
    assert _values(metric) == before
    metric.reset()
    metric.update(preds, targets, torch.zeros(2).bool())
    assert metric.compute()["f1_mean"].isnan()
    assert metric.absent_classes == ("0", "1", "2")


def test_boundary_counts_are_summed_over_pictures():
    preds, targets = _pictures(3, sizes=((20, 24), (9, 30)))
    targets[2][:, :6] = 255
    metric = BoundaryF1(4, NAMES, tolerance=1.5)
    metric.update(preds, targets)
    counts = sum(boundary_matches(p, t, 4, 1.5, ignore_index=255) for p, t in zip(preds, targets, strict=True))
    scores = 100 * boundary_f1(counts)
    values = _values(metric)
    assert values["boundary_f1_skin"] == pytest.approx(scores[1].item())
    assert values["boundary_f1_mean"] == pytest.approx(scores[1:3].mean().item())
    assert metric.absent_classes == ("hat",)
    assert "boundary_f1_hat" not in values


def test_tolerance_is_a_share_of_the_diagonal_or_pixels():
    preds, targets = _pictures(1, sizes=((30, 40),))
    share, pixels = BoundaryF1(3, tolerance=0.04), BoundaryF1(3, tolerance=2.0)
    for metric in (share, pixels):
        metric.update(torch.stack(preds), torch.stack(targets))
    assert _values(share) == _values(pixels)


def _both(parts):
    """Update with the parts of this rank, one by one; the last process may have none."""
    metrics = [ParsingF1(4, NAMES), BoundaryF1(4, NAMES, tolerance=1.5)]
    for part in parts[rank()]:
        for metric in metrics:
            metric.update(*part)
    results = [_values(metric) for metric in metrics]
    return results, [metric.absent_classes for metric in metrics], metrics[0].table.tolist()


def test_uneven_processes_count_every_picture_once():
    preds, targets = _pictures(5, sizes=((20, 24), (9, 30)))
    one = run_distributed(_both, 1, [[(preds, targets)]])[0]
    # three and three pictures: the sixth is a repeat that pads
    flags = torch.tensor([True, True, False])
    padded = [[(preds[:3], targets[:3])], [(preds[3:] + preds[:1], targets[3:] + targets[:1], flags)]]
    assert run_distributed(_both, 2, padded) == [one, one]
    assert run_distributed(_both, 2, [[(preds, targets)], []]) == [one, one]


def test_mistakes_are_explained():
    with pytest.raises(ConfigError, match="must name each class once"):
        ParsingF1(3, ("a", "b"))
    with pytest.raises(ConfigError, match="must name each class once"):
        BoundaryF1(2, ("a", "a"))
    with pytest.raises(ConfigError, match="background=5"):
        ParsingF1(3, background=5)
    with pytest.raises(ConfigError, match="tolerance=0"):
        BoundaryF1(3, tolerance=0)
    with pytest.raises(ConfigError, match="2 predicted and 1 true"):
        ParsingF1(3).update([torch.zeros(1, 1)] * 2, [torch.zeros(1, 1)])
    with pytest.raises(ConfigError, match="for 3 flags"):
        ParsingF1(3).update([torch.zeros(1, 1)], [torch.zeros(1, 1)], torch.ones(3).bool())
