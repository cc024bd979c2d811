"""Tensors of which each process holds a part (``DTensor``), handled part by part; whole tensors pass through."""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def own_part(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor, sharing memory with it.

    Args:
        tensor: Any tensor; a whole one comes back as it is.
    """
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def part_like(value: Tensor, like: Tensor) -> Tensor:
    """Return the part of a value that belongs to this process, without communication.

    Args:
        value: Sharded as ``like`` is, or whole and the same on every process.
        like: Tells how it is to be sharded; when it is whole, so is the result.
    """
    if isinstance(value, DTensor) or not isinstance(like, DTensor):
        return own_part(value)
    whole = value.to(like.device_mesh.device_type)
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None).to_local()


def join_part(part: Tensor, like: Tensor) -> Tensor:
    """Return a tensor laid out as another one, of which this process holds ``part``.

    Args:
        part: What this process holds, of any dtype; the result has this dtype.
        like: The tensor whose layout it gets; when it is whole, the part comes back as it is.
    """
    if not isinstance(like, DTensor):
        return part
    joined = like.detach().to(part.dtype, copy=True)
    own_part(joined).copy_(part)
    return joined


def whole(tensor: Tensor) -> Tensor:
    """Gather a tensor from all processes, all of which must call this.

    Args:
        tensor: Any tensor; a whole one comes back as it is.
    """
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
