"""Losses over masked patches. Their number varies from image to image and from process to process.

Both divide by the *global* number of masked patches, so that the mean over processes of the losses (and of the
gradients, as DDP and FSDP average them) is the mean over all masked patches of the joint batch. Every process must call
them in every step, also one without a masked patch.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from farl_lightning.functional.distributed import global_mean
from farl_lightning.functional.precision import at_least_float32


def masked_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of predicted visual tokens (BEiT, arXiv 2106.08254).

    Args:
        logits: (M, V), one row per masked patch of this process; M may be 0.
        targets: (M,) int64 token ids in [0, V).

    Returns:
        The scalar loss, float32 at least; its mean over processes is the mean over all masked patches.
    """
    losses = F.cross_entropy(at_least_float32(logits), targets, reduction="sum")
    return global_mean(losses, len(logits))


def masked_pixel_loss(prediction: Tensor, targets: Tensor) -> Tensor:
    """Squared error of predicted pixels, averaged within each patch (MAE, arXiv 2111.06377).

    Args:
        prediction: (M, P), one row of P pixel values per masked patch of this process; M may be 0.
        targets: (M, P), the true values.

    Returns:
        The scalar loss, float32 at least; its mean over processes is the mean over all masked patches.
    """
    errors = (at_least_float32(prediction) - targets).square().mean(dim=1).sum()
    return global_mean(errors, len(prediction))
