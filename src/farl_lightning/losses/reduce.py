"""Averages over what counts, never divided by zero."""

from __future__ import annotations

from torch import Tensor


def mean_over_points(values: Tensor, counted: Tensor | None = None) -> Tensor:
    """Average a value per landmark over the landmarks of each face that count.

    Args:
        values: (B, N).
        counted: (B, N) bool; None counts all.

    Returns:
        (B,); 0 for a face of which no landmark counts.
    """
    if counted is None:
        return values.mean(1)
    return values.where(counted, values.new_zeros(())).sum(1) / counted.sum(1).clamp(min=1)


def mean_over_faces(values: Tensor, valid: Tensor | None = None) -> Tensor:
    """Average a value per face over the faces that count.

    Args:
        values: (B,).
        valid: (B,) bool; None counts all.

    Returns:
        Scalar; 0 if none counts.
    """
    if valid is None:
        return values.mean()
    return values.where(valid, values.new_zeros(())).sum() / valid.sum().clamp(min=1)
