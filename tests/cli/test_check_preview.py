from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from farl_lightning.cli.inspection import describe_batch, human, parameter_rows
from farl_lightning.cli.preview import _caption
from farl_lightning.types import FaceSpec
from tests.cli.fakes import FakeClip, FakeTask


def test_check_counts_parameters_memory_and_arithmetic(run, here):
    status, out, err = run("check", "--config", "fake")
    assert status == 0, err
    rows = {line.split("  ")[1]: line.split()[-2:] for line in out.splitlines() if line.startswith("  ")}
    assert "  part    trainable  frozen" in out
    assert rows["tower"] == ["20", "0"]
    assert rows["frozen"] == ["0", "20"]
    assert rows["total"] == ["20", "20"]
    assert rows["parameters"] == ["160", "B"]
    assert rows["gradients"] == ["80", "B"]
    assert "(2, 3, 16, 16) float32, " in out
    assert "(2, 4) bool, 25% True" in out
    assert "list of 2: caption 0" in out
    # one linear layer of 4 x 4, forward and the gradient of its weight: 2 x (2 x 4 x 4) a sample
    assert "forward and backward           64 FLOP per sample" in out
    assert rows["group 0"] == ["0.1", "0.01"]  # learning rate and weight decay of AdamW
    assert not (here / "runs").exists()


def test_check_takes_the_flags_of_fit(run):
    status, out, err = run("check", "--config", "fake", "--model.optim.lr", "0.03", "--trainer.max_steps", "9")
    assert status == 0, err
    assert "0.03" in out
    assert run("check", "--config", "fake", "--model.optim.lx", "1")[0] == 2


def test_check_with_a_checkpoint_says_whether_it_fits(run, last):
    assert run("check", "--config", "fake", "--ckpt_path", last)[0] == 0
    wider = ["--model.clip.embed_dim", "6", "--ckpt_override"]
    status, _, err = run("check", "--config", "fake", "--ckpt_path", last, *wider)
    assert status == 1
    assert "does not fit this model: 2 of another shape (such as model.tower.weight)" in err


def test_parameters_without_a_gradient_are_named(run, here):
    (here / "idle.py").write_text(
        "from torch import nn\nfrom tests.cli.fakes import FakeTask\n\n\nclass IdleTask(FakeTask):\n"
        "    def __init__(self, clip):\n        super().__init__(clip)\n        self.model['idle'] = nn.Linear(2, 2)\n"
    )
    (here / "idle.yaml").write_text((here / "fake.yaml").read_text().split("    objectives")[0])
    words = ["--config", "idle", "--model.class_path", "idle.IdleTask", "--data", "tests.cli.fakes.FakeData"]
    status, out, err = run("check", *words)
    assert status == 0, err
    assert "trainable, but without a gradient\n  model.idle.weight\n  model.idle.bias" in out


@pytest.mark.parametrize("count", [3, 6])
def test_preview_draws_images_masks_and_captions(run, here, count):
    status, out, err = run("preview", "--config", "fake", "--output", "deep/faces.png", "--count", count)
    assert status == 0, err
    assert "wrote deep/faces.png" in out
    picture = np.asarray(Image.open(here / "deep/faces.png"))
    assert picture.shape[2] == 3
    assert 150 * count < picture.shape[0] < 200 * count  # a row for each sample
    grey = (picture == 128).all(2)
    assert 0.05 < grey[:, 160:330].mean() < 0.35  # a quarter of each masked image is covered
    assert (picture[:, 340:] < 100).any()  # words
    assert not (here / "runs").exists()


def test_preview_writes_the_labels_beside_a_face():
    spec = FaceSpec(attributes=("Bald", "Smiling", "Young"), label_names={"gender": ("female", "male"), "age": ()})
    labels = {
        "attributes": torch.tensor([[0, 1, 1], [-1, 0, 0]]),
        "gender": torch.tensor([1, -1]),
        "age": torch.tensor([51.577, float("nan")]),
    }
    batch = {"key": ["a.jpg", "b.jpg"], "labels": labels}
    assert _caption(batch, 0, spec) == "a.jpg; Smiling, Young; gender male; age 51.58"
    assert _caption(batch, 1, spec) == "b.jpg; gender unknown; age unknown"
    assert _caption({"caption": ["a smiling man"], "key": ["0001"]}, 0, FaceSpec()) == "a smiling man"


def test_preview_needs_no_model_and_refuses_no_samples(run):
    data = ["--data", "FakeData"]
    assert run("preview", *data)[0] == 0
    status, _, err = run("preview", *data, "--count", "0")
    assert status == 2
    assert "--count is 0" in err


def test_numbers_batches_and_sizes_as_people_read_them():
    assert [human(n) for n in (0, 999, 1000, 86_192_640, 2.5e9)] == ["0 ", "999 ", "1 k", "86.2 M", "2.5 G"]
    batch = {"x": torch.tensor([[1, 2]]), "none": [], "inner": {"m": torch.zeros(2, 0)}, "flag": True}
    assert dict(describe_batch(batch)) == {
        "x": "(1, 2) int64, 1 to 2",
        "none": "list of 0: empty",
        "inner.m": "(2, 0) float32",
        "flag": "True",
    }
    assert list(parameter_rows(FakeTask(FakeClip(4))))[-1] == ("total", "20 ", "20 ")
