"""Names inside the states of metrics, which are tensors: processes need not agree on numbers for them first."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from farl_lightning.functional.precision import as_float64


def name_code(name: str) -> float:
    """Return a number that stands for a name on every process: 48 bits of its hash, exact in a float64.

    Args:
        name: Any text.
    """
    return float(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=6).digest(), "big"))


def name_bytes(name: str) -> list[int]:
    """Return the letters of a name as they are kept in a state, one line each.

    Args:
        name: Text without line breaks.
    """
    return list(f"{name}\n".encode())


def read_names(letters: Tensor) -> Iterable[str]:
    """Return the distinct names of a state, sorted.

    Args:
        letters: What :func:`name_bytes` returned for each, of all processes behind each other.
    """
    names: list[str] = bytes(letters.long().tolist()).decode().split("\n")
    return sorted(set(names[:-1]))


def joined(state: list[Tensor] | Tensor, device: torch.device) -> Tensor:
    """Return a list state as one tensor, also when it is empty or already joined.

    Args:
        state: Of a metric.
        device: Where it lies if it is empty.
    """
    if isinstance(state, list) and not state:
        return as_float64(torch.zeros(0, device=device))
    whole: Tensor = dim_zero_cat(state)
    return whole
