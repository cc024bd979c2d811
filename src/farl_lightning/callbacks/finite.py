"""Steps whose loss or gradient is not finite: left out on all processes alike, counted, and traced to their samples."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from farl_lightning.callbacks.gather import gather_json
from farl_lightning.callbacks.run import is_log_step, run_folder
from farl_lightning.errors import ConfigError, TrainingError
from farl_lightning.functional.distributed import global_sum

MAX_LISTED = 1000
"""So many steps the file lists at most; beyond, they are only counted."""


@dataclasses.dataclass
class _Seen:
    """A batch since the last step of the optimiser."""

    keys: list[str]
    loss: Tensor | None = None


class FiniteGuard(L.Callback):
    """Leave out optimiser steps whose loss or gradient is NaN or infinite on any process.

    Such a step changes nothing: weights and moments stay as they are on every process, while the schedule and the
    number of the step go on. It is counted in ``train/nonfinite_steps`` (since the beginning, resumes included), and a
    line of ``nonfinite.jsonl`` in the run's folder lists, for each process, the loss and the keys of the samples.
    After ``max_in_a_row`` such steps without a good one between them the run stops. Under float16, whose gradient
    scaler leaves out steps with infinite gradients by itself, only the loss is looked at.

    The processes agree on one number per step, which takes one small all-reduce.

    Args:
        max_in_a_row: Steps left out one after another that end the run.

    Raises:
        ConfigError: If the number is below 1.
    """

    def __init__(self, max_in_a_row: int = 10) -> None:
        if max_in_a_row < 1:
            raise ConfigError(f"FiniteGuard(max_in_a_row={max_in_a_row}): must be 1 or more")
        self.max_in_a_row = max_in_a_row
        self.count = 0
        self.in_a_row = 0
        self._seen: list[_Seen] = []

    @override
    def state_dict(self) -> dict[str, Any]:
        """Return the counts."""
        return {"count": self.count, "in_a_row": self.in_a_row}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from saved counts."""
        self.count, self.in_a_row = state_dict["count"], state_dict["in_a_row"]

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the samples until the optimiser has stepped."""
        keys = batch.get("key", ()) if isinstance(batch, dict) else ()
        self._seen.append(_Seen([str(key) for key in keys]))

    @override
    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Remember the loss; a batch of several backward passes adds up theirs."""
        seen, loss = self._seen[-1], loss.detach()
        seen.loss = loss if seen.loss is None else seen.loss + loss

    @override
    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Leave the step out if any process says so.

        Raises:
            TrainingError: After too many in a row, or when running statistics were damaged, too.
        """
        seen, self._seen = self._seen, []
        values = [batch.loss for batch in seen if batch.loss is not None]
        if trainer.precision != "16-mixed":
            values.append(_gradient_norm(pl_module))
        bad = global_sum(_any_not_finite(values, pl_module.device))
        if not int(bad):
            self.in_a_row = 0
            return
        optimizer.zero_grad(set_to_none=True)  # parameters without gradient are passed over, moments included
        self.count, self.in_a_row = self.count + 1, self.in_a_row + 1
        self._report(trainer, pl_module, seen)

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the count now and then."""
        if is_log_step(trainer, batch_idx):
            pl_module.log("train/nonfinite_steps", float(self.count), batch_size=1)  # the same on every process

    def _report(self, trainer: L.Trainer, pl_module: L.LightningModule, seen: list[_Seen]) -> None:
        """Write down which samples were in the step, warn, and stop the run where it has to be."""
        own = [{"rank": trainer.global_rank, "loss": _text(batch.loss), "keys": batch.keys} for batch in seen]
        batches = gather_json(own, pl_module.device)
        entry = {"step": trainer.global_step, "epoch": trainer.current_epoch, "batches": batches}
        file = run_folder(trainer) / "nonfinite.jsonl"
        if trainer.is_global_zero and self.count <= MAX_LISTED:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(entry, ensure_ascii=False) + "\n")
        what = f"step {trainer.global_step}: {_describe(batches)}; the keys of all samples are in {file}"
        if damaged := self._damaged(pl_module):
            raise TrainingError(
                f"the loss was not finite, and neither are running statistics now ({damaged}), so that no later step "
                f"can repair the network. {what}. Resume from the last checkpoint, without these samples."
            )
        if self.in_a_row >= self.max_in_a_row:
            raise TrainingError(
                f"loss or gradient were not finite in {self.in_a_row} steps in a row (max_in_a_row of FiniteGuard), "
                f"last in {what}. The weights are those before these steps. Look at the samples, lower the learning "
                "rate, or clip gradients (trainer.gradient_clip_val)."
            )
        rank_zero_warn(f"the loss or its gradient was not finite, the step is left out. {what}")

    def _damaged(self, pl_module: L.LightningModule) -> str:
        """Name a saved buffer that is not finite on any process; empty without one."""
        saved = pl_module.state_dict(keep_vars=True)
        found = [name for name, buffer in pl_module.named_buffers() if name in saved and _is_damaged(buffer)]
        names = gather_json(found[:1], pl_module.device)
        return str(names[0]) if names else ""


def _gradient_norm(module: torch.nn.Module) -> Tensor:
    """Return the norm of what this process holds of the gradients."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    local = [grad.to_local() if hasattr(grad, "to_local") else grad for grad in gradients]
    return torch.nn.utils.get_total_norm(local)


def _any_not_finite(values: list[Tensor], device: torch.device) -> Tensor:
    """Return 1 if any of some numbers is not finite, else 0, without waiting for the device."""
    finite = [torch.isfinite(value).all().to(device) for value in values]
    return (~torch.stack(finite).all()).long() if finite else torch.zeros((), dtype=torch.int64, device=device)


def _is_damaged(buffer: Tensor) -> bool:
    """Whether a buffer holds NaN or infinity."""
    return buffer.is_floating_point() and not bool(torch.isfinite(buffer).all())


def _text(loss: Tensor | None) -> str:
    """Write a loss as text: JSON has no NaN."""
    return "none" if loss is None else f"{float(loss):.6g}"


def _describe(batches: list[dict[str, Any]]) -> str:
    """Name the processes whose loss was not finite, with some of their samples; all if only the gradient was not."""
    guilty = [batch for batch in batches if batch["loss"] != "none" and not math.isfinite(float(batch["loss"]))]
    parts = []
    for batch in (guilty or batches)[:3]:
        keys = ", ".join(batch["keys"][:4]) + (", ..." if len(batch["keys"]) > 4 else "")
        parts.append(f"loss {batch['loss']} on rank {batch['rank']} with samples {keys or '(without keys)'}")
    return "; ".join(parts) + ("; ..." if len(guilty or batches) > 3 else "")
