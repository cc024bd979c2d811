"""Training with a class matrix that is shared out over processes: clipping, and the state of optimisers in files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from farl_lightning.functional.distributed import global_sum
from farl_lightning.models.heads.class_rows import ClassRows
from farl_lightning.models.heads.margin import sharded_rows

PLACES = "sharded_rows"
"""Where a checkpoint says which parameters of its optimisers were shared out: a list of numbers per optimiser."""


@torch.no_grad()
def clip_norm(module: nn.Module, limit: float) -> Tensor:
    """Clip the norm of all gradients, those of other processes' rows included, in place.

    A norm of what a process holds would differ from process to process, and with it the factor: the weights that all
    share would drift apart.

    Args:
        module: Any module; matrices below it may be shared out. Gradients of all other parameters are the same on
            every process.
        limit: Largest norm.

    Returns:
        The norm before, without axes. Every process has to call it.
    """
    own = set(sharded_rows(module))
    parts: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            parts[name in own].append(parameter.grad)
    squares = {mine: _square(grads) for mine, grads in parts.items() if grads}
    total = sum((global_sum(value) if mine else value for mine, value in squares.items()), torch.zeros(()))
    norm = torch.as_tensor(total).sqrt()
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
    for grads in parts.values():
        if grads:
            torch._foreach_mul_(grads, factor.to(grads[0].device))
    return norm


def _square(grads: list[Tensor]) -> Tensor:
    """Add up the squares of all numbers."""
    return torch.stack([norm.float() for norm in torch._foreach_norm(grads)]).square().sum()


def gather_optimizers(module: nn.Module, optimizers: Iterable[Optimizer], checkpoint: dict[str, Any]) -> None:
    """Put whole matrices into the optimiser states of a checkpoint on process 0; every process has to call it.

    Args:
        module: What is trained.
        optimizers: In the order of the checkpoint's states.
        checkpoint: With ``optimizer_states``, where training states are saved at all.
    """
    rows = sharded_rows(module)
    owners = {parameter: rows[name] for name, parameter in module.named_parameters() if name in rows}
    places = []
    for optimizer, state in zip(optimizers, checkpoint.get("optimizer_states", ()), strict=False):
        ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        found = {number: owners[parameter] for number, parameter in enumerate(ordered) if parameter in owners}
        _replace(state["state"], found, ClassRows.whole)
        places.append(list(found))
    if any(places):
        checkpoint[PLACES] = places


def cut_optimizers(rows: ClassRows, checkpoint: Mapping[str, Any]) -> None:
    """Leave the own rows in the optimiser states of a checkpoint, whatever number of processes wrote it.

    Args:
        rows: The matrix, shared out as it is now.
        checkpoint: As :func:`gather_optimizers` left it.
    """
    for state, places in zip(checkpoint.get("optimizer_states", ()), checkpoint.get(PLACES, ()), strict=False):
        _replace(state["state"], dict.fromkeys(places, rows), ClassRows.cut)


def _replace(
    state: dict[int, dict[str, Any]], owners: Mapping[int, ClassRows], change: Callable[[ClassRows, Tensor], Tensor]
) -> None:
    """Change everything that an optimiser keeps per row of some parameters."""
    for number, rows in owners.items():
        kept = state.get(number, {})
        changed = {
            name: change(rows, value) for name, value in kept.items() if isinstance(value, Tensor) and value.ndim == 2
        }
        state[number] = {**kept, **changed}
