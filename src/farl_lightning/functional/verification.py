"""Is it the same person? Curves and scores of pairs, after the protocol of LFW; who is it? Ranks in a gallery.

Everything is computed in float64 and is exact: thresholds are taken between the scores themselves, not from a grid. A
score that is not a number is the wrong answer to its pair: features that have collapsed earn nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from farl_lightning.errors import ConfigError
from farl_lightning.functional.precision import as_float64

TIE = 1e-12
"""Cosines of a gallery closer than this are equal: rounding must not decide a rank."""

_CHUNK = 1 << 23  # numbers held at once: 64 MiB in float64


class Roc(NamedTuple):
    """Receiver operating characteristic: what happens when pairs are accepted from a threshold up.

    Attributes:
        thresholds: (K,) float64, falling, from infinity (nothing is accepted) to the lowest score (everything is).
        far: (K,) share of pairs of different people that are accepted, rising from 0 to 1.
        tar: (K,) share of pairs of the same person that are accepted.
    """

    thresholds: Tensor
    far: Tensor
    tar: Tensor


class FoldAccuracy(NamedTuple):
    """Accuracy with thresholds chosen elsewhere.

    Attributes:
        right: (P,) bool, whether each pair is judged rightly, with the threshold of its own fold.
        folds: (K,) numbers of the folds that occur.
        accuracies: (K,) float64 in [0, 1].
        thresholds: (K,) chosen on the other folds.
    """

    right: Tensor
    folds: Tensor
    accuracies: Tensor
    thresholds: Tensor


class TarAtFar(NamedTuple):
    """Share of genuine pairs accepted where at most a given share of impostors is.

    Attributes:
        value: In [0, 1]; None where it cannot be measured.
        threshold: The lowest that keeps to it; nan for None.
        reason: Why there is no value; empty where there is one.
    """

    value: float | None
    threshold: float
    reason: str = ""


def pair_scores(features: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Cosine of each pair, computed in blocks.

    Args:
        features: (M, E), any length; a row of zeros scores nan, as one that is not a number.
        first: (P,) int64 rows.
        second: (P,) int64 rows.

    Returns:
        (P,) float64 in [-1, 1], or nan.
    """
    unit = _unit(as_float64(features))
    rows = max(1, _CHUNK // max(1, unit.shape[1]))
    parts = [
        (unit[a] * unit[b]).sum(1) for a, b in zip(torch.split(first, rows), torch.split(second, rows), strict=True)
    ]
    return torch.cat(parts).clamp(-1, 1) if parts else unit.new_zeros(0)


def _unit(features: Tensor) -> Tensor:
    """Normalise rows; those without direction become nan."""
    unit: Tensor = features / torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return unit


def tenths(count: int, parts: int = 10) -> Tensor:
    """Divide a list into consecutive folds, the first ones longer by one where they do not come out even.

    Args:
        count: Length of the list.
        parts: Number of folds.

    Returns:
        (count,) int64 from 0 up.
    """
    short, rest = divmod(count, parts)
    sizes = torch.tensor([short + (part < rest) for part in range(parts)])
    return torch.arange(parts).repeat_interleave(sizes)


def fold_accuracy(scores: Tensor, same: Tensor, folds: Tensor | None = None) -> FoldAccuracy:
    """Judge each fold with the threshold that is most often right on all others (LFW's protocol, view 2).

    LFW: Huang et al., http://vis-www.cs.umass.edu/lfw/lfw.pdf. Thresholds lie half way between neighbouring scores of
    the other folds. Of several that are right equally often, the one in the widest gap is taken, and of equally wide
    gaps the lowest.

    Args:
        scores: (P,) likeness of each pair; higher is more alike.
        same: (P,) bool, whether it is the same person.
        folds: (P,) int64 fold of each pair; None takes consecutive tenths of the list.

    Returns:
        Judgements, accuracies and thresholds.

    Raises:
        ConfigError: If sizes differ, or there are fewer than two folds.
    """
    scores, same = _checked(scores, same)
    folds = tenths(len(scores)).to(scores.device) if folds is None else folds.to(scores.device)
    present = torch.unique(folds)
    if folds.shape != scores.shape or len(present) < 2:
        raise ConfigError(
            f"{len(scores)} pairs with folds {tuple(folds.shape)} have {len(present)} different folds; a threshold "
            "that is chosen on the others needs two or more"
        )
    order = scores.argsort()
    thresholds = torch.stack([best_threshold(*_others(scores, same, folds, fold, order)) for fold in present])
    right = (scores >= thresholds[torch.searchsorted(present, folds)]) == same
    accuracies = torch.stack([right[folds == fold].double().mean() for fold in present])
    return FoldAccuracy(right, present, accuracies, thresholds)


def _others(scores: Tensor, same: Tensor, folds: Tensor, fold: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores, rising, and truth of all folds but one."""
    kept = order[folds[order] != fold]
    return scores[kept], same[kept]


def best_threshold(scores: Tensor, same: Tensor) -> Tensor:
    """Find the threshold that judges most pairs rightly.

    Args:
        scores: (P,) float64, rising, without nan.
        same: (P,) bool.

    Returns:
        Scalar float64: half way between two neighbouring different scores, or infinite, where all pairs (minus) or
        none (plus) are best accepted.
    """
    zero = same.new_zeros(1, dtype=torch.int64)
    refused = torch.cat([zero, (~same).long().cumsum(0)])  # impostors below the k-th score
    missed = torch.cat([zero, same.long().cumsum(0)])
    right = refused + same.sum() - missed  # by k, the number of pairs below the threshold
    low, high = scores.new_full((1,), -torch.inf), scores.new_full((1,), torch.inf)
    below, above = torch.cat([low, scores]), torch.cat([scores, high])
    right = right.masked_fill(below == above, -1)  # no threshold lies between equal scores
    gap = (above - below).nan_to_num(0.0, posinf=0.0)
    gap = gap.masked_fill(right < right.max(), -1.0)
    place = gap.argmax()
    middle = below[place] + (above[place] - below[place]) / 2
    return torch.where(below[place].isfinite(), torch.where(above[place].isfinite(), middle, above[place]), low[0])


def roc_curve(scores: Tensor, same: Tensor) -> Roc:
    """Accept from every score up, in turn; equal scores are accepted together.

    Args:
        scores: (P,).
        same: (P,) bool, of both kinds.

    Returns:
        The curve, nan shares where there are no pairs of a kind.

    Raises:
        ConfigError: If sizes differ.
    """
    scores, same = _checked(scores, same)
    distinct, place = torch.unique(scores, return_inverse=True)
    genuine = torch.zeros(len(distinct), dtype=torch.float64, device=scores.device).index_add_(0, place, same.double())
    impostor = torch.zeros_like(genuine).index_add_(0, place, (~same).double())
    start = scores.new_zeros(1)
    tar = torch.cat([start, genuine.flip(0).cumsum(0)]) / same.sum()
    far = torch.cat([start, impostor.flip(0).cumsum(0)]) / (~same).sum()
    return Roc(torch.cat([scores.new_full((1,), torch.inf), distinct.flip(0)]), far, tar)


def area_under(roc: Roc) -> float:
    """Area under the curve: how often a genuine pair scores higher than an impostor; equal scores count half.

    Args:
        roc: Of :func:`roc_curve`.
    """
    return float(torch.trapezoid(roc.tar, roc.far))


def equal_error_rate(roc: Roc) -> float:
    """Where as large a share of genuine pairs is refused as of impostors is accepted, on the line between points.

    Args:
        roc: Of :func:`roc_curve`.

    Returns:
        In [0, 1]; nan where there are no pairs of a kind.
    """
    balance = roc.far + roc.tar - 1  # rises from -1 to 1
    if not balance.isfinite().all():
        return float("nan")
    after = int((balance >= 0).long().argmax())
    low, high = balance[after - 1], balance[after]
    share = -low / (high - low)
    return float(roc.far[after - 1] + share * (roc.far[after] - roc.far[after - 1]))


def tar_at_far(roc: Roc, far: float, impostors: int) -> TarAtFar:
    """Find how many genuine pairs are accepted where at most a share of impostors is.

    Args:
        roc: Of :func:`roc_curve`.
        far: The share, such as 1e-3.
        impostors: Number of pairs of different people behind the curve.

    Returns:
        The point of the curve itself, without interpolation; no value where there are fewer than ``1 / far``
        impostors, because the share of one of them is more than ``far`` already.

    Raises:
        ConfigError: If ``far`` is not above 0 and below 1.
    """
    if not 0 < far < 1:
        raise ConfigError(f"a false accept rate of {far} cannot be asked for; it must be above 0 and below 1")
    if impostors * far < 1 - 1e-9:
        reason = f"{impostors} pairs of different people cannot tell a false accept rate of {far:g}"
        return TarAtFar(None, float("nan"), f"{reason}; {round(1 / far)} are needed")
    if not roc.tar.isfinite().all():
        return TarAtFar(None, float("nan"), "there are no pairs of the same person")
    allowed = torch.floor(torch.tensor(far * impostors + 1e-9)) / impostors  # 0.001 of 3,000 are 3, not 2
    place = int((roc.far <= allowed + 0.5 / impostors).sum()) - 1
    return TarAtFar(float(roc.tar[place]), float(roc.thresholds[place]))


def identification_ranks(probes: Tensor, gallery: Tensor, probe_ids: Tensor, gallery_ids: Tensor) -> Tensor:
    """Rank the nearest right entry of a gallery for each probe (closed-set identification).

    Entries that are as near as the right one are placed before it, and so is everything that is not a number.

    Args:
        probes: (P, E), any length.
        gallery: (G, E), any length; a person may have several entries.
        probe_ids: (P,) int64 people.
        gallery_ids: (G,) int64 people.

    Returns:
        (P,) int64, 1 is best; 0 for a probe of whom the gallery has no picture.
    """
    probes, gallery = _unit(as_float64(probes)), _unit(as_float64(gallery))
    ranks = [_ranks(*block, gallery, gallery_ids) for block in _blocks(probes, probe_ids, len(gallery))]
    return torch.cat(ranks) if ranks else torch.zeros_like(probe_ids)


def _blocks(probes: Tensor, ids: Tensor, candidates: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut probes so that their similarities stay small."""
    rows = max(1, _CHUNK // max(1, candidates))
    yield from zip(torch.split(probes, rows), torch.split(ids, rows), strict=True)


def _ranks(probes: Tensor, ids: Tensor, gallery: Tensor, gallery_ids: Tensor) -> Tensor:
    """Rank one block."""
    if not len(gallery):
        return torch.zeros_like(ids)
    similarity = (probes @ gallery.T).nan_to_num(-2.0)
    own = ids[:, None] == gallery_ids
    best = similarity.masked_fill(~own, -3.0).amax(1, keepdim=True)
    broken = probes.isnan().any(1, keepdim=True) | (best <= -2)
    before = ((similarity >= best - TIE) | broken) & ~own
    return torch.where(own.any(1), 1 + before.sum(1), torch.zeros_like(ids))


def _checked(scores: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores in float64, wrong where they are not numbers, and the truth."""
    if scores.ndim != 1 or same.shape != scores.shape:
        raise ConfigError(f"scores {tuple(scores.shape)} and same {tuple(same.shape)} must be (P,) each")
    scores = as_float64(scores)
    same = same.to(scores.device, torch.bool)
    wrong = torch.where(same, -torch.inf, torch.inf).to(scores)
    return scores.where(~scores.isnan(), wrong), same
