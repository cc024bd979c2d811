"""Sums and gathers over processes: plain no-ops on a single process, right for gloo and NCCL, on CPU and GPU.

A process group that is not initialised means one process; nothing here starts one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def global_max(x: Tensor) -> Tensor:
    """Take the highest value of each element over all processes, without gradient.

    Args:
        x: Any shape and numeric dtype, the same on every process.

    Returns:
        A new tensor of the same shape and dtype that shares nothing with ``x``.
    """
    highest = x.detach().clone(memory_format=torch.contiguous_format)
    if world_size() > 1:
        dist.all_reduce(highest, op=dist.ReduceOp.MAX)
    return highest


def global_mean(total: Tensor, count: int | Tensor) -> Tensor:
    """Share out a mean over all processes, so that the mean of the shares is the mean over everything.

    DDP and FSDP average gradients over processes, and logged values are averaged the same way. A mean over what this
    process holds would give a process with few items as much weight as one with many.

    Args:
        total: Sum over the items of this process, floating, any shape; gradients flow through it.
        count: Number of those items; may be 0, and may differ between processes.

    Returns:
        ``total`` times the number of processes, over the count of all of them (1 where there is nothing at all).
        Every process has to call it.
    """
    if not isinstance(count, Tensor):
        count = torch.full((), count, dtype=torch.int64, device=total.device)
    return total * world_size() / global_sum(count).clamp(min=1)


def broadcast_from(x: Tensor, source: int, rows: int) -> Tensor:
    """Hand the rows of one process to all, without gradient.

    Args:
        x: (n, ...) of the same dtype and trailing shape on every process; only that of ``source`` is read.
        source: Number of the process whose rows are wanted.
        rows: How many rows it has.

    Returns:
        (rows, ...); ``x`` itself, detached, on the process that has them.
    """
    x = x.detach().contiguous() if rank() == source else x.new_empty(rows, *x.shape[1:])
    if world_size() > 1:
        dist.broadcast(x, source)
    return x


def process_means(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Average scalars over processes in one collective, without gradient.

    Args:
        values: Tensors of one element, under the same names on every process.

    Returns:
        The means, each without axes, in the widest dtype among them, float32 at least.
    """
    flat = torch.stack([value.detach().reshape(()) for value in values.values()])
    flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
    return dict(zip(values, (global_sum(flat) / world_size()).unbind(), strict=True))


def row_counts(x: Tensor) -> tuple[int, ...]:
    """Tell how many rows each process holds, in the order of ranks. On a GPU this waits for the device.

    Args:
        x: (n, ...); only n and the device are read.
    """
    if world_size() == 1:
        return (x.shape[0],)
    own = torch.zeros(world_size(), dtype=torch.int64, device=x.device)
    own[rank()] = x.shape[0]
    return tuple(global_sum(own).tolist())


def all_gather_cat(x: Tensor) -> Tensor:
    """Concatenate the rows of all processes in the order of their ranks, without gradient.

    Args:
        x: (n, ...) of any dtype; n may differ between processes and may be 0, the rest may not.

    Returns:
        (sum of n, ...); ``x`` itself, detached, on a single process.
    """
    x = x.detach()
    return x if world_size() == 1 else _gather_rows(x, row_counts(x))


def all_gather_with_grad(x: Tensor, counts: Sequence[int] | None = None) -> Tensor:
    """Concatenate the rows of all processes in the order of their ranks; gradients flow back to their owners.

    The backward pass adds up what every process asks for and hands each its own rows. With losses that are averaged
    over processes (as DDP and FSDP average gradients) this yields exactly the gradient of one process that holds the
    whole batch.

    Args:
        x: (n, ...) of a floating dtype; n may differ between processes and may be 0, the rest may not.
        counts: What :func:`row_counts` says of ``x``, where it is known already.

    Returns:
        (sum of n, ...); ``x`` itself on a single process.
    """
    if world_size() == 1:
        return x
    gathered: Tensor = _AllGather.apply(x, row_counts(x) if counts is None else tuple(counts))
    return gathered


class _AllGather(torch.autograd.Function):
    """Gather rows forward; sum over processes and keep the own rows backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: tuple[int, ...]) -> Tensor:
        """Return the rows of every process."""
        ctx.counts = counts
        return _gather_rows(x, counts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Return the summed gradient of the own rows."""
        return _sum_and_keep_own(grads[0].contiguous(), ctx.counts), None


def _gather_rows(x: Tensor, counts: tuple[int, ...]) -> Tensor:
    """Gather the rows of all processes; collectives move equal shapes, so short ones are padded on the way."""
    longest = max(counts)
    if x.shape[0] < longest:
        x = torch.cat([x, x.new_zeros(longest - x.shape[0], *x.shape[1:])])
    gathered = x.new_empty(world_size() * longest, *x.shape[1:])
    if longest:
        dist.all_gather_into_tensor(gathered, x.contiguous())
    if min(counts) == longest:
        return gathered
    parts = torch.split(gathered, longest)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def _sum_and_keep_own(grad: Tensor, counts: tuple[int, ...]) -> Tensor:
    """Sum a gathered gradient over processes and return the rows of this one."""
    first, rows = sum(counts[: rank()]), counts[rank()]
    even = min(counts) == max(counts) > 0
    if even and f"{grad.device.type}:nccl" in dist.get_backend_config():  # moves 1/W of what an all-reduce would
        own = grad.new_empty(rows, *grad.shape[1:])
        dist.reduce_scatter_tensor(own, grad)
        return own
    return global_sum(grad)[first : first + rows]
