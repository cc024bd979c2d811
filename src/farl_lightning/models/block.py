"""A transformer block that can compute only the tokens somebody reads."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor


class QueryBlock(Block):
    """timm's pre-norm ViT block, able to answer for some tokens only.

    Keys and values always come from every token, so the tokens that are computed are the same as in the full block;
    the attention rows, the output projection and the MLP of the others are left out. All of it happens inside
    ``forward``, where sharding and low-rank adapters hook in.
    """

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        class_only: int = 0,
        at: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Run the block.

        Args:
            x: (B, L, D) tokens, the class token first.
            attn_mask: Additive or boolean mask as in ``scaled_dot_product_attention``; for the full block only.
            is_causal: Whether a token sees only the tokens before it; for the full block only.
            class_only: For the first so many sequences of the batch, compute the class token alone.
            at: (B, Q) int64 positions in each sequence; compute these tokens alone.

        Returns:
            (B, L, D); with ``at`` (B, Q, D); with ``class_only`` = n two tensors, (n, 1, D) and (B - n, L, D).
        """
        query, key, value = self._project(self.norm1(x))
        if at is not None:
            return self._finish(_take(x, at), _take(query.transpose(1, 2), at).transpose(1, 2), key, value)
        if not class_only:
            return self._finish(x, query, key, value, attn_mask, is_causal)
        if class_only == x.shape[0]:
            return self._finish(x[:, :1], query[:, :, :1], key, value), x[:0]
        (x0, x1), (q0, q1), (k0, k1), (v0, v1) = (
            torch.split(part, [class_only, len(x) - class_only]) for part in (x, query, key, value)
        )
        return self._finish(x0[:, :1], q0[:, :, :1], k0, v0), self._finish(x1, q1, k1, v1)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each (B, heads, L, D / heads)."""
        # unbinding the third axis lets the backward pass write one packed gradient without a second copy
        attention: Any = self.attn
        packed = attention.qkv(x).unflatten(-1, (3, attention.num_heads, attention.head_dim))
        query, key, value = (part.transpose(1, 2) for part in packed.unbind(2))
        return attention.q_norm(query), attention.k_norm(key), value

    def _finish(
        self,
        x: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Attend from ``query``, and run the rest of the block on the tokens ``x`` that asked."""
        attention: Any = self.attn
        dropout = attention.attn_drop.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p=dropout, is_causal=is_causal)
        mixed = attention.norm(mixed.transpose(1, 2).flatten(2))
        watched = any(module._forward_hooks for module in self.modules() if module is not self)
        x = _add(x, self.drop_path1(self.ls1(attention.proj_drop(attention.proj(mixed)))), watched)
        return _add(x, self.drop_path2(self.ls2(self.mlp(self.norm2(x)))), watched)


def _add(x: Tensor, branch: Tensor, watched: bool) -> Tensor:
    """Add a residual branch, in its own memory where no gradient is recorded and no hook may have kept it."""
    recorded = torch.is_grad_enabled() and (x.requires_grad or branch.requires_grad)
    if recorded or watched or torch.compiler.is_compiling() or branch.dtype != x.dtype:
        return x + branch
    return branch.add_(x)


def _take(x: Tensor, at: Tensor) -> Tensor:
    """Pick positions ``at`` (B, Q) of the second axis of ``x`` (B, L, ...)."""
    index = at.view(*at.shape, *(1,) * (x.ndim - 2)).expand(-1, -1, *x.shape[2:])
    return x.gather(1, index)
