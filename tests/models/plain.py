"""The towers written down the slow way: every token of every block, no fused kernels, no shortcuts."""

from __future__ import annotations

import torch
from torch import Tensor

from farl_lightning.models.image_encoder import ImageEncoder
from farl_lightning.models.masked_image import MaskedImageHead


def block(module, x: Tensor) -> Tensor:
    batch, length, width = x.shape
    heads = module.attn.num_heads
    packed = module.norm1(x) @ module.attn.qkv.weight.T + module.attn.qkv.bias
    query, key, value = packed.view(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    scores = (query @ key.transpose(-2, -1) / (width // heads) ** 0.5).softmax(-1)
    mixed = (scores @ value).transpose(1, 2).reshape(batch, length, width)
    x = x + mixed @ module.attn.proj.weight.T + module.attn.proj.bias
    hidden = module.norm2(x) @ module.mlp.fc1.weight.T + module.mlp.fc1.bias
    hidden = hidden * torch.sigmoid(1.702 * hidden)
    return x + hidden @ module.mlp.fc2.weight.T + module.mlp.fc2.bias


def tokens(encoder: ImageEncoder, images: Tensor, patch_mask: Tensor | None = None) -> list[Tensor]:
    """Return the output of every block."""
    vit = encoder.vit
    size = encoder.patch_size
    cells = images.unfold(2, size, size).unfold(3, size, size)  # B, C, rows, columns, p, p
    cells = cells.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    x = cells @ vit.patch_embed.proj.weight.flatten(1).T
    if patch_mask is not None:
        weight = patch_mask.unsqueeze(-1).to(x.dtype)
        x = x * (1 - weight) + encoder.mask_token * weight
    x = torch.cat([vit.cls_token.expand(len(x), -1, -1), x], 1) + vit.pos_embed
    x = vit.norm_pre(x)
    outputs = []
    for module in vit.blocks:
        x = block(module, x)
        outputs.append(x)
    return outputs


def feature(encoder: ImageEncoder, images: Tensor) -> Tensor:
    return encoder.vit.norm(tokens(encoder, images)[-1][:, 0]) @ encoder.proj


def logits(head: MaskedImageHead, x: Tensor) -> Tensor:
    """Return logits of all patches."""
    for module in head.blocks:
        x = block(module, x)
    return head.head(head.norm(x[:, 1:]))
