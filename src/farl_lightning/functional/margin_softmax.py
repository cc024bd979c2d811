"""Softmax with a margin over very many classes, in bounded memory, on one process or with the classes shared out.

Neither the (N, C) logits nor a normalised copy of the (C, E) class matrix ever exists: classes pass by in chunks, with
a running maximum and sum forward, and backward once more to compute the gradients. What remains is the class matrix,
its gradient and one chunk.

With the classes shared out over processes (the model parallelism of ArcFace, https://arxiv.org/abs/1801.07698, and
Partial FC, https://arxiv.org/abs/2010.05222, here without sampling), each process scores all N faces against its own
classes; own cosines, maxima and sums are reduced, so the softmax is over all classes of all processes, exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from farl_lightning.functional.distributed import global_max, global_sum, world_size
from farl_lightning.functional.margin import Margin
from farl_lightning.functional.precision import at_least_float32

CHUNK = 1 << 24
"""Logits, and numbers of the class matrix, that are worked on at a time: 64 MiB each in float32."""


def margin_softmax(
    embeddings: Tensor,
    weight: Tensor,
    labels: Tensor,
    margin: Margin,
    *,
    first: int = 0,
    shared: bool = False,
    chunk: int = CHUNK,
) -> Tensor:
    """Return the cross entropy of each face against all classes.

    Args:
        embeddings: (N, E) of length 1, float32 at least. With ``shared`` these are the faces of all processes, the
            same everywhere.
        weight: (C, E) centres of classes, any length above 0, any floating dtype; with ``shared`` those of this
            process.
        labels: (N,) int64 among the classes of all processes.
        margin: How cosines become logits.
        first: Number of the class in the first row of ``weight``.
        shared: Whether other processes hold the other classes. Every process has to call this, also backward.
        chunk: Numbers that are worked on at a time.

    Returns:
        (N,) losses, the same on every process with ``shared``. Backward, ``weight`` gets the exact gradient of what is
        made of them; ``embeddings`` gets this process's share of it, times the number of processes: after the sum of
        :func:`~farl_lightning.functional.distributed.all_gather_with_grad` and the average of DDP it is exact, too.
    """
    losses: Tensor = _MarginSoftmax.apply(embeddings, weight, labels - first, margin, shared, chunk)
    return losses


class _MarginSoftmax(torch.autograd.Function):
    """Chunks forward, the same chunks backward."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, labels: Tensor, margin: Margin, shared: bool, chunk: int
    ) -> Tensor:
        """Return the losses; labels that are not among the rows of ``weight`` belong to other processes."""
        with torch.autocast(x.device.type, enabled=False):
            here = (labels >= 0) & (labels < len(weight))
            cosine = _own_cosine(x, weight, labels, here)
            cosine = global_sum(cosine) if shared else cosine
            target = margin.scale * margin.own(cosine)
            highest, total = x.new_full((len(x),), -torch.inf), x.new_zeros(len(x))
            for _, logits in _chunks(x, weight, labels, target, margin.scale, chunk):
                highest, total = _add_up(highest, total, logits)
            normaliser = _log_sum(highest, total, shared)
        ctx.save_for_backward(x, weight, labels, cosine, target, normaliser)
        ctx.margin, ctx.shared, ctx.chunk = margin, shared, chunk
        return normaliser - target

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        """Return the gradients of embeddings and centres."""
        x, weight, labels, cosine, target, normaliser = ctx.saved_tensors
        grad_x, grad_weight = torch.zeros_like(x), torch.empty_like(weight)
        with torch.autocast(x.device.type, enabled=False):
            slope = _slope(ctx.margin, cosine)
            for (start, unit, norm), logits in _chunks(x, weight, labels, target, ctx.margin.scale, ctx.chunk):
                share = logits.sub_(normaliser[:, None]).exp_()  # probabilities
                inside, column = _inside(labels, start, len(unit))
                own = share.gather(1, column)
                share.scatter_(1, column, torch.where(inside[:, None], (own - 1) * slope[:, None], own))
                share.mul_(grad[:, None] * ctx.margin.scale)
                grad_x.addmm_(share, unit)
                grad_unit = share.T @ x
                grad_unit.addcmul_(unit, (grad_unit * unit).sum(1, keepdim=True), value=-1).div_(norm)
                grad_weight[start : start + len(unit)] = grad_unit
        return grad_x * (world_size() if ctx.shared else 1), grad_weight, None, None, None, None


def _own_cosine(x: Tensor, weight: Tensor, labels: Tensor, here: Tensor) -> Tensor:
    """Return the cosine of each face to its own centre where this process holds it, 0 elsewhere."""
    if not len(weight):
        return x.new_zeros(len(x))
    centres = F.normalize(weight[labels.where(here, labels.new_zeros(()))].to(x.dtype), dim=1)
    return ((x * centres).sum(1) * here).clamp(-1, 1)


def _slope(margin: Margin, cosine: Tensor) -> Tensor:
    """Return the derivative of the own class's logit, before the scale, by its cosine."""
    with torch.enable_grad():
        leaf = cosine.detach().requires_grad_()
        (slope,) = torch.autograd.grad(margin.own(leaf).sum(), leaf)
    return slope


def _chunks(
    x: Tensor, weight: Tensor, labels: Tensor, target: Tensor, scale: float, chunk: int
) -> Iterator[tuple[tuple[int, Tensor, Tensor], Tensor]]:
    """Yield the first class, normalised centres and lengths of each chunk, and the logits, the own ones put in."""
    rows = max(1, chunk // max(1, *x.shape))
    for start in range(0, len(weight), rows):
        part = at_least_float32(weight[start : start + rows]).to(x.dtype)
        norm = torch.linalg.vector_norm(part, dim=1, keepdim=True).clamp(min=1e-12)
        unit = part / norm
        logits = (x @ unit.T).mul_(scale)
        inside, column = _inside(labels, start, len(unit))
        logits.scatter_(1, column, torch.where(inside[:, None], target[:, None], logits.gather(1, column)))
        yield (start, unit, norm), logits


def _inside(labels: Tensor, start: int, count: int) -> tuple[Tensor, Tensor]:
    """Tell which faces have their own class in a chunk, (N,), and in which column, (N, 1), 0 for the others."""
    column = labels - start
    inside = (column >= 0) & (column < count)
    return inside, column.where(inside, column.new_zeros(()))[:, None]


def _add_up(highest: Tensor, total: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Add the exponentials of a chunk to a running sum that is kept relative to the highest logit so far."""
    new = torch.maximum(highest, logits.amax(1))
    return new, total * (highest - new).exp() + logits.sub_(new[:, None]).exp_().sum(1)


def _log_sum(highest: Tensor, total: Tensor, shared: bool) -> Tensor:
    """Return the logarithm of the sum of exponentials over the classes of all processes."""
    if not shared:
        return highest + total.log()
    top = global_max(highest)
    return top + global_sum(total * (highest - top).exp()).log()
