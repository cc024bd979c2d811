"""Panels of dense tasks: which files and log entries appear, and what they show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from farl_lightning.callbacks import EMA, DensePanels
from farl_lightning.callbacks.dense_panels import choose, pictures
from farl_lightning.errors import ConfigError
from farl_lightning.functional.verification import roc_curve
from farl_lightning.objectives import Contrastive
from farl_lightning.types import FaceSpec
from tests.tasks import faces, tiny

NAMES = {faces.parser: {"confusion", "parsing"}, faces.aligner: {"ced", "heatmaps", "landmarks"}}


@pytest.mark.parametrize("make", list(NAMES))
def test_pictures_and_tensorboard(tmp_path, make):
    logger = TensorBoardLogger(tmp_path, name="tb")
    panels = DensePanels(every_n_validations=2, count=2)
    run = tiny.trainer(
        tmp_path, max_steps=4, val_check_interval=1, logger=logger, callbacks=[panels, EMA(0.5)], num_sanity_val_steps=1
    )
    run.fit(make(), datamodule=faces.FaceData())
    files = {path.name for path in (tmp_path / "tb" / "version_0" / "pictures").iterdir()}
    assert files == {f"{name}_step{step}.png" for name in NAMES[make] for step in (1, 3)}
    logger.finalize("success")
    events = EventAccumulator(logger.log_dir).Reload()
    assert set(events.Tags()["images"]) == {f"pictures/{name}" for name in NAMES[make]}
    assert panels.state_dict() == {"validations": 4}


def test_the_test_draws_once(tmp_path):
    run = tiny.trainer(tmp_path, callbacks=[DensePanels()])
    run.test(faces.parser(), datamodule=faces.FaceData(), verbose=False)
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"confusion_step0.png", "parsing_step0.png"}


def test_tasks_without_previews_and_batches_without_faces_are_left_alone(tmp_path):
    run = tiny.trainer(tmp_path, callbacks=[DensePanels()])
    run.test(tiny.task({"contrastive": Contrastive()}), datamodule=tiny.TinyData(), verbose=False)
    assert not (tmp_path / "pictures").exists()
    batch = faces.collate([faces.Faces(3)[0]])
    batch["valid"] = torch.tensor([False])
    assert choose(batch, 4)[1] == []


def test_curves_of_verification_are_drawn_where_there_are_any(tmp_path):
    panels, run, task = DensePanels(), tiny.trainer(tmp_path), faces.parser()
    panels.setup(run, task, "test")
    for curves in ({}, {"pairs": roc_curve(torch.rand(9), torch.arange(9) < 4)}):
        assert not (tmp_path / "pictures").exists()
        task.findings = {"roc": curves}
        panels._draw_findings(run, task)
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["roc_step0.png"]


def test_faces_are_chosen_among_those_that_count():
    batch = faces.collate([faces.Faces(6)[index] for index in range(6)])
    batch["valid"] = torch.tensor([True, False, True, True, False, True])
    few, keys = choose(batch, 2)
    assert keys == ["face-0", "face-3"]
    assert torch.equal(few["mask"], batch["mask"][[0, 3]])
    del batch["valid"], batch["landmarks"]
    assert choose(batch, 99)[1] == batch["key"]


def test_a_perfect_answer_shows_no_mistakes_and_a_wrong_one_does(tmp_path):
    batch = faces.collate([faces.Faces(1)[0]])
    few, keys = choose(batch, 1)
    right = pictures(few, {"labels": few["mask"]}, keys, faces.SPEC, "t")["parsing"]()
    wrong = few["mask"].clone()
    wrong[0, 10:20, 10:20] = 4
    other = pictures(few, {"labels": wrong}, keys, faces.SPEC, "t")["parsing"]()
    assert right.shape == other.shape
    red = (235, 30, 30)
    body = slice(0, int(right.shape[0] * 0.8))  # without the legend, which names the colour
    assert not (right[body] == red).all(-1).any()
    assert (other[body] == red).all(-1).any()


def test_classes_without_names_and_landmarks_without_truth():
    images = torch.zeros(1, 3, 16, 16)
    labels = torch.zeros(1, 16, 16, dtype=torch.int64)
    labels[0, 4:8] = 2
    assert pictures({"image": images}, {"labels": labels}, ["a"], FaceSpec(), "")["parsing"]().dtype == np.uint8
    shown = {"landmarks": torch.rand(1, 5, 2) * 16, "heatmaps": torch.rand(1, 5, 4, 4)}
    drawn = pictures({"image": images}, shown, ["a"], FaceSpec(), "")
    assert set(drawn) == {"landmarks", "heatmaps"}
    assert all(make().ndim == 3 for make in drawn.values())
    assert isinstance(Image.fromarray(drawn["heatmaps"]()), Image.Image)


@pytest.mark.parametrize("settings", [{"count": 0}, {"every_n_validations": 0}])
def test_wrong_settings(settings):
    with pytest.raises(ConfigError, match=f"{next(iter(settings))}=0"):
        DensePanels(**settings)
