"""The picture that ``preview`` draws: what the network will see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from torch import Tensor

from farl_lightning.errors import ConfigError
from farl_lightning.types import CLIP_MEAN, CLIP_STD
from farl_lightning.visualization.grid import Pixels, hide_patches, image_grid, save_png, to_pixels


def write_preview(datamodule: L.LightningDataModule, path: Path, count: int) -> int:
    """Draw the first training batch after augmentation.

    Args:
        datamodule: The data.
        path: The PNG to write.
        count: Samples to draw; batches are read until there are enough.

    Returns:
        The number of samples drawn.

    Raises:
        ConfigError: If the count is not positive, or the batches hold no images.
    """
    if count < 1:
        raise ConfigError(f"--count is {count}; it has to be at least 1")
    images, masks, captions = _first_samples(datamodule, count)
    columns, titles = [images], ["input"]
    if masks is not None:
        columns.append(hide_patches(images, masks))
        titles.append("masked")
    rows = [list(row) for row in zip(*columns, strict=True)]
    save_png(image_grid(rows, titles=titles, captions=captions), path)
    return len(rows)


def _first_samples(datamodule: L.LightningDataModule, count: int) -> tuple[Pixels, Tensor | None, list[str]]:
    """Return pictures, masks (or None) and captions of the first samples of an epoch."""
    import numpy as np
    import torch

    images: list[Pixels] = []
    masks: list[Tensor] = []
    captions: list[str] = []
    spec = getattr(datamodule, "spec", None)
    mean, std = (spec.mean, spec.std) if spec else (CLIP_MEAN, CLIP_STD)
    for batch in _training_batches(datamodule):
        if not isinstance(batch, dict) or "image" not in batch:
            raise ConfigError("preview draws batches with an 'image'; this datamodule's have none")
        images.append(to_pixels(batch["image"], mean, std))
        masks += [batch["patch_mask"]] if "patch_mask" in batch else []
        captions += [_caption(batch, index) for index in range(len(batch["image"]))]
        if len(captions) >= count:
            break
    if not images:
        raise ConfigError("the training data is empty")
    return np.concatenate(images)[:count], torch.cat(masks)[:count] if masks else None, captions[:count]


def _training_batches(datamodule: L.LightningDataModule) -> Any:
    """Return the training batches as a run would read them."""
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule.train_dataloader()


def _caption(batch: dict[str, Any], index: int) -> str:
    """Return what is written beside a sample: its caption, or its key."""
    for name in ("caption", "key"):
        if name in batch:
            return str(batch[name][index])
    return ""
