"""Where a run keeps its files, and when it logs."""

from __future__ import annotations

from pathlib import Path

import lightning as L


def is_log_step(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether a training batch is one of those after which the run logs.

    Args:
        trainer: With its ``log_every_n_steps``.
        batch_idx: Number of the batch in its epoch.
    """
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return every > 0 and (batch_idx + 1) % every == 0


def run_folder(trainer: L.Trainer) -> Path:
    """Return the folder of a run: the logger's, or the trainer's root folder without a logger that has one.

    Every process must call this, because the first logger's version number is agreed upon.

    Args:
        trainer: Attached to a strategy, as in and after ``setup``.
    """
    return Path(trainer.log_dir or trainer.default_root_dir)
