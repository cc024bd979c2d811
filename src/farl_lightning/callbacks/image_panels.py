"""Pictures of what a model sees and guesses, as PNG files and in every logger that takes images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from typing_extensions import override

from farl_lightning.callbacks.pictures import publish, spread
from farl_lightning.callbacks.run import run_folder
from farl_lightning.errors import ConfigError
from farl_lightning.types import FaceSpec
from farl_lightning.visualization import RankedCaption, caption_ranking, hide_patches, image_grid, to_pixels
from farl_lightning.visualization.grid import Pixels


class ImagePanels(L.Callback):
    """Draw the first batch of validation and test.

    ``pictures/masked_image_step<n>.png``: images, what is left after masking, and what the model fills in (when its
    target has pixels). ``pictures/caption_ranking_step<n>.png``: images beside the captions of the batch that the
    model ranks first, and their own in green wherever it stands. A task takes part through its methods
    ``reconstruct(batch)`` and ``caption_similarity(batch)``.

    Args:
        every_n_validations: Validations between pictures.
        count: Images per picture.
        captions: Captions per image.

    Raises:
        ConfigError: If a number is below 1.
    """

    def __init__(self, every_n_validations: int = 1, count: int = 8, captions: int = 5) -> None:
        if min(every_n_validations, count, captions) < 1:
            raise ConfigError(f"ImagePanels({every_n_validations=}, {count=}, {captions=}): give numbers of 1 or more")
        self.every_n_validations = every_n_validations
        self.count = count
        self.captions = captions
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
        if batch_idx == 0 and not trainer.sanity_checking:
            if self._validations % self.every_n_validations == 0:
                self._draw(trainer, pl_module, batch)
            self._validations += 1

    @override
    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Draw the first batch."""
        if batch_idx == 0:
            self._draw(trainer, pl_module, batch)

    @override
    def state_dict(self) -> dict[str, Any]:
        """Return the number of validations so far."""
        return {"validations": self._validations}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting validations."""
        self._validations = state_dict["validations"]

    @torch.no_grad()
    def _draw(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any) -> None:
        """Make the pictures that this task and batch allow; on the first process, which needs no other for it."""
        if not trainer.is_global_zero or not isinstance(batch, dict) or "image" not in batch:
            return
        step = trainer.global_step
        spec = getattr(pl_module, "spec", None) or FaceSpec()
        with trainer.precision_plugin.forward_context():
            pictures = {
                "masked_image": self._masked_image(pl_module, batch, spec, step),
                "caption_ranking": self._caption_ranking(pl_module, batch, spec, step),
            }
        for name, picture in pictures.items():
            if picture is not None:
                publish(trainer, self._folder, name, picture, step)

    def _masked_image(self, pl_module: Any, batch: Any, spec: FaceSpec, step: int) -> Pixels | None:
        """Image, masked image and, where possible, reconstruction, side by side."""
        if "patch_mask" not in batch or not hasattr(pl_module, "reconstruct"):
            return None
        chosen = self._spread(len(batch["image"]))
        few = {key: batch[key][chosen] for key in ("image", "patch_mask")}
        images = to_pixels(few["image"], spec.mean, spec.std)
        columns = [images, hide_patches(images, few["patch_mask"])]
        filled: Tensor | None = pl_module.reconstruct(few)
        if filled is not None:
            columns.append(to_pixels(filled, spec.mean, spec.std))
        rows = [list(row) for row in zip(*columns, strict=True)]
        captions = [batch["caption"][index] for index in chosen] if "caption" in batch else []
        titles = ["image", "masked", "filled in"][: len(columns)]
        return image_grid(rows, titles=titles, captions=captions, title=f"Step {step}")

    def _caption_ranking(self, pl_module: Any, batch: Any, spec: FaceSpec, step: int) -> Pixels | None:
        """Images beside the captions that are most similar to them."""
        similarity = pl_module.caption_similarity(batch) if hasattr(pl_module, "caption_similarity") else None
        if similarity is None or "caption" not in batch:
            return None
        texts, chosen = batch["caption"], self._spread(len(batch["image"]))
        rows = similarity[chosen].float().cpu()
        ranked = [self._best(row, texts, texts[index]) for index, row in zip(chosen, rows, strict=True)]
        images = to_pixels(batch["image"][chosen], spec.mean, spec.std)
        title = f"Captions ranked first among {len(set(texts))}, step {step}"
        return caption_ranking(list(images), ranked, title=title)

    def _best(self, similarity: Tensor, texts: list[str], own: str) -> list[RankedCaption]:
        """Return the captions ranked first, equal ones once, and the image's own wherever it stands."""
        order = similarity.argsort(descending=True).tolist()
        distinct = list(dict.fromkeys(texts[index] for index in order))
        values = {texts[index]: float(similarity[index]) for index in reversed(order)}
        lines = [RankedCaption(rank, text, values[text], text == own) for rank, text in enumerate(distinct, 1)]
        return [line for line in lines if line.rank <= self.captions or line.own]

    def _spread(self, size: int) -> list[int]:
        """Return rows spread over a batch: neighbours are often pictures of one person."""
        return spread(self.count, size)
