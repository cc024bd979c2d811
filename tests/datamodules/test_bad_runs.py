"""Whole runs on benchmark folders with broken files: weights stay finite, everything is counted, metrics skip it."""

from __future__ import annotations

import json

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from farl_lightning.callbacks import DropCounter
from farl_lightning.datamodules import FaceSyntheticsDataModule, LaPaDataModule
from farl_lightning.models.config import DenseConfig, ImageEncoderConfig
from farl_lightning.tasks import ParsingTask
from farl_lightning.testing.benchmarks import write_face_synthetics, write_lapa
from farl_lightning.transforms.dense_config import DenseTransformConfig, parsing_recipe
from tests.datamodules.test_faces import spoil

NETWORK = DenseConfig(
    image=ImageEncoderConfig(image_size=32, patch_size=8, width=24, depth=4, heads=2), channels=8, dropout=0.0
)
BAD = {"unknown_label": 1, "mask_size": 2, "missing_annotation": 2, "small_image": 1, "huge_image": 1, "no_crop": 1}
PLAIN = DenseTransformConfig(size=32, crop="none")


class Everything(FaceSyntheticsDataModule):
    """Tests on every sample, whatever would be held out."""

    def faces(self, split: str):
        return self.open_split(split)


def trainer(folder, **options) -> L.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return L.Trainer(accelerator="cpu", default_root_dir=folder, log_every_n_steps=1, **quiet, **options)


def test_a_run_over_broken_files_ends_well(tmp_path):
    write_lapa(tmp_path, count=12, size=48)
    for split in ("train", "val", "test"):
        spoil(tmp_path / split)
    data = LaPaDataModule(str(tmp_path), transform=parsing_recipe(size=32), batch_size=6)
    counter = DropCounter(max_bad_share=None)
    task = ParsingTask(NETWORK, num_classes=11)
    run = trainer(tmp_path / "run", max_epochs=2, num_sanity_val_steps=0, logger=False, callbacks=[counter])
    run.fit(task, datamodule=data)
    assert all(weight.isfinite().all() for weight in task.parameters())
    assert counter.counts == {reason: 4 * count for reason, count in BAD.items()}  # two epochs, two validations
    (results,) = run.test(task, datamodule=data, verbose=False)
    assert counter.counts == {reason: 5 * count for reason, count in BAD.items()}
    assert np.isfinite([results["test/loss"], results["test/f1_mean"]]).all()
    lines = (tmp_path / "run" / "dropped.jsonl").read_text().splitlines()
    assert {json.loads(line)["key"] for line in lines} == {f"{index:08d}_0" for index in range(8)}


def test_a_bad_sample_moves_no_metric(tmp_path):
    """The same test set with a broken sample more scores the same, to the bit."""
    write_face_synthetics(tmp_path / "whole", count=5, size=32)
    write_face_synthetics(tmp_path / "more", count=6, size=32)
    Image.fromarray(np.full((32, 32), 77, np.uint8)).save(tmp_path / "more" / "000005_seg.png")
    torch.manual_seed(0)
    task, scores = ParsingTask(NETWORK, num_classes=19).eval(), []
    for name in ("whole", "more"):
        data = Everything(str(tmp_path / name), transform=PLAIN, batch_size=6)
        (result,) = trainer(tmp_path, logger=False).test(task, datamodule=data, verbose=False)
        scores.append({key: value for key, value in result.items() if "loss" not in key and "dropped" not in key})
    assert scores[0] == pytest.approx(scores[1], abs=0, rel=0, nan_ok=True)


def test_draws_are_written_beside_the_logs(tmp_path):
    write_face_synthetics(tmp_path / "renders", count=20, size=32)
    data = FaceSyntheticsDataModule(
        str(tmp_path / "renders"),
        transform=DenseTransformConfig(size=32, crop="none"),
        train_fraction=0.5,
        batch_size=4,
    )
    logger = CSVLogger(tmp_path, "logs")
    trainer(tmp_path, max_steps=1, limit_val_batches=0, logger=logger).fit(ParsingTask(NETWORK, 19), datamodule=data)
    written = json.loads((tmp_path / "logs" / "version_0" / "data_split.json").read_text())
    assert [(split, written[split]["count"]) for split in ("train", "test", "val")] == [
        ("train", 8),
        ("test", 2),
        ("val", 2),
    ]
