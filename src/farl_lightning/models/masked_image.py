"""The head that guesses what lies under masked patches."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from farl_lightning.errors import ConfigError
from farl_lightning.layers.activation import QuickGELU
from farl_lightning.layers.init import init_farl_
from farl_lightning.models.block import QueryBlock


class MaskedImageHead(nn.Module):
    """FaRL's masked image modelling branch: blocks, a norm and a linear layer on the encoder's last tokens.

    The class token takes part in attention and is then dropped. Queries, MLP and logits of the last block are
    computed at masked positions only.

    Args:
        width: Channels D of a token.
        heads: Number of attention heads.
        depth: Number of blocks, 0 or more. FaRL's ablation compares 1 and 6.
        out_features: Size of the vocabulary, or values per patch for a regression target.

    Raises:
        ConfigError: If the sizes do not fit together.
    """

    def __init__(self, width: int, heads: int, depth: int, out_features: int) -> None:
        super().__init__()
        if depth < 0 or width % heads:
            raise ConfigError(
                f"a masked image head needs depth >= 0 and width a multiple of heads; got {depth=}, {width=}, {heads=}"
            )
        norm: Any = partial(nn.LayerNorm, eps=1e-5)
        activation: Any = partial(QuickGELU, inplace=True)
        self.blocks = nn.ModuleList(
            QueryBlock(width, heads, qkv_bias=True, norm_layer=norm, act_layer=activation) for _ in range(depth)
        )
        self.norm = norm(width)
        self.head = nn.Linear(width, out_features)
        self.grad_checkpointing = False
        init_farl_(self)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of storing its activations."""
        self.grad_checkpointing = enable

    def forward(self, tokens: Tensor, patch_mask: Tensor | None = None) -> Tensor:
        """Predict masked patches.

        Args:
            tokens: (B, 1 + N, D) last tokens of the encoder on masked pictures, the class token first.
            patch_mask: (B, N) bool, True = predict here; the count may differ from picture to picture and be 0.

        Returns:
            (sum of mask, out_features) in the order of ``tensor[patch_mask]``: by picture, then by patch. Without a
            mask (B, N, out_features).
        """
        for block in self.blocks[:-1]:
            tokens = self._run(block, tokens)
        if patch_mask is None or not len(self.blocks):
            tokens = self._run(self.blocks[-1], tokens) if len(self.blocks) else tokens
            patches = tokens[:, 1:]
            return self._predict(patches if patch_mask is None else patches[patch_mask])
        at, valid = masked_positions(patch_mask)
        return self._predict(self._run(self.blocks[-1], tokens, at=at + 1)[valid])

    def _run(self, block: nn.Module, tokens: Tensor, at: Tensor | None = None) -> Tensor:
        if self.grad_checkpointing and self.training:
            result: Tensor = checkpoint(block, tokens, use_reentrant=False, at=at)
        else:
            result = block(tokens, at=at)
        return result

    def _predict(self, tokens: Tensor) -> Tensor:
        result: Tensor = self.head(self.norm(tokens))
        return result


def masked_positions(patch_mask: Tensor) -> tuple[Tensor, Tensor]:
    """List the masked positions of each picture in rows of equal length.

    Args:
        patch_mask: (B, N) bool.

    Returns:
        ``at`` (B, Q) int64, ascending, Q the largest count (at least 1), and ``valid`` (B, Q) bool: False where a
        picture has fewer.
    """
    counts = patch_mask.sum(1)
    longest = max(int(counts.max()), 1) if len(counts) else 1  # a process may be left without a picture
    at = torch.sort(patch_mask, dim=1, descending=True, stable=True).indices[:, :longest]
    return at, torch.arange(longest, device=at.device) < counts.unsqueeze(1)
