"""Bootstrap intervals."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def bootstrap_sign_interval(
    wins: Tensor, losses: Tensor, total: Tensor, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Percentile bootstrap interval of a mean of paired differences that are 1, 0 or -1.

    Drawing ``total`` samples with replacement makes the numbers of wins and losses multinomial, so they are drawn as
    such: the same distribution as resampling the samples themselves, in time independent of their number.

    Args:
        wins: (A,) number of samples where the difference is 1.
        losses: (A,) number of samples where it is -1.
        total: (A,) number of samples.
        level: Probability that the interval covers, in (0, 1).
        resamples: Number of resamples.
        seed: Seed of the draws.

    Returns:
        Lower and upper ends, (A,) float64 each; NaN where ``total`` is 0.
    """
    wins, losses, total = (x.detach().to("cpu", torch.float64) for x in (wins, losses, total))
    generator = torch.Generator().manual_seed(seed)
    count = total.clamp(min=1).expand(resamples, -1)
    won = torch.binomial(count, (wins / total.clamp(min=1)).expand_as(count), generator)
    share = losses / (total - wins).clamp(min=1)  # of what is not won
    lost = torch.binomial(count - won, share.expand_as(count), generator)
    tail = (1 - level) / 2
    ends = torch.quantile((won - lost) / count, torch.tensor([tail, 1 - tail], dtype=torch.float64), dim=0)
    ends = ends.masked_fill(total == 0, torch.nan)
    return ends[0], ends[1]


def bootstrap_counts(counts: Tensor, *, resamples: int = 1000, seed: int = 0) -> Tensor:
    """Resample counts: how often each kind of sample occurs when as many samples are drawn with replacement.

    The numbers are multinomial, drawn kind by kind: the same distribution as resampling the samples themselves, in time
    independent of their number.

    Args:
        counts: (K,) number of samples of each kind.
        resamples: Number of resamples.
        seed: Seed of the draws.

    Returns:
        (resamples, K) float64, each row of the sum of ``counts``.
    """
    left = counts.detach().to("cpu", torch.float64)
    generator = torch.Generator().manual_seed(seed)
    total, room = left.sum(), torch.full((resamples,), float(left.sum()), dtype=torch.float64)
    drawn = []
    for count in left:
        share = (count / total).clamp(0, 1) if total > 0 else total
        drawn.append(torch.binomial(room, share.expand(resamples), generator))
        room, total = room - drawn[-1], total - count
    return torch.stack(drawn, 1)


def bootstrap_mean_interval(
    values: Tensor, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean of any numbers, one per sample.

    The result depends on the order of the samples: sort them where it must not.

    Args:
        values: (n,).
        level: Probability that the interval covers, in (0, 1).
        resamples: Number of resamples.
        seed: Seed of the draws.

    Returns:
        Lower and upper end; nan without a sample.
    """
    if not len(values):
        return math.nan, math.nan
    values = values.detach().to("cpu", torch.float64)
    generator = torch.Generator().manual_seed(seed)
    means = torch.stack(
        [values[torch.randint(len(values), (len(values),), generator=generator)].mean() for _ in range(resamples)]
    )
    tail = (1 - level) / 2
    low, high = torch.quantile(means, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high
