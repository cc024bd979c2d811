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
