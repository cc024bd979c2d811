"""Photographs through the command line, with a real task and its checkpoint."""

from __future__ import annotations

import csv
import json

import lightning as L
import numpy as np
import pytest
from PIL import Image

from farl_lightning.tasks import ParsingTask
from tests.inference.networks import PARSING, TINY

POINTS = [[50, 40], [80, 43], [64, 56], [53, 75], [75, 77]]


@pytest.fixture
def photos(here):
    """A checkpoint, two photographs with three faces, one file that is no picture."""
    task = ParsingTask(network=TINY)
    task.set_spec(PARSING)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(here / "parsing.ckpt")
    folder = here / "photos"
    folder.mkdir()
    for name in ("one.png", "two.png"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)).save(folder / name)
    (folder / "bad.jpg").write_bytes(b"no picture")
    faces = {"one.png": [{"points": POINTS}], "two.png": [{"points": POINTS}, {"points": POINTS, "box": [0, 0, 9, 9]}]}
    (here / "faces.json").write_text(json.dumps(faces))
    return folder


def test_masks_of_every_face_and_a_reason_for_what_is_missing(run, here, photos):
    words = ("--data", "PhotoFolderDataModule", "--data.root", "photos", "--data.faces", "faces.json")
    status, out, err = run("predict", "--ckpt_path", "parsing.ckpt", *words, "--trainer.accelerator", "cpu")
    assert status == 0, err
    with (here / "predictions/faces.csv").open() as file:
        rows = {row["key"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"one.png#0", "two.png#0", "two.png#1", "bad.jpg"}
    assert "not_an_image" in rows["bad.jpg"]["problem"]
    with Image.open(here / "predictions" / rows["two.png#1"]["mask"]) as mask:
        assert (mask.size, mask.mode) == ((160, 120), "P")
    assert "bad.jpg" in out


def test_a_wrong_detector_is_named(run, photos):
    words = ("--data", "PhotoFolderDataModule", "--data.root", "photos", "--data.detector", "MTCN")
    status, _, err = run("predict", "--ckpt_path", "parsing.ckpt", *words)
    assert status == 2
    assert "Did you mean 'MTCNN'?" in err


def test_photographs_cannot_be_tested(run, photos):
    status, _, err = run(
        "test", "--ckpt_path", "parsing.ckpt", "--data", "PhotoFolderDataModule", "--data.root", "photos"
    )
    assert status == 2
    assert "photographs without labels are for predict alone" in err
