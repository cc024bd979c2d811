"""The least that can be trained on top of an encoder for dense tasks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from farl_lightning.functional.resize import resize
from farl_lightning.layers.conv_norm import batch_norm

_ENLARGE = 4  # to the resolution of the pyramid's finest level, for patches of 16 pixels


class LinearHead(nn.Module):
    """Batch norm without parameters of its own, and one linear layer per patch: a linear probe.

    Args:
        num_outputs: Channels of the logits.
        in_channels: Channels of all maps together.
    """

    def __init__(self, num_outputs: int, in_channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels, affine=False)  # taps differ much in scale
        self.classify = nn.Conv2d(in_channels, num_outputs, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Make logits.

        Args:
            maps: (B, C_i, h, w), all of one resolution.

        Returns:
            (B, num_outputs, 4 h, 4 w), enlarged bilinearly.
        """
        logits = self.classify(batch_norm(self.norm, torch.cat(list(maps), 1)))
        return resize(logits, (_ENLARGE * logits.shape[-2], _ENLARGE * logits.shape[-1]))
