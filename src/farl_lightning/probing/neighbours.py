"""Answers of the nearest training faces, by cosine similarity."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK = 1 << 24  # similarities held at once


def nearest(train: Tensor, test: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the most similar training faces of each test face.

    Args:
        train: (n, D), any length.
        test: (m, D), any length.
        k: How many, at most n.

    Returns:
        (m, k) cosines, falling, and (m, k) int64 rows of ``train``. At most 2^24 similarities are held at once.
    """
    train, test = F.normalize(train, dim=1), F.normalize(test, dim=1)
    k = min(k, len(train))
    rows = max(1, _CHUNK // max(1, len(train)))
    parts = [(test[start : start + rows] @ train.T).topk(k, dim=1) for start in range(0, len(test), rows)]
    if not parts:
        return test.new_zeros(0, k), torch.zeros(0, k, dtype=torch.int64, device=test.device)
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def vote(cosines: Tensor, targets: Tensor, known: Tensor | None = None, temperature: float = 0.07) -> Tensor:
    """Average what neighbours say, each weighted by ``exp(cosine / temperature)`` (Wu et al., arXiv:1805.01978).

    Args:
        cosines: (m, k) of :func:`nearest`.
        targets: (m, k, K) what each neighbour says.
        known: (m, k, K) bool; a neighbour without an answer does not vote.
        temperature: Lower ones trust the nearest more.

    Returns:
        (m, K) means; 0 where no neighbour has an answer.
    """
    weights = ((cosines - cosines.amax(1, keepdim=True)) / temperature).exp().unsqueeze(-1)
    if known is not None:
        weights = weights * known
    return (weights * targets).sum(1) / weights.sum(1).clamp(min=1e-30).expand(-1, targets.shape[-1])
