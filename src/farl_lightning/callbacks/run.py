"""What kind of run it is, where it keeps its files, when it logs, and how it speaks at the end."""

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


def is_trial(trainer: L.Trainer) -> bool:
    """Whether a few batches only show that everything works (``fast_dev_run``): numbers of it must replace none.

    Args:
        trainer: Of the run.
    """
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # set by a connector


def run_folder(trainer: L.Trainer) -> Path:
    """Return the folder of a run: the logger's, or the trainer's root folder without a logger that has one.

    Every process must call this, because the first logger's version number is agreed upon.

    Args:
        trainer: Attached to a strategy, as in and after ``setup``.
    """
    return Path(trainer.log_dir or trainer.default_root_dir)


def announce(trainer: L.Trainer, pl_module: L.LightningModule, text: str) -> None:
    """Print below the progress bar, not above it: a live bar is ended first.

    Args:
        trainer: At the end of a stage.
        pl_module: Its task.
        text: What to print.
    """
    if trainer.progress_bar_callback is not None:
        trainer.progress_bar_callback.teardown(trainer, pl_module, str(trainer.state.stage))  # harmless when repeated
    print(text, flush=True)
