"""Means of subgroups, and how far apart they are: with intervals, and beside what chance alone would do."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor


class GroupMeans(NamedTuple):
    """Means of G groups, float64 on the CPU.

    Attributes:
        sizes: (G,) int64 number of samples.
        means: (G,), nan for an empty group.
        low: (G,) lower ends of the intervals of the means; nan where a group is too small for one.
        high: (G,) upper ends.
    """

    sizes: Tensor
    means: Tensor
    low: Tensor
    high: Tensor


class Gap(NamedTuple):
    """Distance between the largest and the smallest group mean; all nan with fewer than two groups.

    Attributes:
        value: The distance.
        low: Lower end of its bootstrap interval.
        high: Upper end.
        chance: Distance that groups of these sizes stay below with the interval's probability if nothing but chance
            tells them apart.
    """

    value: float
    low: float
    high: float
    chance: float


def wilson_interval(share: float, total: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share: unlike a bootstrap it has a width where all or no samples are right.

    Args:
        share: Share of right answers, in [0, 1].
        total: Number of answers.
        level: Probability that the interval covers, in (0, 1).

    Returns:
        Lower and upper end; nan without a sample.
    """
    if not total:
        return math.nan, math.nan
    z = NormalDist().inv_cdf((1 + level) / 2)
    center = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, center - half), min(1.0, center + half)


def resampled_means(values: Tensor, size: int, resamples: int, generator: torch.Generator) -> Tensor:
    """Draw means of samples with replacement.

    Values that are one of two are drawn as a binomial number: the same distribution, in time independent of ``size``.

    Args:
        values: (n,) float64 on the CPU, at least one.
        size: Number of values in each sample.
        resamples: Number of samples.
        generator: Of the draws, on the CPU.

    Returns:
        (resamples,) float64.
    """
    low, high = values.min(), values.max()
    if bool(((values == low) | (values == high)).all()):
        share = (values == high).double().mean() if high > low else torch.zeros((), dtype=torch.float64)
        counts = torch.full((resamples,), float(size), dtype=torch.float64)
        return low + (high - low) * torch.binomial(counts, share.expand(resamples), generator) / size
    rows = max(1, (1 << 22) // size)  # values drawn at once: 32 MiB of their numbers
    parts = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    draws = (torch.randint(len(values), (part, size), generator=generator) for part in parts)
    return torch.cat([values[draw].mean(1) for draw in draws])


def group_means(
    values: Tensor, groups: Tensor, count: int, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> GroupMeans:
    """Compute the mean of each group and its interval.

    Where values are right or wrong (all 0 or 1, or all 0 or 100) intervals are Wilson's, else percentile bootstraps,
    which need two samples.

    Args:
        values: (N,) finite. Intervals depend on their order within a group: sort them where they must not.
        groups: (N,) int64 in [0, count).
        count: Number of groups G.
        level: Probability that an interval covers.
        resamples: Number of bootstrap resamples.
        seed: Seed of the draws.
    """
    values, groups = values.detach().to("cpu", torch.float64), groups.cpu()
    generator = torch.Generator().manual_seed(seed)
    right = _right(values)
    rows = []
    for group in range(count):
        own = values[groups == group]
        mean = float(own.mean()) if len(own) else math.nan
        if right is not None:
            low, high = (right * end for end in wilson_interval(mean / right, len(own), level))
        elif len(own) > 1:
            low, high = _ends(resampled_means(own, len(own), resamples, generator), level)
        else:
            low = high = math.nan
        rows.append((mean, low, high))
    means, lows, highs = torch.tensor(rows, dtype=torch.float64).view(-1, 3).unbind(1)
    return GroupMeans(torch.bincount(groups, minlength=count), means, lows, highs)


def group_gap(
    values: Tensor, groups: Tensor, count: int, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Gap:
    """Compute the distance between the best and the worst group.

    The interval is a percentile bootstrap within each group. The largest of several means less the smallest is above 0
    by chance alone, and so is the interval; what chance does is told by drawing all groups from all values together.

    Args:
        values: (N,) finite, in an order that does not matter to the caller.
        groups: (N,) int64 in [0, count), none empty.
        count: Number of groups G.
        level: Probability that the interval covers, and of staying below ``chance``.
        resamples: Number of resamples.
        seed: Seed of the draws.
    """
    if count < 2:
        return Gap(math.nan, math.nan, math.nan, math.nan)
    values, groups = values.detach().to("cpu", torch.float64), groups.cpu()
    generator = torch.Generator().manual_seed(seed)
    parts = [values[groups == group] for group in range(count)]
    means = torch.stack([part.mean() for part in parts])
    drawn = torch.stack([resampled_means(part, len(part), resamples, generator) for part in parts])
    alike = torch.stack([resampled_means(values, len(part), resamples, generator) for part in parts])
    low, high = _ends(_spread(drawn), level)
    return Gap(float(_spread(means)), low, high, float(_spread(alike).quantile(level)))


def _spread(means: Tensor) -> Tensor:
    """Return largest less smallest of the first axis."""
    return means.amax(0) - means.amin(0)


def _ends(draws: Tensor, level: float) -> tuple[float, float]:
    """Return both ends of a percentile interval."""
    tail = (1 - level) / 2
    low, high = draws.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def _right(values: Tensor) -> float | None:
    """Return what a right answer counts, if values are right or wrong; None if they are anything else."""
    for right in (1.0, 100.0):
        if bool((values == right).any()) and bool(((values == 0) | (values == right)).all()):
            return right
    return None
