"""Normalised landmark errors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from farl_lightning.errors import ConfigError, did_you_mean

EyeIndices = tuple[tuple[int, ...], tuple[int, ...]]
"""Indices of the points whose means make the two ends of a distance."""

INTER_OCULAR: dict[int, EyeIndices] = {
    68: ((36,), (45,)),  # iBUG 300-W
    98: ((60,), (72,)),  # WFLW
    29: ((8,), (9,)),  # COFW
    19: ((6,), (11,)),  # AFLW
}
"""Outer corners of the eyes, by number of landmarks."""

INTER_PUPIL: dict[int, EyeIndices] = {
    68: (tuple(range(36, 42)), tuple(range(42, 48))),
    98: ((96,), (97,)),
    29: ((16,), (17,)),
    19: ((7,), (10,)),
}
"""Centres of the eyes, by number of landmarks."""

NORMALIZERS = ("inter_ocular", "inter_pupil", "box", "diag", "none")
"""Names that :func:`norm_distance` knows."""


def norm_distance(
    target: Tensor, normalizer: str, *, box: Tensor | None = None, indices: Sequence[Sequence[int]] | None = None
) -> Tensor:
    """Distance in pixels by which the landmark errors of each face are divided.

    Args:
        target: (B, N, 2) true landmarks in pixels.
        normalizer: ``"inter_ocular"``: between the outer corners of the eyes. ``"inter_pupil"``: between their centres
            (for 68 points the mean of each eye's six). ``"box"``: ``sqrt(w * h)`` of the box. ``"diag"``:
            ``sqrt(w^2 + h^2)`` of the box. ``"none"``: 1, so that errors stay in pixels.
        box: (B, 4) left, top, right, bottom in pixels; needed by the two that read it.
        indices: Two lists of landmark indices whose means make the ends of the distance between the eyes, for orders
            other than 68 (300-W), 98 (WFLW), 29 (COFW) and 19 (AFLW) points.

    Returns:
        (B,) in the dtype of ``target``. Not above 0 (or NaN) where the annotation is degenerate.

    Raises:
        ConfigError: If the name is unknown, or box or indices are missing.
    """
    if normalizer not in NORMALIZERS:
        raise ConfigError(f"normalizer='{normalizer}' is unknown. {did_you_mean(normalizer, NORMALIZERS)}")
    if normalizer == "none":
        return target.new_ones(len(target))
    if normalizer in ("box", "diag"):
        if box is None:
            raise ConfigError(f"normalizer='{normalizer}' needs a box per face; give box (B, 4)")
        sides = (box[:, 2:] - box[:, :2]).to(target)
        sides = sides.where(sides > 0, sides.new_tensor(torch.nan))  # an empty or inverted box is no measure
        return sides.prod(1).sqrt() if normalizer == "box" else sides.norm(dim=1)
    first, second = eye_indices(target.shape[1], normalizer, indices)
    distance: Tensor = (target[:, first].mean(1) - target[:, second].mean(1)).norm(dim=-1)
    return distance


def eye_indices(
    num_landmarks: int, normalizer: str, indices: Sequence[Sequence[int]] | None = None
) -> tuple[list[int], list[int]]:
    """Return the two sets of points between which a distance of the eyes is measured.

    Args:
        num_landmarks: Number of points of the order.
        normalizer: ``"inter_ocular"`` or ``"inter_pupil"``.
        indices: Own sets instead of the known ones.

    Raises:
        ConfigError: If the order is unknown and no indices are given, or they do not fit.
    """
    table = INTER_OCULAR if normalizer == "inter_ocular" else INTER_PUPIL
    chosen = table.get(num_landmarks) if indices is None else indices
    if chosen is None:
        raise ConfigError(
            f"normalizer='{normalizer}' is known for {', '.join(map(str, sorted(table)))} landmarks, not for "
            f"{num_landmarks}; give indices=[[...], [...]] of the points of both eyes"
        )
    if len(chosen) != 2 or not all(len(s) and all(0 <= i < num_landmarks for i in s) for s in chosen):
        raise ConfigError(f"indices={chosen} must be two lists of landmark indices in 0..{num_landmarks - 1}")
    return list(chosen[0]), list(chosen[1])


def landmark_errors(pred: Tensor, target: Tensor, distance: Tensor, *, visible: Tensor | None = None) -> Tensor:
    """Mean distance of predicted to true landmarks of each face, in units of its own distance.

    Args:
        pred: (B, N, 2) predicted landmarks in pixels.
        target: (B, N, 2) true landmarks in the same pixels.
        distance: (B,) what errors are divided by, from :func:`norm_distance`.
        visible: (B, N) bool, the points that count; all by default (benchmarks count hidden points too).

    Returns:
        (B,) errors, 0.03 means 3 %. NaN where no error can be told: the distance is 0 or not a number, or no point
        counts. Infinite where the prediction is not finite, so that it counts as a failure.

    Raises:
        ConfigError: If the shapes do not fit.
    """
    if pred.shape != target.shape or target.ndim != 3 or target.shape[-1] != 2:
        raise ConfigError(f"landmarks {tuple(pred.shape)} and {tuple(target.shape)} must both be (B, N, 2)")
    errors = torch.nan_to_num((pred - target).norm(dim=-1), nan=torch.inf)
    counted = torch.ones_like(errors, dtype=torch.bool) if visible is None else visible
    mean = errors.where(counted, errors.new_zeros(())).sum(1) / counted.sum(1)
    usable = (distance > 0) & distance.isfinite() & target.isfinite().all(-1).logical_or(~counted).all(1)
    return (mean / distance).masked_fill(~usable, torch.nan)
