"""A checkpoint every so many minutes, and one more when the machine is taken away."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from farl_lightning.callbacks.run import run_folder
from farl_lightning.errors import ConfigError
from farl_lightning.functional.distributed import all_gather_cat

FILE_NAME = "last-safety.ckpt"
"""Lightning's ``last`` finds it too, and takes the newest file of that kind."""

_TIME = -1  # wished for by the clock; signals have positive numbers


class Preempted(SystemExit):
    """Ends a process after its last checkpoint; the exit code is that of the signal: 143 for SIGTERM."""


class SafetyCheckpoint(Checkpoint):
    """Write ``last-safety.ckpt`` every ``minutes``, and on SIGTERM or SIGUSR1; after a signal the process ends.

    It lies in the folder of the run's ``ModelCheckpoint``, always the same file, and always right after a step of the
    optimiser, so that ``--ckpt_path last`` goes on with the very next sample. A signal to any process is enough: all
    agree to save and end together, with exit code 128 + signal, which tells a finished run from an interrupted one.
    (Lightning alone talks to the other processes from inside its signal handler, in the middle of whatever they do, and
    ends without saving.) A signal that comes during validation is heeded after the next step. Under SLURM, Lightning's
    own requeue signal stays with Lightning; SIGTERM is handled here.

    List it after ``ModelCheckpoint``.

    Args:
        minutes: Time between two checkpoints; None writes on signals alone.
        every_n_steps: Optimiser steps after which several processes ask each other; a single process needs none of it.

    Raises:
        ConfigError: If a number is out of range.
    """

    best_model_path = ""  # what Lightning asks the first checkpoint callback for

    def __init__(self, minutes: float | None = 15.0, every_n_steps: int = 10) -> None:
        if (minutes is not None and minutes <= 0) or every_n_steps < 1:
            raise ConfigError(
                f"SafetyCheckpoint({minutes=}, {every_n_steps=}): give more than 0, or null, and 1 or more"
            )
        self.minutes = minutes
        self.every_n_steps = every_n_steps
        self._signal = 0
        self._step = 0
        self._saved_at = 0.0
        self._handlers: dict[signal.Signals, Any] = {}

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen for signals, in place of Lightning."""
        self._signal, self._step, self._saved_at = 0, trainer.global_step, time.monotonic()
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._note) for number in _signals(trainer)}

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is time to.

        Raises:
            Preempted: After a signal to any process, on all of them.
        """
        if trainer.global_step == self._step:  # gradients that are not used yet would be lost
            return
        self._step = trainer.global_step
        wish = self._agree(trainer, pl_module.device)
        if wish == 0:
            return
        path = self._folder(trainer) / FILE_NAME
        trainer.save_checkpoint(path)
        self._saved_at = time.monotonic()
        if wish > 0:
            name = signal.Signals(wish).name
            rank_zero_info(f"{name}: saved '{path}' at step {self._step}; continue with --ckpt_path last")
            raise Preempted(128 + wish)

    @override
    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the signals back."""
        self._restore()

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._restore()

    def _restore(self) -> None:
        """Hear signals no longer."""
        handlers, self._handlers = self._handlers, {}
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: Any) -> None:
        """Remember a signal; nothing else is safe in the middle of a step."""
        self._signal = number

    def _agree(self, trainer: L.Trainer, device: torch.device) -> int:
        """Return the signal that some process got, -1 if it is time to save, else 0; the same on every process."""
        if trainer.world_size > 1 and self._step % self.every_n_steps:
            return 0
        due = self.minutes is not None and time.monotonic() - self._saved_at >= 60 * self.minutes
        wish = self._signal or (_TIME if due and trainer.is_global_zero else 0)
        if trainer.world_size == 1:
            return wish
        wishes: list[int] = all_gather_cat(torch.tensor([wish], device=device)).tolist()
        return max(wishes) or min(wishes)

    def _folder(self, trainer: L.Trainer) -> Path:
        """Return the folder of the first ``ModelCheckpoint``, or the run's own."""
        saving = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
        given = next((callback.dirpath for callback in saving if callback.dirpath), None)
        return Path(given) if given else run_folder(trainer) / "checkpoints"


def _signals(trainer: L.Trainer) -> list[signal.Signals]:
    """Return the signals to listen for: all but the one that Lightning requeues a SLURM job on."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    requeue = None
    if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
        requeue = environment.requeue_signal
    return [number for number in (signal.SIGTERM, signal.SIGUSR1) if number != requeue]
