"""Heads that answer once for a whole picture: a plain linear layer, and outputs that share their weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.layers.conv_norm import batch_norm

_POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "token": lambda tokens: tokens[:, 0],
    "average": lambda tokens: tokens[:, 1:].mean(1),
}


class PooledLinearHead(nn.Module):
    """Pooled tokens of each tap, batch norm without parameters of its own, one linear layer: a linear probe.

    The batch norm gives taps one scale, as in MAE's linear probing (https://arxiv.org/abs/2111.06377, appendix A).

    Args:
        width: Channels D of a token.
        num_outputs: Number of outputs A.
        num_taps: Number of blocks that are read.
        dropout: Rate at which channels are dropped, in training.
        pool: What is read of a tap: ``"token"`` (the class token) or ``"average"`` (the mean of the patches).

    Attributes:
        norm: The batch norm.
        classify: The linear layer.

    Raises:
        ConfigError: If ``pool`` is unknown.
    """

    def __init__(
        self, width: int, num_outputs: int, num_taps: int = 1, dropout: float = 0.0, pool: str = "token"
    ) -> None:
        super().__init__()
        if pool not in _POOLS:
            raise ConfigError(f"head pool '{pool}' is not known. {did_you_mean(pool, _POOLS)}")
        self.pool = pool
        self.norm = nn.BatchNorm2d(width * num_taps, affine=False)
        self.dropout = nn.Dropout(dropout)
        self.classify: nn.Module = nn.Linear(width * num_taps, num_outputs)

    def forward(self, taps: Sequence[Tensor]) -> Tensor:
        """Make outputs.

        Args:
            taps: (B, 1 + N, D) tokens of each block, the class token first.

        Returns:
            (B, A).
        """
        pooled = torch.cat([_POOLS[self.pool](tokens) for tokens in taps], 1)
        outputs: Tensor = self.classify(self.dropout(batch_norm(self.norm, pooled[..., None, None]).flatten(1)))
        return outputs


class SharedLinear(nn.Module):
    """One weight vector for all outputs, which differ in their biases alone (CORAL, https://arxiv.org/abs/1901.07884).

    Args:
        width: Channels D.
        num_outputs: Number of outputs A.

    Attributes:
        weight: (1, D).
        bias: (A,).
    """

    def __init__(self, width: int, num_outputs: int) -> None:
        super().__init__()
        line = nn.Linear(width, 1, bias=False)
        self.weight = line.weight
        self.bias = nn.Parameter(torch.zeros(num_outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Make (B, A) outputs of (B, D) features."""
        outputs: Tensor = nn.functional.linear(features, self.weight) + self.bias
        return outputs
