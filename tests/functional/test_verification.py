"""Scores of pairs and ranks in a gallery: by hand, by brute force, against scikit-learn and scipy to 1e-9."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from farl_lightning.errors import ConfigError
from farl_lightning.functional import verification
from farl_lightning.functional.verification import (
    area_under,
    best_threshold,
    equal_error_rate,
    fold_accuracy,
    identification_ranks,
    pair_scores,
    roc_curve,
    tar_at_far,
    tenths,
)


def _pairs(count=300, seed=0, step=0.05):
    """Scores on a coarse grid, so that many are equal, and the truth."""
    generator = torch.Generator().manual_seed(seed)
    same = torch.rand(count, generator=generator) < 0.4
    scores = 0.6 * same + 0.4 * torch.randn(count, dtype=torch.float64, generator=generator)
    return (scores / step).round() * step if step else scores, same


def test_cosines_in_blocks_and_without_direction(monkeypatch):
    monkeypatch.setattr(verification, "_CHUNK", 8)
    features = torch.tensor([[3.0, 4.0], [4.0, 3.0], [0.0, 0.0], [-3.0, -4.0]])
    scores = pair_scores(features, torch.tensor([0, 0, 0, 1, 2, 3]), torch.tensor([1, 2, 3, 1, 2, 3]))
    assert scores.dtype == torch.float64
    assert scores[[0, 2, 3, 5]].tolist() == pytest.approx([0.96, -1, 1, 1], abs=1e-15)
    assert scores[[1, 4]].isnan().all()
    assert len(pair_scores(features, torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))) == 0


def test_a_threshold_lies_in_the_middle_of_the_widest_best_gap():
    scores = torch.tensor([0.0, 0.2, 0.3, 0.4, 0.9, 1.0], dtype=torch.float64)
    same = torch.tensor([False, False, True, False, True, True])
    # five of six are right from 0.25 (0.4 is wrong) and from 0.65 (0.3 is wrong); the second gap is wider
    assert best_threshold(scores, same).item() == pytest.approx(0.65)


@pytest.mark.parametrize(("same", "threshold"), [(True, -math.inf), (False, math.inf)])
def test_one_kind_of_pairs_is_accepted_or_refused_altogether(same, threshold):
    assert best_threshold(torch.tensor([0.1, 0.5], dtype=torch.float64), torch.full((2,), same)).item() == threshold


def test_equal_scores_cannot_be_told_apart():
    scores = torch.tensor([0.5, 0.5, 0.7], dtype=torch.float64)
    assert best_threshold(scores, torch.tensor([False, True, True])).item() == pytest.approx(0.6)  # never 0.5
    assert best_threshold(scores[:2], torch.tensor([False, True])).item() == -math.inf


def _brute_accuracy(scores, same, folds):
    accuracies = []
    for fold in sorted(set(folds.tolist())):
        train, test = folds != fold, folds == fold
        levels = sorted(set(scores[train].tolist()))
        gaps = [(-math.inf, levels[0]), *itertools.pairwise(levels), (levels[-1], math.inf)]
        best = (-1, -1.0, 0.0)
        for low, high in gaps:
            middle = high if math.isinf(high) else low if math.isinf(low) else (low + high) / 2
            right = int(((scores[train] >= middle) == same[train]).sum())
            width = 0.0 if math.isinf(high - low) else high - low
            best = max(best, (right, width, -middle))
        accuracies.append(((scores[test] >= -best[2]) == same[test]).double().mean().item())
    return accuracies


@pytest.mark.parametrize("step", [0.05, 0])
def test_accuracy_of_folds_agrees_with_brute_force(step):
    scores, same = _pairs(90, step=step)
    for folds in (None, torch.randperm(90, generator=torch.Generator().manual_seed(1)) % 7):
        found = fold_accuracy(scores, same, folds)
        assert found.accuracies.tolist() == _brute_accuracy(scores, same, tenths(90) if folds is None else folds)
        assert found.right.double().mean().item() == pytest.approx(found.accuracies.mean().item(), abs=0.02)


def test_the_threshold_of_a_fold_is_chosen_on_the_others():
    scores = torch.tensor([0.1, 0.9, 0.1, 0.9, 0.1, 0.3], dtype=torch.float64)
    same = torch.tensor([False, True] * 3)
    found = fold_accuracy(scores, same, torch.tensor([0, 0, 1, 1, 2, 2]))
    assert found.thresholds.tolist() == pytest.approx([0.2, 0.2, 0.5])  # the third fold knows nothing of 0.3
    assert found.accuracies.tolist() == [1.0, 1.0, 0.5]


def test_tenths_are_consecutive():
    assert tenths(23).tolist() == [*[0] * 3, *[1] * 3, *[2] * 3, *(k for k in range(3, 10) for _ in range(2))]
    assert tenths(4, 2).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("step", [0.05, 0])
def test_curves_agree_with_scikit_learn_and_scipy(step):
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    optimize = pytest.importorskip("scipy.optimize", reason="scipy is not installed (extra 'datasets')")
    interpolate = pytest.importorskip("scipy.interpolate", reason="scipy is not installed (extra 'datasets')")
    scores, same = _pairs(400, step=step)
    roc = roc_curve(scores, same)
    far, tar, thresholds = metrics.roc_curve(same.numpy(), scores.numpy(), drop_intermediate=False)
    for ours, theirs in ((roc.far, far), (roc.tar, tar), (roc.thresholds, thresholds)):
        torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=0, atol=1e-12)
    assert area_under(roc) == pytest.approx(metrics.roc_auc_score(same.numpy(), scores.numpy()), abs=1e-12)
    line = interpolate.interp1d(far, tar)
    expected = optimize.brentq(lambda x: 1 - x - line(x), 0, 1, xtol=1e-14)
    assert equal_error_rate(roc) == pytest.approx(expected, abs=1e-9)


def test_curve_by_hand():
    scores = torch.tensor([0.9, 0.8, 0.8, 0.4, 0.3])
    same = torch.tensor([True, True, False, False, True])
    roc = roc_curve(scores, same)
    assert roc.far.tolist() == pytest.approx([0, 0, 0.5, 1, 1])
    assert roc.tar.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 1])
    assert area_under(roc) == pytest.approx((1 + 0.5 + 1 + 1 + 0 + 0) / 6)  # of six pairs of pairs, a tie counts half
    assert equal_error_rate(roc) == pytest.approx(0.4)  # far 0.5 t meets 1 - (1 + t) / 3 at t = 0.8


@pytest.mark.parametrize(
    ("far", "tar", "threshold"), [(0.25, 0.5, 0.8), (0.3, 0.5, 0.8), (0.5, 0.75, 0.6), (0.999, 1.0, 0.3)]
)
def test_tar_is_read_off_where_far_is_kept(far, tar, threshold):
    scores = torch.tensor([0.9, 0.8, 0.6, 0.3, 0.85, 0.65, 0.4, 0.1], dtype=torch.float64)
    roc = roc_curve(scores, torch.arange(8) < 4)
    point = tar_at_far(roc, far, 4)
    assert (point.value, point.threshold, point.reason) == (tar, threshold, "")


def test_a_share_that_comes_out_even_is_kept_in_spite_of_rounding():
    scores = torch.arange(6000, dtype=torch.float64)
    same = (torch.arange(6000) % 2).bool()  # the k-th impostor from above is followed by one genuine pair
    assert tar_at_far(roc_curve(scores, same), 1e-3, 3000).value == pytest.approx(4 / 3000)  # 3 impostors, 4 genuine
    assert tar_at_far(roc_curve(scores, same), 1 / 3000, 3000).value == pytest.approx(2 / 3000)


def test_a_rate_needs_impostors_enough():
    roc = roc_curve(*_pairs())
    point = tar_at_far(roc, 1e-4, 3000)
    assert point.value is None
    assert point.reason == "3000 pairs of different people cannot tell a false accept rate of 0.0001; 10000 are needed"
    assert tar_at_far(roc_curve(torch.zeros(2), torch.zeros(2).bool()), 0.5, 2).value is None
    with pytest.raises(ConfigError, match="false accept rate of 1 "):
        tar_at_far(roc, 1, 10)


def test_scores_that_are_not_numbers_are_wrong_answers():
    scores, same = torch.tensor([0.9, torch.nan, 0.1, torch.nan]), torch.tensor([True, True, False, False])
    roc = roc_curve(scores, same)
    assert area_under(roc) == pytest.approx(0.25)  # of the four pairs of pairs one is right
    assert fold_accuracy(scores, same, torch.tensor([0, 1, 0, 1])).right[[1, 3]].sum() == 0


def test_one_kind_of_pairs_has_no_curve():
    roc = roc_curve(torch.tensor([0.1, 0.2]), torch.tensor([True, True]))
    assert math.isnan(area_under(roc))
    assert math.isnan(equal_error_rate(roc))


def test_sizes_and_folds_are_checked():
    with pytest.raises(ConfigError, match=r"scores \(3,\) and same \(2,\)"):
        roc_curve(torch.zeros(3), torch.zeros(2).bool())
    with pytest.raises(ConfigError, match="1 different folds"):
        fold_accuracy(torch.zeros(3), torch.zeros(3).bool(), torch.zeros(3).long())


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_ranks_agree_with_sorting(monkeypatch, chunk):
    monkeypatch.setattr(verification, "_CHUNK", chunk)
    generator = torch.Generator().manual_seed(4)
    gallery, probes = (torch.randn(n, 5, dtype=torch.float64, generator=generator) for n in (12, 9))
    gallery_ids, probe_ids = torch.arange(12) % 5, torch.arange(9) % 6  # person 5 is unknown
    similarity = F.normalize(probes, dim=1) @ F.normalize(gallery, dim=1).T
    expected = []
    for row, person in zip(similarity, probe_ids.tolist(), strict=True):
        order = gallery_ids[row.argsort(descending=True)].tolist()
        expected.append(1 + order.index(person) if person in order else 0)
    assert identification_ranks(probes, gallery, probe_ids, gallery_ids).tolist() == expected


def test_ties_and_broken_features_rank_last():
    gallery, ids = torch.eye(3), torch.arange(3)
    same = torch.ones(3, 3)
    assert identification_ranks(same, gallery, ids, ids).tolist() == [3, 3, 3]
    assert identification_ranks(torch.zeros(3, 3), gallery, ids, ids).tolist() == [3, 3, 3]
    assert identification_ranks(gallery, torch.full((3, 3), torch.nan), ids, ids).tolist() == [3, 3, 3]
    assert identification_ranks(gallery, gallery, ids, ids).tolist() == [1, 1, 1]
    assert identification_ranks(gallery, torch.zeros(0, 3), ids, ids[:0]).tolist() == [0, 0, 0]
    assert identification_ranks(gallery[:0], gallery, ids[:0], ids).tolist() == []
