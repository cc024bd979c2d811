"""Pictures of parsing, alignment and verification: what goes in, the truth, the answer, mistakes, and summaries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from typing_extensions import override

from farl_lightning.callbacks.pictures import publish, spread
from farl_lightning.callbacks.run import run_folder
from farl_lightning.errors import ConfigError
from farl_lightning.types import FaceSpec
from farl_lightning.visualization import (
    alignment_panel,
    ced_plot,
    confusion_picture,
    heatmap_panel,
    parsing_panel,
    roc_plot,
    to_pixels,
)
from farl_lightning.visualization.grid import Pixels


class DensePanels(L.Callback):
    """Draw the first batch of validation and test, and the summaries of each.

    ``pictures/parsing_step<n>.png``: input, truth, prediction and mistakes. ``landmarks``: true and predicted landmarks
    and all heatmaps; ``heatmaps``: those of one face alone. ``confusion``: which classes are taken for which; ``ced``:
    the cumulative error distribution of all faces and each subset; ``roc``: which share of pairs verification accepts.
    A task takes part through its method ``preview(batch)`` and its attribute ``findings``.

    Args:
        every_n_validations: Validations between pictures.
        count: Faces per picture.

    Raises:
        ConfigError: If a number is below 1.
    """

    def __init__(self, every_n_validations: int = 1, count: int = 8) -> None:
        if min(every_n_validations, count) < 1:
            raise ConfigError(f"DensePanels({every_n_validations=}, {count=}): give numbers of 1 or more")
        self.every_n_validations = every_n_validations
        self.count = count
        self._validations = 0
        self._folder: Path | None = None

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the folder of the run."""
        self._folder = run_folder(trainer) / "pictures"

    @override
    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Draw the first batch of every n-th validation, with the weights that are validated."""
        if batch_idx == 0 and self._due(trainer):
            self._draw_batch(trainer, pl_module, batch)

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the summaries of every n-th validation, and count it."""
        if self._due(trainer):
            self._draw_findings(trainer, pl_module)
        self._validations += not trainer.sanity_checking

    @override
    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Draw the first batch."""
        if batch_idx == 0:
            self._draw_batch(trainer, pl_module, batch)

    @override
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the summaries."""
        self._draw_findings(trainer, pl_module)

    @override
    def state_dict(self) -> dict[str, Any]:
        """Return the number of validations so far."""
        return {"validations": self._validations}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting validations."""
        self._validations = state_dict["validations"]

    def _due(self, trainer: L.Trainer) -> bool:
        """Whether the validation at hand is drawn."""
        return not trainer.sanity_checking and self._validations % self.every_n_validations == 0

    @torch.no_grad()
    def _draw_batch(self, trainer: L.Trainer, pl_module: Any, batch: Any) -> None:
        """Draw a few faces; on the first process, which needs no other for it."""
        fits = isinstance(batch, dict) and "image" in batch and hasattr(pl_module, "preview")
        if not trainer.is_global_zero or not fits:
            return
        few, keys = choose(batch, self.count)
        if not keys:
            return
        with trainer.precision_plugin.forward_context():
            shown = {name: value.cpu() for name, value in pl_module.preview(few).items()}
        spec = getattr(pl_module, "spec", None) or FaceSpec()
        for name, make in pictures(few, shown, keys, spec, f"Step {trainer.global_step}").items():
            publish(trainer, self._folder, name, make(), trainer.global_step)

    def _draw_findings(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Draw what an evaluation found over all its faces."""
        found = getattr(pl_module, "findings", {})
        if not trainer.is_global_zero:
            return
        step = trainer.global_step
        if "confusion" in found:
            picture = confusion_picture(found["confusion"].numpy(), found["classes"])
            publish(trainer, self._folder, "confusion", picture, step)
        if "ced" in found:
            curves = {name: (x.numpy(), y.numpy()) for name, (x, y) in found["ced"].items()}
            picture = ced_plot(curves, threshold=found["threshold"], normalizer=found["normalizer"])
            publish(trainer, self._folder, "ced", picture, step)
        if found.get("roc"):
            publish(trainer, self._folder, "roc", roc_plot(found["roc"]), step)


def choose(batch: dict[str, Any], count: int) -> tuple[dict[str, Any], list[str]]:
    """Return the tensors of a few faces that count, spread over a batch, and their names.

    Args:
        batch: A batch of faces.
        count: How many at most.
    """
    size = len(batch["image"])
    rows = batch["valid"].nonzero().flatten().tolist() if "valid" in batch else list(range(size))
    chosen = [rows[place] for place in spread(count, len(rows))] if rows else []
    names = ("image", "mask", "landmarks")
    return {name: batch[name][chosen] for name in names if name in batch}, [batch["key"][row] for row in chosen]


def pictures(
    batch: dict[str, Any], shown: dict[str, torch.Tensor], keys: list[str], spec: FaceSpec, title: str
) -> dict[str, Callable[[], Pixels]]:
    """Return what can be drawn of a few faces, by name.

    Args:
        batch: ``image`` and the truth: ``mask`` or ``landmarks``.
        shown: The answer, as a task's ``preview`` returns it.
        keys: Names of the faces.
        spec: Names of the classes, and how images are normalised.
        title: Title.
    """
    images = list(to_pixels(batch["image"], spec.mean, spec.std))
    truths = {name: list(batch[name].cpu().numpy()) if name in batch else None for name in ("mask", "landmarks")}
    preds = {name: list(value.numpy()) for name, value in shown.items()}
    found: dict[str, Callable[[], Pixels]] = {}
    if "labels" in preds:
        names = spec.classes or [str(label) for label in range(int(shown["labels"].max()) + 1)]
        found["parsing"] = lambda: parsing_panel(
            images, truths["mask"], preds["labels"], names, captions=keys, title=title
        )
    if "landmarks" in preds:
        points, heatmaps = preds["landmarks"], preds["heatmaps"]
        found["landmarks"] = lambda: alignment_panel(
            images, truths["landmarks"], points, heatmaps, captions=keys, title=title
        )
        found["heatmaps"] = lambda: heatmap_panel(images[0], heatmaps[0], points[0], title=f"{keys[0]}, {title}")
    return found
