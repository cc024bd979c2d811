"""What the whole picture says, at several scales."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from farl_lightning.functional.resize import resize
from farl_lightning.layers.conv_norm import ConvNorm


class PyramidPooling(nn.Module):
    """Pyramid pooling of PSPNet (Zhao et al., arXiv:1612.01105): averages over grids of the picture, and a fusion.

    Args:
        in_channels: Channels of the input.
        channels: Channels of each scale and of the output.
        scales: Cells along a side of each grid.

    Attributes:
        branches: One convolution per scale.
        fuse: 3x3 convolution of the input and all scales.
    """

    def __init__(self, in_channels: int, channels: int, scales: Sequence[int] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.branches = nn.ModuleList(ConvNorm(in_channels, channels) for _ in self.scales)
        self.fuse = ConvNorm(in_channels + channels * len(self.scales), channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Pool and fuse.

        Args:
            x: (B, C, H, W).

        Returns:
            (B, channels, H, W).
        """
        size = (x.shape[-2], x.shape[-1])
        pooled = (F.adaptive_avg_pool2d(x, scale) for scale in self.scales)
        parts = [resize(branch(cell), size) for branch, cell in zip(self.branches, pooled, strict=True)]
        result: Tensor = self.fuse(torch.cat([x, *parts], 1))
        return result
