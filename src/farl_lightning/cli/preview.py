"""The picture that ``preview`` draws: what the network will see."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from torch import Tensor

from farl_lightning.errors import ConfigError
from farl_lightning.types import FaceSpec
from farl_lightning.visualization.grid import Pixels, hide_patches, image_grid, save_png, to_pixels
from farl_lightning.visualization.overlay import overlay_landmarks, overlay_mask
from farl_lightning.visualization.palette import class_palette


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
    columns, captions = _first_samples(datamodule, count)
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    save_png(image_grid(rows, titles=list(columns), captions=captions), path)
    return len(rows)


def _first_samples(datamodule: L.LightningDataModule, count: int) -> tuple[dict[str, Pixels], list[str]]:
    """Return columns of pictures by title, and captions, of the first samples of an epoch."""
    parts: dict[str, list[Pixels]] = {}
    captions: list[str] = []
    spec = getattr(datamodule, "spec", None) or FaceSpec()
    for batch in _training_batches(datamodule):
        if not isinstance(batch, dict) or "image" not in batch:
            raise ConfigError("preview draws batches with an 'image'; this datamodule's have none")
        batch = datamodule.on_after_batch_transfer(batch, 0)  # what workers leave to the device
        for title, pictures in _columns(batch, spec).items():
            parts.setdefault(title, []).append(pictures)
        captions += [_caption(batch, index, spec) for index in range(len(batch["image"]))]
        if len(captions) >= count:
            break
    if not captions:
        raise ConfigError("the training data is empty")
    return {title: np.concatenate(batches)[:count] for title, batches in parts.items()}, captions[:count]


def _columns(batch: dict[str, Any], spec: FaceSpec) -> dict[str, Pixels]:
    """Draw what a batch holds: the input, and beside it what is known of it."""
    images = to_pixels(batch["image"], spec.mean, spec.std)
    columns = {"input": images}
    if "patch_mask" in batch:
        columns["masked"] = hide_patches(images, batch["patch_mask"])
    if "mask" in batch:
        colours = class_palette(spec.classes)
        pairs = zip(images, batch["mask"].numpy(), strict=True)
        columns["labels"] = np.stack([overlay_mask(image, mask, colours) for image, mask in pairs])
    if "landmarks" in batch:
        pairs = zip(images, batch["landmarks"].numpy(), strict=True)
        columns["landmarks"] = np.stack([overlay_landmarks(image, truth=points) for image, points in pairs])
    return columns


def _training_batches(datamodule: L.LightningDataModule) -> Any:
    """Return the training batches as a run would read them."""
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule.train_dataloader()


def _caption(batch: dict[str, Any], index: int, spec: FaceSpec) -> str:
    """Return what is written beside a sample: its caption or its key, and the labels of the whole face."""
    name = next((str(batch[kind][index]) for kind in ("caption", "key") if kind in batch), "")
    labels = [_label_text(column, values[index], spec) for column, values in batch.get("labels", {}).items()]
    return "; ".join(filter(None, [name, *labels]))


def _label_text(column: str, value: Tensor, spec: FaceSpec) -> str:
    """Return one label in words: attributes that are there, the name of a class, a number."""
    if column == "attributes":
        return ", ".join(name for name, known in zip(spec.attributes, value.tolist(), strict=True) if known == 1)
    names, number = spec.label_names.get(column, ()), float(value)
    if math.isnan(number) or (names and number < 0):
        return f"{column} unknown"
    return f"{column} {names[int(number)]}" if names else f"{column} {number:.4g}"
