"""What every step of a training saw and computed, on disk at once: the run may be killed any time."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import lightning as L
from typing_extensions import override


class Recorder(L.Callback):
    """Writes one line per step and process: keys of its samples, and the loss to the last bit.

    Args:
        folder: Where ``rank<N>.jsonl`` go; lives of a process that was restarted follow each other.
        pause: Seconds to wait after every step, so that a fault can be timed.
    """

    def __init__(self, folder: str, pause: float = 0.0) -> None:
        self.folder, self.pause = Path(folder), pause

    @override
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Mark the beginning of a life."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(trainer, {"pid": os.getpid(), "from": trainer.ckpt_path and str(trainer.ckpt_path)})

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the step."""
        row = {"step": trainer.global_step, "loss": outputs["loss"].item().hex(), "keys": list(batch["key"])}
        self._write(trainer, row)
        time.sleep(self.pause)

    def _write(self, trainer: L.Trainer, row: dict[str, Any]) -> None:
        with (self.folder / f"rank{trainer.global_rank}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
