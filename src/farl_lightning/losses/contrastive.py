"""Contrastive losses between images and texts over the global batch, computed in rank-local rows.

With B pairs in total and b of them on this process, memory is O(b * B) and never O(B * B). The mean of the losses over
processes is the loss of the joint batch, and the mean of the gradients, as DDP and FSDP take it, is its gradient.
Similarities are taken in float32 at least, also under autocast: bfloat16 would round logits near 100 to steps of 0.5.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from farl_lightning.functional.distributed import all_gather_with_grad, rank
from farl_lightning.functional.precision import at_least_float32


class PairLogits(NamedTuple):
    """Scaled similarities of this process's b items to the B possible partners of all processes.

    Attributes:
        logits: (b, B), float32 at least.
        targets: (b,) int64, the column of each row's true partner.
    """

    logits: Tensor
    targets: Tensor


def pair_logits(features: Tensor, partners: Tensor, logit_scale: Tensor, *, gather: bool = True) -> PairLogits:
    """Compare the own items with the partners of all processes.

    Args:
        features: (b, E), L2-normalised; b is the same on every process.
        partners: (b, E), L2-normalised; row i is the true partner of item i.
        logit_scale: The factor of the similarities, already exponentiated; one element.
        gather: Whether the partners of other processes are candidates too.
    """
    with torch.autocast(features.device.type, enabled=False):
        candidates = at_least_float32(partners)
        candidates = all_gather_with_grad(candidates) if gather else candidates
        scaled = at_least_float32(logit_scale).reshape(()) * at_least_float32(features)
        first = rank() * len(features) if gather else 0
        targets = torch.arange(first, first + len(features), device=features.device)
        return PairLogits(scaled @ candidates.T, targets)


def info_nce(images: PairLogits, texts: PairLogits) -> Tensor:
    """Average the cross entropy of both directions (CLIP, arXiv 2103.00020).

    Args:
        images: Own images against all texts, from :func:`pair_logits`.
        texts: Own texts against all images.

    Returns:
        The scalar loss.
    """
    return (F.cross_entropy(*images) + F.cross_entropy(*texts)) / 2


def pairwise_sigmoid(images: PairLogits) -> Tensor:
    """Classify each pair as true or false, sum over all pairs, divide by the number of rows (SigLIP, arXiv 2303.15343).

    Args:
        images: Own images against all texts, bias included.

    Returns:
        The scalar loss.
    """
    signs = torch.full_like(images.logits, -1).scatter_(1, images.targets[:, None], 1)
    return -F.logsigmoid(signs * images.logits).sum() / len(signs)


def clip_loss(image_features: Tensor, text_features: Tensor, logit_scale: Tensor, *, gather: bool = True) -> Tensor:
    """Symmetric InfoNCE over the global batch (CLIP, arXiv 2103.00020).

    Args:
        image_features: (b, E), L2-normalised; b is the same on every process.
        text_features: (b, E), L2-normalised; row i belongs to image i.
        logit_scale: The factor of the similarities, already exponentiated; one element.
        gather: Whether the pairs of other processes are negatives too.

    Returns:
        The scalar loss of the own rows; its mean over processes is the loss of the joint batch.
    """
    images = pair_logits(image_features, text_features, logit_scale, gather=gather)
    texts = pair_logits(text_features, image_features, logit_scale, gather=gather)
    return info_nce(images, texts)


def siglip_loss(
    image_features: Tensor, text_features: Tensor, logit_scale: Tensor, logit_bias: Tensor, *, gather: bool = True
) -> Tensor:
    """Pairwise sigmoid loss over the global batch (SigLIP, arXiv 2303.15343).

    Args:
        image_features: (b, E), L2-normalised; b is the same on every process.
        text_features: (b, E), L2-normalised; row i belongs to image i.
        logit_scale: The factor of the similarities, already exponentiated; one element.
        logit_bias: What is added to the scaled similarities; one element.
        gather: Whether the texts of other processes are negatives too.

    Returns:
        The scalar sum over own images and all texts, divided by b; its mean over processes is the loss of the joint
        batch.
    """
    images = pair_logits(image_features, text_features, logit_scale, gather=gather)
    return pairwise_sigmoid(images._replace(logits=images.logits + logit_bias.reshape(())))
