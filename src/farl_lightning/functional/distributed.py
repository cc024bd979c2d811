"""Sums and gathers over processes: plain no-ops on a single process, right for gloo and NCCL, on CPU and GPU.

A process group that is not initialised means one process; nothing here starts one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Return the number of processes of the default group; 1 when none is initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number in the default group; 0 when none is initialised."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def global_sum(x: Tensor) -> Tensor:
    """Add up a tensor over all processes, without gradient.

    Args:
        x: Any shape and numeric dtype, the same on every process.

    Returns:
        A new tensor of the same shape and dtype that shares nothing with ``x``.
    """
    total = x.detach().clone(memory_format=torch.contiguous_format)
    if world_size() > 1:
        dist.all_reduce(total)
    return total


def all_gather_cat(x: Tensor) -> Tensor:
    """Concatenate the rows of all processes in the order of their ranks, without gradient.

    Args:
        x: (n, ...) of any dtype; n may differ between processes and may be 0, the rest may not.

    Returns:
        (sum of n, ...); ``x`` itself, detached, on a single process.
    """
    x = x.detach()
    if world_size() == 1:
        return x
    own = torch.zeros(world_size(), dtype=torch.int64, device=x.device)
    own[rank()] = x.shape[0]
    counts = global_sum(own).tolist()
    padded = x.new_zeros(max(counts), *x.shape[1:])
    padded[: x.shape[0]] = x
    chunks = torch.split(_gather_rows(padded), max(counts)) if max(counts) else [padded]
    return torch.cat([chunk[:count] for chunk, count in zip(chunks, counts, strict=False)])


def all_gather_with_grad(x: Tensor) -> Tensor:
    """Concatenate the rows of all processes in the order of their ranks; gradients flow back to their owners.

    The backward pass adds up what every process asks for and hands each its own rows. With losses that are averaged
    over processes (as DDP and FSDP average gradients) this yields exactly the gradient of one process that holds the
    whole batch.

    Args:
        x: (b, ...) of a floating dtype, the same shape on every process.

    Returns:
        (world size * b, ...); ``x`` itself on a single process.
    """
    if world_size() == 1:
        return x
    gathered: Tensor = _AllGather.apply(x)
    return gathered


class _AllGather(torch.autograd.Function):
    """Gather rows forward; sum over processes and keep the own rows backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return the rows of every process."""
        ctx.rows = x.shape[0]
        return _gather_rows(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """Return the summed gradient of the own rows."""
        return _sum_and_keep_own(grads[0].contiguous(), ctx.rows)


def _gather_rows(x: Tensor) -> Tensor:
    """Gather equal shapes from all processes along the first axis."""
    gathered = x.new_empty(world_size() * x.shape[0], *x.shape[1:])
    dist.all_gather_into_tensor(gathered, x.contiguous())
    return gathered


def _sum_and_keep_own(grad: Tensor, rows: int) -> Tensor:
    """Sum a gathered gradient over processes and return the rows of this one."""
    if f"{grad.device.type}:nccl" in dist.get_backend_config():  # moves 1/W of what an all-reduce would
        own = grad.new_empty(rows, *grad.shape[1:])
        dist.reduce_scatter_tensor(own, grad)
        return own
    return global_sum(grad)[rank() * rows : (rank() + 1) * rows]
