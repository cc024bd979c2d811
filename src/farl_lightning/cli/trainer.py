"""The Trainer of the command line: Lightning's, with the verbs ``check`` and ``preview``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch

CHECK_TRAINER: dict[str, Any] = {
    "strategy": "auto",
    "devices": 1,
    "num_nodes": 1,
    "logger": False,
    "fast_dev_run": False,
    "min_epochs": None,
    "min_steps": None,
    "limit_val_batches": 0,
    "num_sanity_val_steps": 0,
    "accumulate_grad_batches": 1,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "profiler": None,
}
"""Settings of the Trainer for one process that keeps nothing. Its length stays: schedules are built from it."""


class FarlTrainer(L.Trainer):
    """Lightning's Trainer, with two verbs that look before a run."""

    def check(
        self,
        model: L.LightningModule,
        datamodule: L.LightningDataModule,
        ckpt_path: str | Path | None = None,
        weights_only: bool | None = None,  # noqa: ARG002  # accepted wherever fit accepts it
    ) -> None:
        """Build everything, take one training step on two samples, and print sizes, memory and learning rates.

        Args:
            model: The task.
            datamodule: Its data.
            ckpt_path: Checkpoint to continue from; the check fails if it does not fit.
            weights_only: As in ``fit``.

        Raises:
            CheckpointError: If the checkpoint's weights do not fit the task.
        """
        from farl_lightning.cli.inspection import StepInspector, check_fits

        inspector = StepInspector()
        self.callbacks.append(inspector)  # type: ignore[attr-defined]  # set by a connector
        self.fit(model, datamodule=datamodule)
        if ckpt_path is not None:
            check_fits(model, ckpt_path)
        print(inspector.report(model))

    def preview(
        self,
        model: L.LightningModule | None,  # noqa: ARG002  # Lightning hands one to every verb; here none was built
        datamodule: L.LightningDataModule,
        output: Path = Path("preview.png"),
        count: int = 8,
        ckpt_path: str | Path | None = None,  # noqa: ARG002  # read before the datamodule was built
        weights_only: bool | None = None,  # noqa: ARG002  # accepted wherever fit accepts it
    ) -> None:
        """Draw the first training batch after augmentation as one picture.

        Args:
            model: Not used.
            datamodule: The data.
            output: The picture to write, PNG.
            count: Samples to draw.
            ckpt_path: Checkpoint to take the data's settings from, where no config names them.
            weights_only: As in ``fit``.
        """
        from farl_lightning.cli.preview import write_preview

        write_preview(datamodule, Path(output), count)
        print(f"wrote {output}")


def headline(trainer: L.Trainer, verb: str, seed: Any) -> str:
    """Return one line that says what runs where.

    Args:
        trainer: The trainer.
        verb: The subcommand.
        seed: Seed of the run.
    """
    folder = f", {trainer.log_dir}" if trainer.loggers and trainer.log_dir else ""
    return f"{verb} on {_devices(trainer)}, precision {trainer.precision}, seed {seed}{folder}"


def _devices(trainer: L.Trainer) -> str:
    """Name the devices in use."""
    device = trainer.strategy.root_device
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif device.type == "cpu":
        name = f"CPU ({torch.get_num_threads()} threads)"
    else:
        name = device.type.upper()
    return f"{trainer.world_size} x {name}" if trainer.world_size > 1 else name
