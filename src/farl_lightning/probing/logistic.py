"""Logistic regression by L-BFGS, in directions that are scaled to be about equally steep."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from farl_lightning.functional.random import keyed_generator
from farl_lightning.probing.spectrum import Spectrum

PENALTIES = (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5)
"""Factors of half the squared weights that are tried, from strong to weak."""

FEW_SHOT_PENALTY = 0.1
"""The factor where there are too few faces to hold any out."""

HELD_OUT = 5
"""One face of so many chooses the penalty; the final weights are fitted to all."""

MIN_FACES = 50
"""Below so many training faces none is held out."""

CHOICE_STEPS = 20
"""L-BFGS iterations of each fit that only helps to choose a penalty."""

Loss = Literal["class", "attributes", "number"]

CURVATURE: dict[str, float] = {"class": 0.5, "attributes": 0.25, "number": 1.0}
"""Largest curvature of each loss in its outputs, whatever they are."""


def probe_loss(outputs: Tensor, targets: Tensor, kind: Loss) -> Tensor:
    """Return the mean loss over the labels that are known.

    Args:
        outputs: (n, K).
        targets: (n,) classes from 0; (n, A) of 1, 0, -1; or (n,) numbers.
        kind: Cross-entropy for classes, binary cross-entropy for attributes (summed over attributes, each averaged over
            the faces that it is known of), half the squared error for numbers.
    """
    if kind == "class":
        return F.cross_entropy(outputs, targets)
    if kind == "number":
        return (outputs[:, 0] - targets).square().mean() / 2
    known = targets >= 0
    each = F.binary_cross_entropy_with_logits(outputs, targets.clamp(min=0).to(outputs.dtype), reduction="none")
    return ((each * known).sum(0) / known.sum(0).clamp(min=1)).sum()


def fit_logistic(
    spectrum: Spectrum, targets: Tensor, outputs: int, kind: Loss, seed: int = 0
) -> tuple[Tensor, Tensor, float]:
    """Fit by L-BFGS, with the penalty that suits a fifth of the training faces best.

    Args:
        spectrum: Of the training faces.
        targets: (n,) classes or (n, A) attributes, see :func:`probe_loss`.
        outputs: Number of classes or attributes K.
        kind: ``"class"`` or ``"attributes"``.
        seed: Which faces are held out for the choice.

    Returns:
        (R, K) weights of the rotated features, (K,) biases, and the penalty that was chosen.
    """
    penalty = FEW_SHOT_PENALTY
    if len(targets) >= MIN_FACES:
        penalty = _choose(spectrum, targets, outputs, kind, seed)
    weights, bias = minimise(spectrum.rotated, spectrum.values, targets, outputs, kind, penalty)
    return weights, bias, penalty


def _choose(spectrum: Spectrum, targets: Tensor, outputs: int, kind: Loss, seed: int) -> float:
    """Return the penalty with the lowest loss on faces that were held out; each fit starts where the last ended."""
    order = torch.randperm(len(targets), generator=keyed_generator(seed, "penalty")).to(targets.device)
    held = len(order) // HELD_OUT
    test, train = order[:held], order[held:]
    z, y = spectrum.rotated[train], targets[train]
    losses, start = [], None
    for penalty in PENALTIES:
        start = minimise(z, spectrum.values, y, outputs, kind, penalty, start, CHOICE_STEPS)
        losses.append(float(probe_loss(spectrum.rotated[test] @ start[0] + start[1], targets[test], kind)))
        if losses[-1] > min(losses):
            break  # weaker penalties fit the training faces alone
    return PENALTIES[losses.index(min(losses))]


def minimise(
    rotated: Tensor,
    values: Tensor,
    targets: Tensor,
    outputs: int,
    kind: Loss,
    penalty: float,
    start: tuple[Tensor, Tensor] | None = None,
    steps: int = 100,
) -> tuple[Tensor, Tensor]:
    """Minimise the mean loss plus ``penalty / 2`` times the squared weights.

    The curvature of a logistic loss is at most a quarter of the covariance (Böhning, 1992; a half for classes). Scaled
    by the inverse root of this bound plus the penalty, all directions are about equally steep, and L-BFGS needs some
    tens of passes where it would need hundreds. The minimum is the same.

    Args:
        rotated: (n, R) of a :class:`~farl_lightning.probing.spectrum.Spectrum`.
        values: (R,) its eigenvalues.
        targets: See :func:`probe_loss`.
        outputs: Number of outputs K.
        kind: See :func:`probe_loss`.
        penalty: Above 0.
        start: Weights and biases to begin with.
        steps: Largest number of L-BFGS iterations.

    Returns:
        (R, K) weights of the rotated features and (K,) biases.
    """
    scale = (CURVATURE[kind] * values + penalty).rsqrt().to(rotated)[:, None]
    x = rotated * scale.T
    flat = rotated.new_zeros(x.shape[1] + 1, outputs)
    if start is not None:
        flat[:-1], flat[-1] = start[0] / scale, start[1]
    flat.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [flat], max_iter=steps, tolerance_grad=1e-6, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def _closure() -> Tensor:
        optimizer.zero_grad()
        logits = torch.addmm(flat[-1], x, flat[:-1])
        loss = probe_loss(logits, targets, kind) + 0.5 * penalty * (flat[:-1] * scale).square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(_closure)  # type: ignore[no-untyped-call]
    found = flat.detach()
    return found[:-1] * scale, found[-1]
