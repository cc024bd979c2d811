"""Speed and health of training, in the log."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch
from torch.optim import Optimizer
from typing_extensions import override

from farl_lightning.callbacks.run import is_log_step


class TrainingMonitor(L.Callback):
    """Log speed, the wait for data and the gradient norm every ``log_every_n_steps`` batches.

    Keys: ``train/samples_per_s`` (all processes together), ``train/data_wait`` (share of the time in [0, 1] that the
    process waited for the loader) and ``train/grad_norm`` (Euclidean, before clipping).
    """

    def __init__(self) -> None:
        self._began = 0.0
        self._since = 0.0
        self._waited = 0.0
        self._samples = 0

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock anew: what lies between epochs is no training."""
        self._reset()

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the time since the last batch as waiting."""
        self._waited += time.perf_counter() - self._since

    @override
    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Log the norm of the gradient, before it is clipped."""
        if is_log_step(trainer, trainer.global_step):
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            pl_module.log("train/grad_norm", torch.nn.utils.get_total_norm(gradients))

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the speed since the last time."""
        self._samples += len(batch["image"]) if isinstance(batch, dict) and "image" in batch else 0
        if is_log_step(trainer, batch_idx):
            # on a GPU the loss is computed only when it is asked for; without this, queueing would count as speed
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize(pl_module.device)
            elapsed = time.perf_counter() - self._began
            speed = self._samples * trainer.world_size / elapsed
            pl_module.log_dict({"train/samples_per_s": speed, "train/data_wait": self._waited / elapsed}, batch_size=1)
            self._reset()
        self._since = time.perf_counter()

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave validation in the middle of an epoch out of the clock."""
        self._reset()

    def _reset(self) -> None:
        """Start measuring now."""
        self._began = self._since = time.perf_counter()
        self._waited, self._samples = 0.0, 0
