"""Activations that several networks share."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SLOPE = 1.702


class _FusedQuickGELU(torch.autograd.Function):
    """``x * sigmoid(1.702 x)`` that keeps only ``x`` for the backward pass.

    Written as ``silu(1.702 x) / 1.702``: two kernels forward and backward instead of three and five, and one saved
    tensor instead of two. The hidden layer of an MLP is the largest activation of a ViT, so this is felt.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Compute the activation; only the first scaling takes new memory."""
        ctx.save_for_backward(x)
        return F.silu(x * _SLOPE, inplace=True).div_(_SLOPE)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """Return the gradient of the input from the input."""
        (x,) = ctx.saved_tensors
        grad: Tensor = torch.ops.aten.silu_backward(grads[0], x * _SLOPE)  # the slopes of both scalings cancel
        return grad


class QuickGELU(nn.Module):
    """CLIP's approximation of GELU, ``x * sigmoid(1.702 x)`` (Hendrycks and Gimpel, arXiv:1606.08415, section 2).

    OpenAI's CLIP and FaRL were trained with it; exact GELU in its place silently worsens their features.

    Args:
        inplace: Whether the input may be overwritten where no gradient is recorded: fresh memory for the largest tensor
            of a block costs a CPU as much time as the activation.
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation elementwise.

        Args:
            x: Any shape, floating point.

        Returns:
            The same shape and dtype.
        """
        if torch.compiler.is_compiling():
            return x * torch.sigmoid(_SLOPE * x)
        if not (x.requires_grad and torch.is_grad_enabled()):
            scaled = x.mul_(_SLOPE) if self.inplace else x * _SLOPE
            return F.silu(scaled, inplace=True).div_(_SLOPE)
        result: Tensor = _FusedQuickGELU.apply(x)
        return result
