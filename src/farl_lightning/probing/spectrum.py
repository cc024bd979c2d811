"""Features in the directions in which they vary, so that everything linear afterwards is cheap."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from farl_lightning.functional.precision import as_float64


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """Centred, scaled features X and the eigenvectors of their covariance.

    Each feature is divided by its standard deviation first, as linear evaluations with a batch norm do.

    Attributes:
        mean: (D,) of the training faces.
        scale: (D,) inverse standard deviation; 0 for a feature that never changes.
        vectors: (D, R) eigenvectors of the covariance with a positive eigenvalue, R <= D.
        values: (R,) eigenvalues, float64.
        rotated: (n, R) the training faces in these directions.
    """

    mean: Tensor
    scale: Tensor
    vectors: Tensor
    values: Tensor
    rotated: Tensor

    def rotate(self, features: Tensor) -> Tensor:
        """Return other faces in the same directions.

        Args:
            features: (m, D).

        Returns:
            (m, R).
        """
        return ((features - self.mean) * self.scale) @ self.vectors


def spectrum(features: Tensor) -> Spectrum:
    """Decompose the covariance of features.

    Args:
        features: (n, D) float32 or float64.

    Returns:
        The directions, in the dtype of ``features``; sums are taken in float64 where the device has it.
    """
    precise = as_float64(features)
    mean = precise.mean(0)
    spread = precise.std(0, correction=0)
    scale = torch.where(spread > 1e-6 * spread.amax().clamp(min=1e-30), 1 / spread, torch.zeros_like(spread))
    centred = (precise - mean) * scale
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(features))
    kept = values > 1e-9 * values.amax().clamp(min=1e-30)
    mean, scale, vectors = mean.to(features), scale.to(features), vectors[:, kept].to(features)
    return Spectrum(mean, scale, vectors, values[kept], ((features - mean) * scale) @ vectors)
