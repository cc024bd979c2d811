"""Pyramid, head and dense networks written down the slow way, in the order of the paper's figures."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from farl_lightning.models.config import DenseConfig, ImageEncoderConfig
from tests.models import plain


def tiny(image_size: int = 64, patch_size: int = 8, depth: int = 4, channels: int = 6, **options) -> DenseConfig:
    """Return a configuration that runs in milliseconds."""
    image = ImageEncoderConfig(image_size=image_size, patch_size=patch_size, width=24, depth=depth, heads=3)
    return DenseConfig(image, channels=channels, **options)


def up(x: Tensor, size) -> Tensor:
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


def conv_norm(module, x: Tensor) -> Tensor:
    return F.relu(module.norm(F.conv2d(x, module.conv.weight, padding=module.conv.weight.shape[2] // 2)))


def pyramid(neck, maps: list[Tensor], patch_size: int) -> list[Tensor]:
    """FaRL's table of levels, by patch size."""
    first = neck.levels[0].convs
    if patch_size == 8:
        return [first[0](maps[0]), maps[1], F.max_pool2d(maps[2], 2), F.max_pool2d(maps[3], 4)]
    middle = F.gelu(neck.levels[0].norms[0](first[0](maps[0])))
    return [first[1](middle), neck.levels[1].convs[0](maps[1]), maps[2], F.max_pool2d(maps[3], 2)]


def upernet(head, maps: list[Tensor], scales=(1, 2, 3, 6)) -> Tensor:
    """Every resized map is made, and the fusion convolves their concatenation."""
    laterals = [conv_norm(one, x) for one, x in zip(head.laterals, maps[:-1], strict=True)]
    last = maps[-1]
    pooled = [
        up(conv_norm(one, F.adaptive_avg_pool2d(last, scale)), last.shape[2:])
        for one, scale in zip(head.pooling.branches, scales, strict=True)
    ]
    laterals.append(conv_norm(head.pooling.fuse, torch.cat([last, *pooled], 1)))
    for index in range(len(laterals) - 1, 0, -1):
        laterals[index - 1] = laterals[index - 1] + up(laterals[index], laterals[index - 1].shape[2:])
    outs = [conv_norm(one, x) for one, x in zip(head.smooth, laterals[:-1], strict=True)] + laterals[-1:]
    joined = torch.cat([up(x, outs[0].shape[2:]) for x in outs], 1)
    return F.conv2d(conv_norm(head.fuse, joined), head.classify.weight, head.classify.bias)


def tap_maps(encoder, images: Tensor, taps) -> list[Tensor]:
    """Return the patch tokens behind some blocks as maps."""
    tokens = plain.tokens(encoder, up(images, (encoder.image_size, encoder.image_size)))
    rows, columns = encoder.grid
    return [tokens[tap][:, 1:].transpose(1, 2).reshape(len(images), -1, rows, columns) for tap in taps]


def logits(network, images: Tensor) -> Tensor:
    """Run encoder, pyramid and head."""
    maps = tap_maps(network.encoder, images, network.taps)
    return upernet(network.head, pyramid(network.neck, maps, network.encoder.patch_size))
