"""The head that FaRL puts on its feature pyramid, for parsing and for heatmaps."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from farl_lightning.errors import ConfigError
from farl_lightning.functional.resize import conv_resized, resize
from farl_lightning.layers.conv_norm import ConvNorm, batch_norm
from farl_lightning.layers.pyramid_pooling import PyramidPooling


class UPerHead(nn.Module):
    """UPerNet's head (Xiao et al., arXiv:1807.10221), as FaRL takes it from mmsegmentation.

    Pyramid pooling on the coarsest map, a top-down path, and a fusion at the finest resolution. Nothing works in
    place, so gradients are right.

    Args:
        num_outputs: Channels of the logits: classes, or landmarks.
        in_channels: Channels of each map, from the finest to the coarsest; one number if all have the same, four maps.
        channels: Channels inside.
        dropout: Rate at which whole channels are dropped before the last layer, in training.
        scales: Cells along a side of each grid of the pyramid pooling.

    Attributes:
        pooling: Pyramid pooling of the coarsest map.
        laterals: 1x1 convolutions of the other maps.
        smooth: 3x3 convolutions after the top-down path.
        fuse: 3x3 convolution of all levels together.
        classify: 1x1 convolution to the logits.

    Raises:
        ConfigError: If there are fewer than two maps.
    """

    def __init__(
        self,
        num_outputs: int,
        in_channels: int | Sequence[int],
        channels: int = 768,
        dropout: float = 0.1,
        scales: Sequence[int] = (1, 2, 3, 6),
    ) -> None:
        super().__init__()
        widths = [in_channels] * 4 if isinstance(in_channels, int) else list(in_channels)
        if len(widths) < 2:
            raise ConfigError(f"a UPerHead needs the channels of two maps or more; got {widths}")
        self.pooling = PyramidPooling(widths[-1], channels, scales)
        self.laterals = nn.ModuleList(ConvNorm(width, channels) for width in widths[:-1])
        self.smooth = nn.ModuleList(ConvNorm(channels, channels, 3) for _ in widths[:-1])
        self.fuse = ConvNorm(channels * len(widths), channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(channels, num_outputs, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Make logits.

        Args:
            maps: (B, C_i, H_i, W_i), from the finest to the coarsest.

        Returns:
            (B, num_outputs, H_0, W_0), at the resolution of the finest map.
        """
        levels = [self.pooling(maps[-1])]
        for lateral, one in zip(reversed(self.laterals), reversed(maps[:-1]), strict=True):
            own = lateral(one)
            levels.insert(0, own + resize(levels[0], (own.shape[-2], own.shape[-1])))
        levels = [conv(level) for conv, level in zip(self.smooth, levels[:-1], strict=True)] + levels[-1:]
        logits: Tensor = self.classify(self.dropout(self._fuse(levels)))
        return logits

    def _fuse(self, levels: Sequence[Tensor]) -> Tensor:
        """Convolve all levels at the finest resolution without enlarging them first."""
        size = (levels[0].shape[-2], levels[0].shape[-1])
        weights = self.fuse.conv.weight.chunk(len(levels), 1)
        total = F.conv2d(levels[0], weights[0], padding=1)
        for level, weight in zip(levels[1:], weights[1:], strict=True):
            total = total + conv_resized(level, weight, size)
        return F.relu(batch_norm(self.fuse.norm, total))
