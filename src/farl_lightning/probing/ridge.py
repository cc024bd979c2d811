"""Least squares with a penalty in closed form, the penalty chosen by leaving each face out in turn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from farl_lightning.functional.precision import as_float64
from farl_lightning.probing.spectrum import Spectrum

PENALTIES = tuple(10.0**power for power in range(-6, 4))
"""Penalties that are tried, relative to the mean variance of the features."""


def fit_ridge(
    spectrum: Spectrum, targets: Tensor, known: Tensor | None = None, penalties: Sequence[float] = PENALTIES
) -> tuple[Tensor, Tensor, float]:
    r"""Minimise the squared error plus a penalty on the weights.

    With eigenvectors at hand every penalty costs two matrix products, and the error on a face that was left out is its
    residual over ``1 - h`` with the leverage h (Hoerl and Kennard 1970; Allen's PRESS, 1974): exact, without refitting.

    Args:
        spectrum: Of the training faces.
        targets: (n, K) what each face should give.
        known: (n, K) bool; an unknown target stands at its column's mean, and its error does not count.
        penalties: Times n are the factors of the squared weights; the best one over all columns is taken.

    Returns:
        (R, K) weights of the rotated features, (K,) biases, and the penalty that was chosen.
    """
    known = torch.ones_like(targets, dtype=torch.bool) if known is None else known
    wanted, weights = as_float64(targets), as_float64(known)
    bias = (wanted.where(known, wanted.new_zeros(())) * weights).sum(0) / weights.sum(0).clamp(min=1)
    residual = (wanted - bias).where(known, wanted.new_zeros(()))
    z = as_float64(spectrum.rotated)
    moments, squares = z.T @ residual / len(z), z.square()
    best: tuple[float, float] = (float("inf"), penalties[0])
    for penalty in penalties:
        inverse = 1 / (spectrum.values + penalty)
        leverage = squares @ inverse / len(z) + 1 / len(z)
        left_out = (residual - z @ (moments * inverse[:, None])) / (1 - leverage).clamp(min=1e-9)[:, None]
        error = float((left_out.square() * weights).sum() / weights.sum().clamp(min=1))
        best = min(best, (error, penalty))
    found = moments / (spectrum.values + best[1])[:, None]
    return found.to(spectrum.rotated), bias.to(spectrum.rotated), best[1]
