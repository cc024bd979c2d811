"""The head with which facer reads CelebA's attributes off FaRL."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class AttributeHead(nn.Module):
    """A learned mixture of pooled tokens, and one linear layer.

    Each tap gives three vectors: mean and maximum of the patches, and the class token. Each has a layer norm of its
    own; the mixture is weighted by a softmax over all vectors.

    Args:
        width: Channels D of a token.
        num_attributes: Number of attributes A.
        num_taps: Number of blocks that are read.
        dropout: Rate at which channels of the mixture are dropped, in training; 0 in facer.

    Attributes:
        norms: A layer norm per vector.
        weights: (1, 3 * taps, 1) weights of the mixture before the softmax.
        classify: The linear layer.
    """

    def __init__(self, width: int, num_attributes: int, num_taps: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-5) for _ in range(3 * num_taps))
        self.weights = nn.Parameter(torch.ones(1, 3 * num_taps, 1))
        self.dropout = nn.Dropout(dropout)
        self.classify: nn.Module = nn.Linear(width, num_attributes)

    def forward(self, taps: Sequence[Tensor]) -> Tensor:
        """Make logits.

        Args:
            taps: (B, 1 + N, D) tokens of each block, the class token first.

        Returns:
            (B, A) logits.
        """
        pooled = [v for t in taps for v in (t[:, 1:].mean(1), t[:, 1:].amax(1), t[:, 0])]
        vectors = torch.stack([norm(vector) for norm, vector in zip(self.norms, pooled, strict=True)], 1)
        mixed = (vectors * self.weights.softmax(1)).sum(1)
        logits: Tensor = self.classify(self.dropout(mixed))
        return logits
