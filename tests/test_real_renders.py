"""A parser begins to learn real renders by heart: masks, loss and the way back to source pixels belong together."""

from __future__ import annotations

import dataclasses
import math

import lightning as L
import numpy as np
import pytest

from benchmarks import real_renders
from farl_lightning.transforms.dense_config import DenseTransformConfig
from tests.shared import SHARED, needs_shared


class Losses(L.Callback):
    """Keep the loss of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.values.append(float(outputs["loss"]))


@needs_shared
@pytest.mark.shared
def test_the_loss_falls_below_what_the_shares_of_the_classes_allow(tmp_path):
    settings = dataclasses.replace(real_renders.SHORT, steps=50, lr=1.5e-2)
    transform = DenseTransformConfig(size=settings.size, crop="none", antialias=True)
    folder = str(SHARED / "real" / "facesynthetics")
    data = real_renders.MemorizedRenders(folder, 4, transform=transform, batch_size=4)
    task = real_renders.build_task("parsing", settings, real_renders.starts(None, None)[0][0])
    losses = Losses()
    trainer = L.Trainer(
        max_steps=settings.steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[losses],
        default_root_dir=tmp_path,
    )
    trainer.fit(task, datamodule=data)
    assert len(losses.values) == settings.steps
    assert losses.values[0] > math.log(19)  # of the classes, without having learned anything
    assert max(losses.values[-3:]) < 0.9 * entropy(real_renders.records(data, "train"))


def entropy(records):
    """Return the lowest cross-entropy of an answer that is the same for every pixel."""
    counts = np.bincount(np.concatenate([record.mask[record.mask != 255] for record in records]))
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())
