"""Speed, wait and gradient norm in the log."""

from __future__ import annotations

import time

import lightning as L
import pytest
import torch

from farl_lightning.callbacks import TrainingMonitor
from tests.tasks.test_base import trainer
from tests.tasks.toy import Part, Sizes, ToyData, ToyTask


class Slow(L.Callback):
    """Make each step last, and keep the true gradient norm."""

    norm = 0.0

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        self.norm = torch.cat([p.grad.flatten() for p in pl_module.parameters()]).norm().item()

    def on_train_batch_start(self, *args) -> None:
        time.sleep(0.05)


def test_values(tmp_path):
    slow, monitor = Slow(), TrainingMonitor()
    run = trainer(max_steps=4, callbacks=[slow, monitor], log_every_n_steps=2, gradient_clip_val=1e-3)
    run.fit(ToyTask(Sizes(), {"a": Part()}), datamodule=ToyData())
    values = run.callback_metrics
    assert 0 < values["train/samples_per_s"] <= 4 / 0.05  # four samples per step of at least 50 ms
    assert 0.3 < values["train/data_wait"] <= 1  # the pause lies between batches
    assert values["train/grad_norm"] == pytest.approx(slow.norm, rel=1e-5)
    assert values["train/grad_norm"] > 1e-3  # before clipping


def test_steps_between_are_not_logged():
    run = trainer(max_steps=3, callbacks=[TrainingMonitor()], log_every_n_steps=50)
    run.fit(ToyTask(Sizes(), {"a": Part()}), datamodule=ToyData())
    assert not [name for name in run.callback_metrics if name.startswith("train/samples")]
