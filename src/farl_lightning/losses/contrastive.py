"""Contrastive losses between images and texts over the global batch, computed in rank-local rows.

With B pairs in total and b of them on this process, memory is O(b * B) and never O(B * B). With ``chunk_rows`` only so
many rows of similarities exist at a time, and the backward pass computes them anew: O(chunk_rows * B).

The mean of the losses over processes is the loss of the joint batch, and the mean of the gradients, as DDP and FSDP
take it, is its gradient, also where processes hold different numbers of pairs. Similarities are taken in float32 at
least, also under autocast: bfloat16 would round logits near 100 to steps of 0.5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from farl_lightning.functional.distributed import all_gather_with_grad, rank, row_counts, world_size
from farl_lightning.functional.precision import at_least_float32


class ContrastiveLoss(NamedTuple):
    """What a contrast between images and texts yields.

    Attributes:
        loss: Scalar; its mean over processes is the loss of the joint batch.
        accuracy: Detached scalar; its mean over processes is the share of images, in [0, 1], whose own text is the
            most similar of all texts.
    """

    loss: Tensor
    accuracy: Tensor


class PairLogits(NamedTuple):
    """Scaled similarities of some items of this process to the B possible partners of all processes.

    Attributes:
        logits: (n, B), float32 at least.
        targets: (n,) int64, the column of each row's true partner.
    """

    logits: Tensor
    targets: Tensor


Criterion = Callable[[PairLogits], Tensor]
"""Turns rows of similarities into the sum of their losses."""


def info_nce(rows: PairLogits) -> Tensor:
    """Add up the cross entropy of finding each row's partner (CLIP, arXiv 2103.00020).

    Args:
        rows: Some items against all partners.

    Returns:
        The scalar sum over rows.
    """
    return F.cross_entropy(rows.logits, rows.targets, reduction="sum")


def pairwise_sigmoid(rows: PairLogits) -> Tensor:
    """Classify each pair as true or false and add up the losses of all pairs (SigLIP, arXiv 2303.15343).

    Args:
        rows: Some items against all partners, bias included.

    Returns:
        The scalar sum over pairs.
    """
    signs = torch.full_like(rows.logits, -1).scatter_(1, rows.targets[:, None], 1)
    return -F.logsigmoid(signs * rows.logits).sum()


def clip_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor,
    *,
    gather: bool = True,
    chunk_rows: int | None = None,
) -> Tensor:
    """Symmetric InfoNCE over the global batch (CLIP, arXiv 2103.00020).

    Args:
        image_features: (b, E), L2-normalised; b may differ between processes and be 0.
        text_features: (b, E), L2-normalised; row i belongs to image i.
        logit_scale: The factor of the similarities, already exponentiated; one element.
        gather: Whether the pairs of other processes are negatives too.
        chunk_rows: Rows of similarities held at a time; None holds all b rows.

    Returns:
        The scalar loss of the own rows; its mean over processes is the loss of the joint batch.
    """
    return clip_contrast(image_features, text_features, logit_scale, gather=gather, chunk_rows=chunk_rows).loss


def siglip_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    *,
    gather: bool = True,
    chunk_rows: int | None = None,
) -> Tensor:
    """Pairwise sigmoid loss over the global batch (SigLIP, arXiv 2303.15343).

    Args:
        image_features: (b, E), L2-normalised; b may differ between processes and be 0.
        text_features: (b, E), L2-normalised; row i belongs to image i.
        logit_scale: The factor of the similarities, already exponentiated; one element.
        logit_bias: What is added to the scaled similarities; one element.
        gather: Whether the texts of other processes are negatives too.
        chunk_rows: Rows of similarities held at a time; None holds all b rows.

    Returns:
        The scalar sum over own images and all texts, per image; its mean over processes is the loss of the joint
        batch.
    """
    sides = (image_features, text_features, logit_scale, logit_bias)
    return siglip_contrast(*sides, gather=gather, chunk_rows=chunk_rows).loss


def clip_contrast(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor,
    *,
    gather: bool = True,
    chunk_rows: int | None = None,
) -> ContrastiveLoss:
    """Compute :func:`clip_loss` together with the accuracy; arguments as there."""
    counts = _counts(image_features, gather)
    images = _Rows(image_features, text_features, logit_scale, None, counts, chunk_rows)
    loss, hits = images.sums(info_nce)
    texts = _Rows(text_features, image_features, logit_scale, None, counts, chunk_rows)
    return ContrastiveLoss((loss + texts.sums(info_nce)[0]) / 2 * images.share, hits * images.share)


def siglip_contrast(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    *,
    gather: bool = True,
    chunk_rows: int | None = None,
) -> ContrastiveLoss:
    """Compute :func:`siglip_loss` together with the accuracy; arguments as there."""
    counts = _counts(image_features, gather)
    images = _Rows(image_features, text_features, logit_scale, logit_bias, counts, chunk_rows)
    loss, hits = images.sums(pairwise_sigmoid)
    return ContrastiveLoss(loss * images.share, hits * images.share)


def _counts(features: Tensor, gather: bool) -> tuple[int, ...] | None:
    """Return the numbers of pairs on all processes; None where this process stands alone."""
    return row_counts(features) if gather else None


class _Rows:
    """The own items against all their candidates.

    Args:
        features: (b, E) own items.
        partners: (b, E) their partners.
        scale: Factor of the similarities.
        bias: What is added to them, or None.
        counts: Numbers of pairs on all processes; None compares with the own partners alone.
        chunk_rows: Rows held at a time, or None.

    Attributes:
        share: What the sum over own rows is multiplied by, so that the mean over processes is the mean over all rows.
    """

    def __init__(
        self,
        features: Tensor,
        partners: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        counts: tuple[int, ...] | None,
        chunk_rows: int | None,
    ) -> None:
        self._features, candidates = at_least_float32(features), at_least_float32(partners)
        self._candidates = candidates if counts is None else all_gather_with_grad(candidates, counts)
        self._scale = at_least_float32(scale).reshape(())
        self._bias = None if bias is None else at_least_float32(bias).reshape(())
        first = 0 if counts is None else sum(counts[: rank()])
        self._targets = torch.arange(first, first + len(features), device=features.device)
        self._chunk_rows = chunk_rows
        self.share = 1 / max(1, len(features)) if counts is None else world_size() / max(1, sum(counts))

    def sums(self, criterion: Criterion) -> tuple[Tensor, Tensor]:
        """Return the sum of losses and the number of rows whose partner is the most similar."""
        rows = max(1, len(self._features))
        size = min(self._chunk_rows or rows, rows)
        if size == rows:
            return self._chunk(criterion, self._features, self._targets)
        pairs = zip(torch.split(self._features, size), torch.split(self._targets, size), strict=True)
        losses, hits = zip(*(self._recomputed(criterion, *pair) for pair in pairs), strict=True)
        return torch.stack(losses).sum(), torch.stack(hits).sum()

    def _recomputed(self, criterion: Criterion, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Run a chunk that keeps nothing for the backward pass; there is no randomness to preserve."""
        pair: tuple[Tensor, Tensor] = checkpoint(
            self._chunk, criterion, features, targets, use_reentrant=False, preserve_rng_state=False
        )
        return pair

    def _chunk(self, criterion: Criterion, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Compare some items with all candidates."""
        with torch.autocast(features.device.type, enabled=False):
            logits = (self._scale * features) @ self._candidates.T
            logits = logits if self._bias is None else logits + self._bias
            hits = _hits(logits, targets)
            return criterion(PairLogits(logits, targets)), hits


@torch.no_grad()
def _hits(logits: Tensor, targets: Tensor) -> Tensor:
    """Count the rows whose partner is the most similar; a process without a candidate has no rows either."""
    if not logits.numel():
        return logits.new_zeros(())
    return (logits.argmax(1) == targets).sum().to(logits.dtype)
