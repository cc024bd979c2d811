"""Learned doubling of feature maps by matrix products."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from farl_lightning.layers.conv_norm import batch_norm


class Upsample(nn.Module):
    """Enlarge a map 2, 4, 8, ... times: transposed convolutions 2x2 with stride 2, batch norm and GELU between them.

    The patches of a transposed convolution whose stride is its side do not overlap: it is a matrix product per pixel.
    Norm and GELU work on each pixel as well. So the pixels stay in the order in which they come out of the products,
    and are put in their places once, at the end.

    Args:
        channels: Channels of input and output.
        doublings: How often the sides are doubled, 1 or more.

    Attributes:
        convs: The transposed convolutions.
        norms: The batch norms between them.
    """

    def __init__(self, channels: int, doublings: int) -> None:
        super().__init__()
        convs = [nn.ConvTranspose2d(channels, channels, 2, 2) for _ in range(doublings)]
        # channels last in memory: the weights then lie as the matrix product reads them, and are not copied for it
        self.convs = nn.ModuleList(conv.to(memory_format=torch.channels_last) for conv in convs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(doublings - 1))

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge a map.

        Args:
            x: (B, C, H, W).

        Returns:
            (B, C, H * 2^n, W * 2^n), channels last in memory.
        """
        batch, channels, height, width = x.shape
        pixels = _double(self.convs[0], x.permute(0, 2, 3, 1).reshape(-1, channels))
        for norm, conv in zip(self.norms, self.convs[1:], strict=True):
            pixels = F.gelu(_norm_pixels(norm, pixels, (batch, height)))
            pixels = _double(conv, pixels)
        doublings = len(self.convs)
        placed = pixels.view(batch, height, width, *(2, 2) * doublings, channels)
        axes = (0, 1, *range(3, 3 + 2 * doublings, 2), 2, *range(4, 4 + 2 * doublings, 2), 3 + 2 * doublings)
        side = 2**doublings
        return placed.permute(axes).reshape(batch, height * side, width * side, channels).permute(0, 3, 1, 2)


def _double(conv: nn.Module, pixels: Tensor) -> Tensor:
    """Make the 2x2 pixels of every pixel: (P, C) to (P * 4, C)."""
    weight, bias = cast(Tensor, conv.weight), cast(Tensor, conv.bias)
    channels = weight.shape[1]
    table = weight.permute(0, 2, 3, 1).flatten(1)
    return torch.addmm(bias.repeat(4), pixels, table).view(-1, channels)


def _norm_pixels(norm: nn.Module, pixels: Tensor, rows: tuple[int, int]) -> Tensor:
    """Apply a batch norm to a list of pixels (P, C), which it sees as pictures with channels last.

    They keep the number of pictures and rows: of a single row of pixels torch 2.15 computes wrong gradients in this
    memory order.
    """
    channels = pixels.shape[1]
    pictures = pixels.view(*rows, -1, channels).permute(0, 3, 1, 2)
    return batch_norm(norm, pictures).permute(0, 2, 3, 1).reshape(-1, channels)
