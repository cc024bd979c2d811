"""Precision of what must not be rounded."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Lift half precision to float32; keep float32 and float64 as they are.

    Args:
        x: A floating tensor of any shape.

    Returns:
        The tensor itself where nothing is to be done.
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


_WITHOUT_FLOAT64 = {"mps"}  # kinds of devices


def as_float64(x: Tensor) -> Tensor:
    """Convert to float64, where x lies or, if its device knows no such numbers, on the CPU.

    Args:
        x: Any shape and dtype, detached from its graph.
    """
    x = x.detach()
    return (x.cpu() if x.device.type in _WITHOUT_FLOAT64 else x).double()
