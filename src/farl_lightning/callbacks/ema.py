"""Exponential moving average of the trainable network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict_loader import load as load_shards
from torch.distributed.tensor import DTensor
from typing_extensions import override

from farl_lightning.errors import ConfigError
from farl_lightning.functional.shards import join_part, own_part, part_like, whole

CURRENT = "current_model_state"
"""Where checkpoints keep the weights that training goes on from. In a sharded checkpoint these names lie inside
``state_dict`` with this in front, because what lies beside it is written by the first process alone."""

_PREFIX = "model."


class ModelAverage:
    """Running average of everything in a module that training changes, without a second module.

    Parameters that are trained and floating-point buffers are averaged, from their first values on; integer
    buffers are copied. The average of half-precision weights is kept in float32, where small steps do not vanish. Of
    a sharded module each process averages what it holds.

    Args:
        model: The module; its values now are the first average.
        decay: Weight of the old average in each update, in [0, 1).
        device: Where the average is kept; None means beside the model.
    """

    def __init__(self, model: nn.Module, decay: float, device: torch.device | None = None) -> None:
        self.decay = decay
        self.updates = 0
        parts = {name: own_part(value) for name, value in changing(model).items()}
        self.tensors = {name: _own(part, device or part.device) for name, part in parts.items()}

    @torch.no_grad()
    def update_parameters(self, task: nn.Module) -> None:
        """Take one step towards the present values of ``task.model``."""
        for name, value in changing(cast(nn.Module, task.model)).items():
            average, part = self.tensors[name], own_part(value)
            if average.is_floating_point():
                average.lerp_(part.to(average), 1 - self.decay)
            else:
                average.copy_(part)
        self.updates += 1

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Write the average into a module."""
        write(model, self.tensors)


class EMA(WeightAveraging):
    """Keep an exponential moving average of ``task.model``; validate, test and export with it.

    Hooks and checkpoint keys are those of Lightning's ``WeightAveraging``: ``state_dict`` holds the average, and
    ``current_model_state`` what training goes on from. Unlike it, the average starts from the initial weights (so the
    first step does not overwrite it), integer buffers are copied instead of averaged, and frozen networks outside the
    state dict are not duplicated. Training ends with the averaged weights in the task. Under FSDP2
    (``ModelParallelStrategy``) each process averages its shards.

    Args:
        decay: Weight of the old average, in [0, 1).
        every_n_steps: Optimiser steps between updates.
        device: Where the average is kept, such as ``"cpu"``; None means beside the model.

    Raises:
        ConfigError: If a number is out of range.
    """

    _average_model: Any  # the parent's hooks use its update_parameters

    def __init__(self, decay: float = 0.999, every_n_steps: int = 1, device: str | None = None) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"EMA(decay={decay}): the decay must be in [0, 1), such as 0.999")
        if every_n_steps < 1:
            raise ConfigError(f"EMA(every_n_steps={every_n_steps}): must be 1 or more")
        super().__init__(device=device)
        self.decay = decay
        self.every_n_steps = every_n_steps
        self._loaded: dict[str, Any] | None = None
        self._current: dict[str, Tensor] | None = None  # what training goes on from, while the average is in the model

    @override
    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Update after every ``every_n_steps``-th optimiser step."""
        return step_idx is not None and (step_idx + 1) % self.every_n_steps == 0

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Forget the average of an earlier run; the new one starts when weights and data-fitted buffers are final.

        Raises:
            ConfigError: Under the classic ``FSDPStrategy``, whose flattened weights cannot be averaged by name.
        """
        if isinstance(trainer.strategy, FSDPStrategy):
            raise ConfigError("EMA does not work with FSDPStrategy; use ModelParallelStrategy (trainer/fsdp2.yaml)")
        if stage == "fit":
            self._average_model = self._loaded = self._current = None

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start from the initial weights, or from the checkpoint's average."""
        self._average_model = ModelAverage(_network(pl_module), self.decay, self._device)  # type: ignore[arg-type]
        if self._loaded is not None:
            for name, average in self._average_model.tensors.items():
                average.copy_(self._loaded["tensors"][name])
            self._average_model.updates = self._loaded["updates"]
            self._loaded = None

    @override
    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the average into the model while training validates; after training it is there for good."""
        if trainer.state.fn == "fit":
            super().on_validation_epoch_start(trainer, pl_module)

    @override
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the average out of the model again."""
        if trainer.state.fn == "fit":
            super().on_validation_epoch_end(trainer, pl_module)

    @override
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the average into ``state_dict`` and the weights that training goes on from beside it."""
        if self._average_model is None:
            return
        state, network = checkpoint["state_dict"], _network(pl_module)
        current = {**state, **_as_saved(self._current or {}, network, state)}
        average = _as_saved(self._average_model.tensors, network, state)
        if _is_sharded(state):
            average |= {f"{CURRENT}.{name}": current[name] for name in average}
        else:
            checkpoint[CURRENT] = current
        checkpoint["state_dict"] = {**state, **average}
        checkpoint["averaging_state"] = {"n_averaged": torch.tensor(self._average_model.updates)}

    @override
    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take back both sets of weights to go on training; evaluation has what it needs, the average."""
        if trainer.state.fn != "fit":
            return
        if "averaging_state" not in checkpoint:
            rank_zero_warn("the checkpoint was made without weight averaging; the average starts from its weights")
            return
        network = _network(pl_module)
        if CURRENT in checkpoint:
            # a strategy that has loaded the weights itself, the average's, does not hand them on
            average = _parts(checkpoint["state_dict"], network) if "state_dict" in checkpoint else _clones(network)
            current = _parts(checkpoint[CURRENT], network)
        else:
            average, current = _read_shards(str(trainer.ckpt_path), network)
        self._loaded = {"tensors": average, "updates": int(checkpoint["averaging_state"]["n_averaged"])}
        write(network, current)

    @override
    def _swap_models(self, pl_module: L.LightningModule) -> None:
        """Put the average into the model, or take it out again."""
        if self._current is None:
            self._copy_average_to_current(pl_module)
            return
        write(_network(pl_module), self._current)
        self._current = None

    @override
    def _copy_average_to_current(self, pl_module: L.LightningModule) -> None:
        """Put the average into the model, and remember what was there: a checkpoint may yet be written."""
        network = _network(pl_module)
        self._current = _clones(network)
        self._average_model.copy_to(network)


def changing(model: nn.Module) -> dict[str, Tensor]:
    """Return what training changes and checkpoints keep: trained parameters and saved buffers, by name.

    Args:
        model: Any module.
    """
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


@torch.no_grad()
def write(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Write values into everything that training changes.

    Args:
        model: Any module, sharded or not.
        tensors: What this process holds of each value, by name.
    """
    for name, value in changing(model).items():
        own_part(value).copy_(tensors[name])


def _clones(network: nn.Module) -> dict[str, Tensor]:
    """Copy what this process holds of everything that training changes."""
    return {name: own_part(value).clone() for name, value in changing(network).items()}


def _parts(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return what this process is to hold of a task's weights, by the network's names."""
    return {name: part_like(state[f"{_PREFIX}{name}"], value) for name, value in changing(network).items()}


def _is_sharded(state: Mapping[str, Tensor]) -> bool:
    """Whether every process saves its part of these weights."""
    return any(isinstance(value, DTensor) for value in state.values())


def _as_saved(parts: Mapping[str, Tensor], network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Lay out what this process holds as the strategy laid out the weights: sharded, or whole on one process."""
    if not parts:
        return {}
    saved = {}
    for name, value in changing(network).items():
        tensor = join_part(parts[name], value)
        if isinstance(tensor, DTensor) and not _is_sharded(state):
            tensor = whole(tensor).cpu()  # all processes take part, also those that save nothing
            if not state:
                continue
        saved[f"{_PREFIX}{name}"] = tensor
    return saved


def _read_shards(folder: str, network: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read this process's part of average and training weights; any number of processes may have written them."""
    values = changing(network)
    average = {f"{_PREFIX}{name}": join_part(_own(own_part(v), v.device), v) for name, v in values.items()}
    current = {f"{_PREFIX}{name}": join_part(own_part(v).clone(), v) for name, v in values.items()}
    wanted = average | {f"{CURRENT}.{name}": value for name, value in current.items()}
    load_shards({"state_dict": wanted}, checkpoint_id=folder)
    return _parts(average, network), _parts(current, network)


def _own(value: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor, half precision to float32."""
    small = value.is_floating_point() and value.element_size() < 4
    return value.detach().to(device, torch.float32 if small else value.dtype, copy=True)


def _network(pl_module: L.LightningModule) -> nn.Module:
    """Return the trainable root of a task."""
    return cast(nn.Module, pl_module.model)
