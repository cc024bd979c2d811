"""Losses that make faces of one person near and of different people far: margins, triplets, mirror symmetry."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.functional.distributed import (
    all_gather_cat,
    all_gather_with_grad,
    global_mean,
    rank,
    row_counts,
)
from farl_lightning.functional.margin import MarginKind, margin_logits
from farl_lightning.functional.precision import at_least_float32

__all__ = ["MarginKind", "Mining", "margin_logits", "symmetry_loss", "triplet_loss"]

Mining = Literal["hard", "semihard"]
"""Which negatives of a batch a triplet takes, see :func:`triplet_loss`."""


def triplet_loss(embeddings: Tensor, labels: Tensor, margin: float = 0.2, mining: Mining = "semihard") -> Tensor:
    """Triplet loss with online mining in the joint batch of all processes.

    Distances are squared, as in FaceNet: ``2 - 2 cos``, from 0 to 4. Each face is an anchor; other faces with its
    label are positives, those with another label negatives.

    - ``"semihard"`` (FaceNet, https://arxiv.org/abs/1503.03832): for every pair of anchor and positive, the nearest
      negative that is farther than the positive; the farthest of all where none is.
    - ``"hard"`` (batch hard, https://arxiv.org/abs/1703.07737): for every anchor, its farthest positive and its
      nearest negative.

    Args:
        embeddings: (B, E) of length 1; B may differ between processes and be 0.
        labels: (B,) int64; -1 unknown: such faces are no part of any triplet.
        margin: By how much the negative has to be farther than the positive.
        mining: Which negatives are taken.

    Returns:
        Scalar, float32 at least: the mean over the triplets of all processes, those already solved included; its mean
        over processes is the loss of the joint batch, as that of its gradients. 0 where there is no triplet.

    Raises:
        ConfigError: If a setting is unknown or out of range, or the shapes do not fit.
    """
    if mining not in get_args(Mining):
        raise ConfigError(f"mining '{mining}' is not known. {did_you_mean(mining, get_args(Mining))}")
    if not 0 < margin < math.inf:
        raise ConfigError(f"the margin of triplets is {margin}; it must be above 0, such as 0.2")
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        raise ConfigError(f"embeddings {tuple(embeddings.shape)} must be (B, E), labels {tuple(labels.shape)} (B,)")
    with torch.autocast(embeddings.device.type, enabled=False):
        batch = _compare(at_least_float32(embeddings), labels)
        losses, counted = _MINERS[mining](batch, margin)
    return global_mean(losses.where(counted, losses.new_zeros(())).sum(), counted.sum())


class _Batch(NamedTuple):
    """Own anchors against the faces of all processes.

    Attributes:
        distances: (b, B) squared.
        positive: (b, B) bool.
        negative: (b, B) bool.
    """

    distances: Tensor
    positive: Tensor
    negative: Tensor


def _compare(embeddings: Tensor, labels: Tensor) -> _Batch:
    """Compare own faces with those of all processes."""
    counts = row_counts(embeddings)
    everyone, names = all_gather_with_grad(embeddings, counts), all_gather_cat(labels)
    known = (labels >= 0)[:, None] & (names >= 0)
    same = labels[:, None] == names
    own = torch.arange(len(labels), device=labels.device) + sum(counts[: rank()])
    others = torch.arange(len(names), device=labels.device) != own[:, None]
    return _Batch(2 - 2 * embeddings @ everyone.T, known & same & others, known & ~same)


def _batch_hard(batch: _Batch, margin: float) -> tuple[Tensor, Tensor]:
    """Return (b,) losses of own anchors, and which have both kinds of partners."""
    if not batch.distances.numel():
        return batch.distances.sum(1), batch.positive.any(1)
    farthest = batch.distances.masked_fill(~batch.positive, -1).amax(1)
    nearest = batch.distances.masked_fill(~batch.negative, 5).amin(1)
    return (farthest - nearest + margin).clamp(min=0), batch.positive.any(1) & batch.negative.any(1)


def _semi_hard(batch: _Batch, margin: float) -> tuple[Tensor, Tensor]:
    """Return (b, B) losses of anchors with each face, and with which it makes a pair; no (b, B, B) array is made."""
    if not batch.distances.numel():
        return batch.distances, batch.positive
    ordered = batch.distances.masked_fill(~batch.negative, torch.inf).sort(1).values
    count = batch.negative.sum(1, keepdim=True)
    farther = torch.searchsorted(ordered.detach(), batch.distances.detach().contiguous(), right=True)
    chosen = ordered.gather(1, torch.minimum(farther, count - 1).clamp(min=0))
    counted = batch.positive & (count > 0)
    chosen = chosen.where(counted, torch.zeros_like(chosen))  # infinity times 0 is not 0 backward
    return (batch.distances - chosen + margin).clamp(min=0), counted


_MINERS = {"hard": _batch_hard, "semihard": _semi_hard}


def symmetry_loss(embeddings: Tensor, mirrored: Tensor) -> Tensor:
    """Ask that two halves of a face, or a face and its mirror image, are embedded alike.

    The idea of SymFace (https://arxiv.org/abs/2409.11816): faces are nearly symmetric, so the embeddings of the two
    halves of a face split down the middle have to be close; added to the loss of identities. With mirrored pictures no
    landmarks are needed to find the middle. The disparity here is one less the cosine.

    Args:
        embeddings: (B, E), any length.
        mirrored: (B, E) of the other halves or mirror images, in the same order.

    Returns:
        Scalar in [0, 2], float32 at least: the mean over the faces of all processes, as :func:`triplet_loss`.

    Raises:
        ConfigError: If the shapes differ.
    """
    if embeddings.ndim != 2 or embeddings.shape != mirrored.shape:
        raise ConfigError(
            f"embeddings {tuple(embeddings.shape)} and mirrored {tuple(mirrored.shape)} must be (B, E) each"
        )
    cosine = torch.cosine_similarity(at_least_float32(embeddings), at_least_float32(mirrored), dim=1)
    return global_mean((1 - cosine).sum(), len(cosine))
