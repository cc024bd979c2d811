"""Runs that stand still: each process notices by itself, says where it stands, and ends."""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, TextIO

import lightning as L
from typing_extensions import override

from farl_lightning.errors import ConfigError

EXIT_CODE = 124
"""Of a process that was ended for standing still, as ``timeout(1)`` has it."""

_SHOWN_KEYS = 4
_TICK = 1.0  # seconds between two looks at the clock


class HangGuard(L.Callback):
    """End a process that makes no progress for ``minutes``, and say which rank stands where.

    A collective waits for the slowest process, so one that hangs (a file system that does not answer, a dead lock, a
    lost machine) stops all of them, in silence. Every process watches itself from a thread: if no batch begins or ends,
    no epoch is validated and no checkpoint is asked for in so many minutes, it prints its rank and machine, the step,
    what it was doing and with which samples, then the stacks of all its threads, and ends with exit code 124, so that
    torchrun or SLURM can start the run again. Most will have waited in a collective, as their stacks show; the culprit
    is the one that did not, or that ended before.

    When a run ends with an error, the same line says where the process was.

    Give more than the longest pause that is normal: the slowest single batch, or writing a checkpoint, or fitting a
    target before the first step. The strategy's ``timeout`` ends collectives of gloo, and aborts those of NCCL; it
    knows neither step nor samples, so let it be longer.

    Args:
        minutes: Time without progress that ends the process.

    Raises:
        ConfigError: If it is not above 0.
    """

    def __init__(self, minutes: float = 20.0) -> None:
        if minutes <= 0:
            raise ConfigError(f"HangGuard(minutes={minutes}): must be more than 0")
        self.minutes = minutes
        self._host = socket.gethostname()
        self._place = ""
        self._doing = ""
        self._deadline = 0.0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @override
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start to watch."""
        self._over.clear()
        self._note(trainer, "getting ready")
        self._thread = threading.Thread(target=self._watch, name="hang-guard", daemon=True)
        self._thread.start()

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note that the first batch is next."""
        self._note(trainer, "waiting for the first batch")

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the batch."""
        self._note(trainer, f"computing training batch {batch_idx}{_samples(batch)}")

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note that the batch is done."""
        self._note(trainer, f"going on after training batch {batch_idx}")

    @override
    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Note the batch."""
        self._note(trainer, f"computing validation batch {batch_idx}{_samples(batch)}")

    @override
    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note that the batch is done."""
        self._note(trainer, f"going on after validation batch {batch_idx}")

    @override
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note that a checkpoint is written."""
        self._note(trainer, "writing a checkpoint")

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Say where the process was, and stop watching."""
        if isinstance(exception, Exception) and self._thread is not None:
            print(f"{self._place} ended while {self._doing}", file=sys.stderr, flush=True)
        self._stop()

    @override
    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Stop watching."""
        self._stop()

    def _note(self, trainer: L.Trainer, doing: str) -> None:
        """Remember where the process stands; the time begins anew."""
        self._place = f"rank {trainer.global_rank} of {trainer.world_size} on {self._host}, step {trainer.global_step}:"
        self._doing = doing
        self._deadline = time.monotonic() + 60 * self.minutes

    def _watch(self) -> None:
        """Wait for the end of the run, or of patience."""
        while not self._over.wait(_TICK):
            if time.monotonic() >= self._deadline:
                _give_up(self._report(), sys.__stderr__ or sys.stderr)
                return

    def _report(self) -> str:
        """Say what is wrong and what to do."""
        return (
            f"{self._place} no progress for {self.minutes:g} minutes (HangGuard) while {self._doing}.\n"
            "The stacks follow. If they end in a collective (all_reduce, broadcast, barrier), this process waited for "
            "another one: look for the process whose stacks do not.\n"
            "To go on from the last checkpoint, start the same command with --ckpt_path last."
        )

    def _stop(self) -> None:
        """End the thread."""
        thread, self._thread = self._thread, None
        self._over.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()


def _give_up(report: str, stream: TextIO) -> None:
    """Write why, and end: no exception would reach a thread that waits inside a library."""
    print(report, file=stream, flush=True)
    faulthandler.dump_traceback(stream, all_threads=True)
    os._exit(EXIT_CODE)


def _samples(batch: Any) -> str:
    """Name the first samples of a batch; nothing where they have no keys."""
    keys = batch.get("key") if isinstance(batch, dict) else None
    if not isinstance(keys, Sequence) or not keys:
        return ""
    return f" (samples {', '.join(map(str, keys[:_SHOWN_KEYS]))}{', ...' if len(keys) > _SHOWN_KEYS else ''})"
