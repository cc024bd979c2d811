"""Where pictures of a run go: its folder, and every logger that takes images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import lightning as L

from farl_lightning.visualization import save_png
from farl_lightning.visualization.grid import Pixels


def publish(trainer: L.Trainer, folder: Path | None, name: str, picture: Pixels, step: int) -> None:
    """Write ``<name>_step<n>.png``, and hand the picture to the loggers that take images, as ``pictures/<name>``.

    Args:
        trainer: With its loggers.
        folder: Where files go; None writes none.
        name: Name of the picture.
        picture: (H, W, 3) uint8.
        step: Optimiser steps so far.
    """
    if folder is not None:
        save_png(picture, folder / f"{name}_step{step}.png")
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):
            logger.log_image(key=f"pictures/{name}", images=[picture], step=step)
        elif hasattr(getattr(logger, "experiment", None), "add_image"):
            cast(Any, logger).experiment.add_image(f"pictures/{name}", picture, step, dataformats="HWC")


def spread(count: int, size: int) -> list[int]:
    """Return rows spread over a batch: neighbours are often pictures of one person.

    Args:
        count: How many at most.
        size: Size of the batch.
    """
    count = min(count, size)
    return [round(place * size / count) for place in range(count)]
