"""FaRL pretraining the plain way: what the speed of ours is measured against.

Ordinary torch, as one would write it from the paper: fp32, every transformer block checkpointed (FaRL's default),
attention as softmax of a full score matrix, all 77 text positions, the vocabulary's logits at all patches and picked at
the masked ones afterwards. Parameters carry the names of FaRL's released file, so that the same weights load into ours.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class Sizes:
    """Sizes of the two towers and of the masked-image head; the defaults are ViT-B/16 with six head blocks."""

    image_size: int = 224
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    masked_image_depth: int = 6
    vocabulary: int = 8192
    embed_dim: int = 512
    text_width: int = 512
    text_depth: int = 12
    text_heads: int = 8
    text_vocabulary: int = 49408
    context_length: int = 77

    @property
    def num_patches(self) -> int:
        """Patches of one image."""
        return (self.image_size // self.patch_size) ** 2


class QuickGELU(nn.Module):
    """CLIP's activation, ``x * sigmoid(1.702 x)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation elementwise."""
        return x * torch.sigmoid(1.702 * x)


class Attention(nn.Module):
    """Multi-head self-attention with an explicit score matrix; parameters named as in ``nn.MultiheadAttention``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * width, width)))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attend among the tokens of each sample.

        Args:
            x: (B, N, D).
            mask: (N, N) added to the scores, or None.
        """
        batch, tokens, width = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(width // self.heads)
        if mask is not None:
            scores = scores + mask
        mixed = scores.softmax(dim=-1) @ v
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(width, 4 * width), gelu=QuickGELU(), c_proj=nn.Linear(4 * width, width))
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Map (B, N, D) to (B, N, D)."""
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """Blocks in a row, each recomputed in the backward pass when ``checkpointing`` is set."""

    checkpointing = True

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads) for _ in range(depth))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (B, N, D) to (B, N, D)."""
        for block in self.resblocks:
            x = checkpoint(block, x, mask, use_reentrant=False) if self.checkpointing else block(x, mask)
        return x


class PlainImageEncoder(nn.Module):
    """The vision transformer with FaRL's masked-image branch."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width, scale = sizes.width, sizes.width**-0.5
        self.conv1 = nn.Conv2d(3, width, sizes.patch_size, sizes.patch_size, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(sizes.num_patches + 1, width))
        self.mask_token = nn.Parameter(scale * torch.randn(width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, sizes.depth, sizes.heads)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, sizes.embed_dim))
        self.lm_transformer = Transformer(width, sizes.masked_image_depth, sizes.heads)
        self.ln_lm = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, sizes.vocabulary)

    def forward(self, images: Tensor, patch_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode clean and masked images in one doubled batch.

        Args:
            images: (B, 3, H, W) float.
            patch_mask: (B, N) bool, True = masked.

        Returns:
            Features of the clean images (B, E), logits at the masked patches (sum of the mask, V).
        """
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        hidden = patch_mask.unsqueeze(-1).to(patches.dtype)
        masked = patches * (1 - hidden) + self.mask_token * hidden
        x = torch.cat([patches, masked])
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        clean, masked = self.transformer(self.ln_pre(x)).chunk(2)
        logits = self.lm_head(self.ln_lm(self.lm_transformer(masked)[:, 1:]))
        return self.ln_post(clean[:, 0]) @ self.proj, logits[patch_mask]


class PlainFaRL(nn.Module):
    """Both towers and FaRL's loss: image-text contrast plus cross entropy of masked patches."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.text_width
        self.visual = PlainImageEncoder(sizes)
        self.token_embedding = nn.Embedding(sizes.text_vocabulary, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(sizes.context_length, width))
        self.transformer = Transformer(width, sizes.text_depth, sizes.text_heads)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(width**-0.5 * torch.randn(width, sizes.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        future = torch.full((sizes.context_length, sizes.context_length), -torch.inf).triu(1)
        self.register_buffer("future", future, persistent=False)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def encode_text(self, text: Tensor) -> Tensor:
        """Encode token ids (B, L) to features (B, E), pooled at the end-of-text token (the largest id)."""
        x = self.token_embedding(text) + self.positional_embedding
        x = self.ln_final(self.transformer(x, self.future))
        return x[torch.arange(len(x)), text.argmax(dim=-1)] @ self.text_projection

    def forward(
        self, images: Tensor, text: Tensor, patch_mask: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the loss of one batch.

        Args:
            images: (B, 3, H, W) float.
            text: (B, L) int64.
            patch_mask: (B, N) bool, True = masked.
            targets: (B, N) int64, the token of every patch.

        Returns:
            The loss (scalar), image features (B, E) and text features (B, E), not normalised.
        """
        image_features, logits = self.visual(images, patch_mask)
        text_features = self.encode_text(text)
        similarity = F.normalize(image_features, dim=-1) @ F.normalize(text_features, dim=-1).t()
        similarity = self.logit_scale.exp() * similarity
        pairs = torch.arange(len(images))
        contrast = (F.cross_entropy(similarity, pairs) + F.cross_entropy(similarity.t(), pairs)) / 2
        return contrast + F.cross_entropy(logits, targets[patch_mask]), image_features, text_features


def set_checkpointing(model: PlainFaRL, enabled: bool) -> None:
    """Turn the recomputation of blocks on or off in every transformer of the model."""
    for module in model.modules():
        if isinstance(module, Transformer):
            module.checkpointing = enabled
