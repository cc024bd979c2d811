"""Averages over what counts, never divided by zero."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class LabelLoss(NamedTuple):
    """Losses of labels, of which some are unknown."""

    values: Tensor
    """(B,) per face or (B, A) per face and label, float32 at least; finite also where nothing is known."""
    known: Tensor
    """The same shape, bool: which of them count."""
    parts: dict[str, Tensor] = {}  # noqa: RUF012 - never changed
    """What ``values`` are the sum of, without weights and gradient, by name; empty when they are one thing."""


def mean_known(values: Tensor, known: Tensor) -> Tensor:
    """Average over the labels that are known to this process.

    Args:
        values: Losses of any shape.
        known: Bool of the same shape.

    Returns:
        Scalar; 0 if none is known.
    """
    return values.where(known, values.new_zeros(())).sum() / known.sum().clamp(min=1)


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
