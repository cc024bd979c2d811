"""A convolution with its batch norm and activation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, ReLU.

    Weights are drawn as He et al. (arXiv:1502.01852) do, by the number of outputs.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel, odd; the borders are padded with zeros so that the size stays.

    Attributes:
        conv: The convolution.
        norm: The batch norm.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Run all three.

        Args:
            x: (B, C, H, W).

        Returns:
            (B, C', H, W).
        """
        return F.relu(batch_norm(self.norm, self.conv(x)))


def batch_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """Apply a batch norm; where a batch has a single value per channel, with the running statistics.

    Such a batch has no variance and torch refuses it. It is met when the last batch of an epoch holds one picture,
    which should end no run.

    Args:
        norm: ``nn.BatchNorm2d``, or the ``SyncBatchNorm`` that a trainer makes of it.
        x: (B, C, H, W).
    """
    if isinstance(norm, nn.BatchNorm2d) and norm.training and x.numel() == x.shape[1]:
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    result: Tensor = norm(x)
    return result
