"""A parser begins to learn real renders by heart; ``benchmarks/real_renders.py --overfit`` goes to the end."""

from __future__ import annotations

import dataclasses

import lightning as L
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
def test_the_loss_falls_on_real_renders(tmp_path):
    settings = dataclasses.replace(real_renders.SHORT, steps=30, lr=4e-3, encoder_lr=4e-3, dice=0.0)
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
    assert max(losses.values[-3:]) < 0.65 * losses.values[0]
