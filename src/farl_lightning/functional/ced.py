"""Cumulative error distribution of landmark errors: its curve, the area under it, and the failure rate.

Two ways to integrate: exactly (the distribution is a step function, so no grid is needed), and on the grid of FaRL's
scorer, whose rounding is part of published numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from farl_lightning.errors import ConfigError
from farl_lightning.functional.precision import as_float64

STEP = 1e-4
"""Distance of two thresholds on the reference's grid."""


def ced(errors: Tensor, thresholds: Tensor) -> Tensor:
    """Share of errors up to each threshold.

    Args:
        errors: (M,) normalised errors.
        thresholds: (K,), any order.

    Returns:
        (K,) float64 in [0, 1]; NaN without errors.
    """
    ordered = as_float64(errors).sort().values
    counts = torch.searchsorted(ordered, as_float64(thresholds).to(ordered.device), right=True)
    return counts.double() / len(errors)


def auc_exact(errors: Tensor, threshold: float) -> Tensor:
    """Area under the curve from 0 to the threshold, divided by the threshold: the mean of ``max(0, 1 - e / t)``.

    Args:
        errors: (M,) normalised errors.
        threshold: Where the curve is cut, above 0.

    Returns:
        Scalar float64 in [0, 1]; NaN without errors.
    """
    return (1 - as_float64(errors) / _positive(threshold)).clamp(min=0).mean()


def failure_rate_exact(errors: Tensor, threshold: float) -> Tensor:
    """Share of errors above the threshold.

    Args:
        errors: (M,) normalised errors.
        threshold: The largest error that is no failure, above 0.

    Returns:
        Scalar float64 in [0, 1]; NaN without errors.
    """
    return (as_float64(errors) > _positive(threshold)).double().mean()


def reference_grid(threshold: float, step: float = STEP) -> Tensor:
    """Thresholds that FaRL's scorer evaluates: ``arange(0, threshold + step, step)`` in double precision.

    Rounding decides whether the last one is ``threshold`` (0.1: 1001 thresholds) or one step more (AFLW's 0.07: 702
    thresholds up to 0.0701, past which the area is then integrated).

    Args:
        threshold: Where the curve is meant to end, above 0.
        step: Distance of two thresholds, above 0.

    Returns:
        (K,) float64.
    """
    count = math.ceil((_positive(threshold) + step) / step)
    return torch.arange(count, dtype=torch.float64) * step  # as numpy rounds; a torch range of reals rounds otherwise


def auc_reference(errors: Tensor, threshold: float, *, step: float = STEP, rule: str = "cartwright") -> Tensor:
    """Area under the curve as FaRL's scorer integrates it: Simpson's rule on :func:`reference_grid`.

    Args:
        errors: (M,) normalised errors; rounded to float32, as the scorer keeps them.
        threshold: Where the curve is meant to end, and what the area is divided by.
        step: Distance of two thresholds.
        rule: What :func:`simpson` does with an even number of thresholds.

    Returns:
        Scalar float64; NaN without errors. It can exceed 1 by a step where the grid exceeds the threshold.
    """
    grid = reference_grid(threshold, step)
    return simpson(ced(errors.float(), grid), step, rule=rule) / threshold


def failure_rate_reference(errors: Tensor, threshold: float, *, step: float = STEP) -> Tensor:
    """Share of errors above the *last* threshold of :func:`reference_grid`, as FaRL's scorer takes it.

    Args:
        errors: (M,) normalised errors; rounded to float32, as the scorer keeps them.
        threshold: Where the curve is meant to end.
        step: Distance of two thresholds.

    Returns:
        Scalar float64 in [0, 1]; NaN without errors.
    """
    last = reference_grid(threshold, step)[-1:]
    return 1 - ced(errors.float(), last)[0]


def simpson(values: Tensor, step: float, *, rule: str = "cartwright") -> Tensor:
    """Integrate equally spaced samples by Simpson's rule.

    With an even number of samples one interval is left over. ``"cartwright"`` (scipy 1.11 and later) takes for it the
    parabola through the last three samples; ``"average"`` (before) averages leaving over the first and the last
    interval, taken as a trapezoid.

    Args:
        values: (K,) samples, two or more.
        step: Their distance.
        rule: ``"cartwright"`` or ``"average"``; without effect for an odd number.

    Returns:
        Scalar float64.

    Raises:
        ConfigError: If the rule is unknown or there are fewer than two samples.
    """
    values, count = as_float64(values), len(values)
    if rule not in ("cartwright", "average") or count < 2:
        raise ConfigError(f"simpson({count} samples, rule='{rule}'): give 2 or more, 'cartwright' or 'average'")
    if count % 2:
        return _odd_simpson(values, step)
    if count == 2:
        return values.sum() * step / 2
    if rule == "average":
        first = _odd_simpson(values[:-1], step) + (values[-2] + values[-1]) * step / 2
        last = _odd_simpson(values[1:], step) + (values[0] + values[1]) * step / 2
        return (first + last) / 2
    tail = (5 * values[-1] + 8 * values[-2] - values[-3]) * step / 12
    return _odd_simpson(values[:-1], step) + tail


def _odd_simpson(values: Tensor, step: float) -> Tensor:
    """Simpson's rule for an odd number of samples."""
    return (values[0] + 4 * values[1::2].sum() + 2 * values[2:-1:2].sum() + values[-1]) * step / 3


def _positive(threshold: float) -> float:
    """Check a threshold."""
    if not threshold > 0:
        raise ConfigError(f"threshold={threshold} must be above 0; WFLW is read at 0.1, AFLW-19 at 0.07")
    return threshold
