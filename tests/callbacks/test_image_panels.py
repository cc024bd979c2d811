"""Panels: which files and log entries appear, and what they show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from farl_lightning.callbacks import EMA, ImagePanels
from farl_lightning.errors import ConfigError
from farl_lightning.models.image_tokenizer import PixelTarget
from farl_lightning.objectives import Contrastive
from tests.tasks import tiny


def test_pictures_and_tensorboard(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="tb")
    run = tiny.trainer(tmp_path, max_steps=4, logger=logger, callbacks=[ImagePanels(every_n_validations=2), EMA(0.5)])
    run.fit(tiny.task(), datamodule=tiny.TinyData())
    names = sorted(path.name for path in (tmp_path / "tb" / "version_0" / "pictures").iterdir())
    assert names == ["caption_ranking_step2.png", "masked_image_step2.png"]  # the second validation is left out
    logger.finalize("success")
    events = EventAccumulator(logger.log_dir).Reload()
    assert set(events.Tags()["images"]) == {"pictures/caption_ranking", "pictures/masked_image"}


def test_other_loggers_and_none(tmp_path):
    for logger in (CSVLogger(tmp_path, name="csv"), False):
        run = tiny.trainer(tmp_path, logger=logger, callbacks=[ImagePanels()])
        run.fit(tiny.task(), datamodule=tiny.TinyData())
    assert (tmp_path / "csv" / "version_0" / "pictures" / "masked_image_step2.png").exists()
    assert (tmp_path / "pictures" / "masked_image_step2.png").exists()


def test_target_without_pixels_and_task_without_masks(tmp_path):
    task = tiny.task({"contrastive": Contrastive()})
    run = tiny.trainer(tmp_path, callbacks=[ImagePanels()])
    run.test(task, datamodule=tiny.TinyData(), verbose=False)
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert names == {"caption_ranking_step0.png", "masked_image_step0.png"}
    with_two = np.asarray(Image.open(tmp_path / "pictures" / "masked_image_step0.png")).shape[1]
    run = tiny.trainer(tmp_path, callbacks=[ImagePanels()])
    run.test(tiny.task(tiny.farl(PixelTarget())), datamodule=tiny.TinyData(), verbose=False)
    with_three = np.asarray(Image.open(tmp_path / "pictures" / "masked_image_step0.png")).shape[1]
    assert with_three > with_two  # a third column: what the model fills in


def test_ranking_lists_the_best_once_and_the_own_wherever_it_stands():
    panels = ImagePanels(captions=2)
    lines = panels._best(torch.tensor([0.1, 0.9, 0.5, 0.8, 0.7]), ["own", "a", "b", "a", "c"], "own")
    assert [(line.rank, line.text, line.own) for line in lines] == [(1, "a", False), (2, "c", False), (4, "own", True)]
    assert lines[0].similarity == pytest.approx(0.9)


def test_images_are_spread_over_the_batch():
    assert ImagePanels(count=4)._spread(16) == [0, 4, 8, 12]
    assert ImagePanels(count=8)._spread(3) == [0, 1, 2]


def test_wrong_settings():
    with pytest.raises(ConfigError, match="every_n_validations=0"):
        ImagePanels(every_n_validations=0)
