"""Linear layers by stochastic gradient descent, as linear evaluations of self-supervised learning fit them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from farl_lightning.functional.random import keyed_generator
from farl_lightning.probing.logistic import CURVATURE, Loss, probe_loss
from farl_lightning.probing.spectrum import Spectrum

EPOCHS = 50
"""Passes over the training faces, at least."""

MIN_STEPS = 500
"""Steps, at least: few faces are passed over more often."""

STEP = 0.3
"""Highest learning rate times the largest curvature; above 3.8, momentum 0.9 diverges."""


def fit_sgd(
    spectrum: Spectrum, targets: Tensor, outputs: int, kind: Loss, *, batch_size: int = 256, seed: int = 0
) -> tuple[Tensor, Tensor, float]:
    """Fit by stochastic gradient descent: momentum 0.9, no weight decay, a learning rate that falls as half a cosine.

    The learning rate is measured by the features: their largest eigenvalue bounds how steep the loss can be, so that no
    features make it diverge and none have to be tuned for.

    Args:
        spectrum: Of the training faces.
        targets: See :func:`~farl_lightning.probing.logistic.probe_loss`.
        outputs: Number of outputs K.
        kind: Which loss.
        batch_size: Faces per step.
        seed: Order of the faces.

    Returns:
        (R, K) weights of the rotated features, (K,) biases, and the number of passes.
    """
    features = spectrum.rotated
    size = len(features)
    epochs = max(EPOCHS, math.ceil(MIN_STEPS / math.ceil(size / batch_size)))
    flat = features.new_zeros(features.shape[1] + 1, outputs).requires_grad_()
    steepest = CURVATURE[kind] * max(1.0, float(spectrum.values.amax()) if len(spectrum.values) else 1.0)
    optimizer = torch.optim.SGD([flat], lr=STEP / steepest, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _half_cosine(epochs * math.ceil(size / batch_size)))
    generator = keyed_generator(seed, "sgd")
    with torch.enable_grad():
        for _ in range(epochs):
            order = torch.randperm(size, generator=generator).to(features.device)
            for first in range(0, size, batch_size):
                rows = order[first : first + batch_size]
                optimizer.zero_grad()
                found = torch.addmm(flat[-1], features[rows], flat[:-1])
                probe_loss(found, targets[rows], kind).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    return flat.detach()[:-1], flat.detach()[-1], epochs


def _half_cosine(steps: int) -> Callable[[int], float]:
    """Return a factor that falls from 1 to 0."""
    return lambda step: 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))
