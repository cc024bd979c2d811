"""Signals and the clock lead to a checkpoint from which training goes on as if nothing had happened."""

from __future__ import annotations

import os
import signal

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from farl_lightning.callbacks.safety_checkpoint import FILE_NAME, SafetyCheckpoint
from farl_lightning.errors import ConfigError
from tests.tasks import tiny


class Send(L.Callback):
    """Send a signal to this process in the middle of a batch."""

    def __init__(self, number: signal.Signals, batch: int) -> None:
        self.number, self.batch = number, batch

    def on_before_backward(self, trainer, pl_module, loss) -> None:
        if trainer.fit_loop.epoch_loop.total_batch_idx == self.batch:
            os.kill(os.getpid(), self.number)


def fit(folder, *callbacks, task=None, ckpt_path=None, **changes) -> L.Trainer:
    settings = {"max_steps": 6, "limit_val_batches": 0, "enable_checkpointing": True, **changes}
    run = tiny.trainer(folder, callbacks=list(callbacks), **settings)
    run.fit(task or tiny.task(), datamodule=tiny.TinyData(), ckpt_path=ckpt_path)
    return run


def weights(task: L.LightningModule) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in task.parameters()])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_ends_and_resumes_exactly(tmp_path, number):
    whole, first, second = tiny.task(), tiny.task(), tiny.task()
    fit(tmp_path / "whole", ModelCheckpoint(save_top_k=0), task=whole)
    before = signal.getsignal(number)
    folder = tmp_path / "cut" / "checkpoints"
    callbacks = [ModelCheckpoint(folder, save_last=True), SafetyCheckpoint()]
    with pytest.raises(SystemExit) as stop:
        fit(tmp_path / "cut", Send(number, 2), *callbacks, task=first)
    assert stop.value.code == 128 + number
    assert signal.getsignal(number) == before
    assert torch.load(folder / FILE_NAME, weights_only=True)["global_step"] == 3
    run = fit(tmp_path / "cut", ModelCheckpoint(folder, save_last=True), task=second, ckpt_path="last")
    assert run.global_step == 6
    assert not torch.equal(weights(first), weights(second))
    assert torch.equal(weights(whole), weights(second))


def test_a_signal_waits_for_the_gradients_that_are_being_accumulated(tmp_path):
    with pytest.raises(SystemExit):
        fit(tmp_path, Send(signal.SIGTERM, 2), SafetyCheckpoint(), accumulate_grad_batches=2)
    saved = torch.load(tmp_path / "checkpoints" / FILE_NAME, weights_only=True)
    assert saved["global_step"] == 2
    assert saved["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"] == 4


def test_the_clock_saves_and_training_goes_on(tmp_path):
    run = fit(tmp_path, SafetyCheckpoint(minutes=1e-9))
    assert run.global_step == 6
    assert torch.load(tmp_path / "checkpoints" / FILE_NAME, weights_only=True)["global_step"] == 6


def test_without_signal_and_before_its_time_nothing_is_written(tmp_path):
    fit(tmp_path, SafetyCheckpoint())
    assert not (tmp_path / "checkpoints").exists()


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="minutes=0"):
        SafetyCheckpoint(minutes=0)
    with pytest.raises(ConfigError, match="every_n_steps=0"):
        SafetyCheckpoint(every_n_steps=0)
