"""Errors of ages over a whole dataset, beside the median age."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from farl_lightning.errors import ConfigError
from farl_lightning.functional.bootstrap import bootstrap_mean_interval
from farl_lightning.functional.precision import as_float64
from farl_lightning.metrics.float64_states import Float64States
from farl_lightning.metrics.gains import Baseline

_COLUMNS = 3  # answer, truth, spread of the truth


class AgeErrors(Float64States):
    """Mean absolute error in years, cumulative score CS(theta) and epsilon-error.

    CS(theta) is the share of faces, in percent, whose error is theta years or less. The epsilon-error of ChaLearn's
    LAP challenge, ``1 - exp(-(answer - truth)^2 / (2 spread^2))``, is averaged over the faces for which annotators'
    spread is known, and left out if there is none.

    Results are read off the sorted rows of all processes, so they are the same to the last bit however the faces are
    spread. Unknown ages (nan) do not count; they are counted in ``unknown_labels``.

    Args:
        thetas: Thresholds of CS, in years.
        **kwargs: For ``torchmetrics.Metric``.

    Attributes:
        baseline: The mean error of always answering the median age of the same faces, as of the last :meth:`compute`.
        rows: One row per decade of true age, as of the last :meth:`compute`.

    Raises:
        ConfigError: If a threshold is negative, or there is none.

    Example:
        >>> metric = AgeErrors()
        >>> metric.update(torch.tensor([20.0, 41.0]), torch.tensor([22.0, 34.0]))
        >>> metric.compute()["mae"].item(), metric.compute()["cs5"].item()
        (4.5, 50.0)
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    answers: list[Tensor]
    unknown: Tensor

    def __init__(self, thetas: Sequence[float] = (5,), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not thetas or min(thetas) < 0:
            raise ConfigError(f"thetas={list(thetas)} must be one or more thresholds of 0 years or more, such as [5]")
        self.thetas = tuple(dict.fromkeys(thetas))
        self.baseline = Baseline(float("nan"), float("nan"), float("nan"), "median age")
        self.rows: list[dict[str, Any]] = []
        self.add_state("answers", [], dist_reduce_fx="cat")
        self.add_state("unknown", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, ages: Tensor, labels: Tensor, spread: Tensor | None = None, valid: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            ages: (B,) answers in years.
            labels: (B,) true ages, nan unknown.
            spread: (B,) standard deviation of annotators in years, nan unknown; None where nobody knows.
            valid: (B,) bool; False marks repeats and skipped samples that must not count. All count by default.

        Raises:
            ConfigError: If sizes differ.
        """
        if ages.shape != labels.shape or ages.ndim != 1:
            raise ConfigError(f"ages {tuple(ages.shape)} and labels {tuple(labels.shape)} must be (B,) each")
        kept = torch.ones_like(labels, dtype=torch.bool) if valid is None else valid
        known = kept & labels.isfinite()
        self.unknown += (kept & ~known).sum().to(self.unknown.device)
        columns = (ages, labels, torch.full_like(labels, torch.nan) if spread is None else spread)
        self.answers.append(torch.stack([as_float64(column[known]) for column in columns], 1).flatten())

    def compute(self) -> dict[str, Tensor]:
        """Return errors, float64.

        Returns:
            ``mae`` in years, ``cs<theta>`` in percent for each threshold, ``epsilon_error`` in [0, 1] where it is
            known, and ``unknown_labels`` (how many).
        """
        flat = dim_zero_cat(self.answers) if len(self.answers) else torch.zeros(0, dtype=torch.float64)
        device, rows = flat.device, _sorted(flat.cpu().view(-1, _COLUMNS))
        answer, truth, spread = rows.unbind(1)
        errors = (answer - truth).abs()
        self.baseline, self.rows = _baseline(errors, truth), _decades(errors, truth)
        found = {"mae": errors.mean()}
        found |= {f"cs{theta:g}": 100 * (errors <= theta).double().mean() for theta in self.thetas}
        if (known := spread > 0).any():
            found["epsilon_error"] = (1 - (-(errors[known] / spread[known]).square() / 2).exp()).mean()
        return {name: value.to(device) for name, value in found.items()} | {"unknown_labels": as_float64(self.unknown)}


def _sorted(rows: Tensor) -> Tensor:
    """Sort rows by all their columns; nan counts as -1."""
    keys = rows.nan_to_num(-1.0)
    for column in reversed(range(_COLUMNS)):
        order = keys[:, column].argsort(stable=True)
        rows, keys = rows[order], keys[order]
    return rows


def _baseline(errors: Tensor, truth: Tensor) -> Baseline:
    """Answer the median age, and compare face by face."""
    if not len(truth):
        return Baseline(float("nan"), float("nan"), float("nan"), "median age")
    trivial = (truth - truth.quantile(0.5)).abs()
    low, high = bootstrap_mean_interval(errors - trivial)
    return Baseline(float(trivial.mean()), low, high, "median age")


def _decades(errors: Tensor, truth: Tensor) -> list[dict[str, Any]]:
    """Return one row per decade of true age."""
    decades = (truth / 10).floor().long()
    rows: list[dict[str, Any]] = []
    for decade in sorted(set(decades.tolist())):
        own = errors[decades == decade]
        rows.append({"ages": f"{10 * decade}-{10 * decade + 9}", "mae": float(own.mean()), "faces": len(own)})
    return rows
