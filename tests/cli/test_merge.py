"""A run with adapters, merged: the same answers from an ordinary network, without peft."""

from __future__ import annotations

import json
import re
import sys

import pytest
import torch

from farl_lightning.cli.merge import merged
from farl_lightning.errors import CheckpointError

TINY = {
    "trainer.max_steps": "3",
    "trainer.val_check_interval": "3",
    "trainer.enable_progress_bar": "false",
    "trainer.accelerator": "cpu",
    "model.tuning": "lora",
    "model.lora_rank": "2",
    "model.optim.lr": "0.05",
    "model.optim.warmup_steps": "0",
    "model.network.image.image_size": "32",
    "model.network.image.width": "24",
    "model.network.image.depth": "2",
    "data.transform.size": "32",
    "data.batch_size": "4",
    "data.train_count": "12",
    "data.val_count": "4",
    "data.test_count": "6",
}


def logits(path, images):
    """Return what the network of a checkpoint says of images, and its probabilities."""
    from farl_lightning.models.attributes import FaceClassifier

    return FaceClassifier.from_checkpoint(path)(images)


def test_a_run_with_adapters_becomes_an_ordinary_one(run, here, monkeypatch):
    pytest.importorskip("peft", reason="the extra 'lora' is not installed")
    status, _, err = run("fit", "--config", "expression", *(f"--{key}={value}" for key, value in TINY.items()))
    assert status == 0, err
    assert re.search(r"ClassificationTask: .* trainable parameters, .* frozen: [0-9.]+ % are trained", err)
    (last,) = here.rglob("last.ckpt")
    before = torch.load(last, weights_only=True)
    adapters = {name: value for name, value in before["state_dict"].items() if ".lora_B." in name}
    assert adapters
    assert all(value.abs().max() > 0 for value in adapters.values())  # they were trained
    status, out, err = run("merge", "--ckpt_path", last, "--output", "merged.ckpt")
    assert status == 0, err
    assert "wrote merged.ckpt" in out
    after = torch.load(here / "merged.ckpt", weights_only=True)
    assert not any("lora" in name or "base_layer" in name for name in after["state_dict"])
    assert after["hyper_parameters"]["tuning"] == "finetune"
    assert after["face_spec"] == before["face_spec"]
    assert not {"optimizer_states", "loops", "current_model_state"} & set(after)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(logits(here / "merged.ckpt", images), logits(last, images))
    _without_average(run, here, last, images)
    assert run("test", "--ckpt_path", last, "--trainer.accelerator=cpu")[0] == 0
    wanted = json.loads((last.parents[1] / "results.json").read_text())["test"]["metrics"]
    monkeypatch.setitem(sys.modules, "peft", None)
    status, _, err = run("test", "--ckpt_path", "merged.ckpt", "--trainer.accelerator=cpu")
    assert status == 0, err
    newest = max(here.rglob("results.json"), key=lambda path: path.stat().st_mtime)
    assert newest.parent != last.parents[1]
    found = json.loads(newest.read_text())["test"]["metrics"]
    for name, entry in wanted.items():
        assert found[name]["value"] == pytest.approx(entry["value"], rel=1e-4), name


def _without_average(run, here, last, images):
    """The last weights are others than their average; what is there is not replaced unasked."""
    assert run("merge", "--ckpt_path", last, "--output", "merged.ckpt", "--no_ema")[0] == 2
    assert run("merge", "--ckpt_path", last, "--output", "raw.ckpt", "--no_ema")[0] == 0
    assert not torch.allclose(logits(here / "raw.ckpt", images), logits(here / "merged.ckpt", images))


def test_what_cannot_be_merged_is_named(run, here):
    (here / "folder").mkdir()
    (here / "sharded.ckpt").mkdir()
    (here / "sharded.ckpt" / "meta.pt").touch()
    for words, status, text in (
        (("sharded.ckpt", "--output", "x.ckpt"), 1, "make one file of it: farl-lightning consolidate sharded.ckpt"),
        (("folder", "--output", "x.ckpt"), 1, "'folder' is a folder; give a file in it"),
        (("no.ckpt", "--output", "folder"), 2, "is a folder; give the name of a file, such as folder/merged.ckpt"),
        (("no.ckpt", "--output", "x.ckpt"), 1, "'no.ckpt'"),
    ):
        found, _, err = run("merge", "--ckpt_path", *words)
        assert (found, text in err) == (status, True), err
        assert "Traceback" not in err
    assert run("merge", "--ckpt_path", "x.ckpt", "--ouput", "y")[0] == 2
    with pytest.raises(CheckpointError, match="'x' is no checkpoint of a run"):
        merged({"state_dict": {}}, "x")
    plain = {
        "pytorch-lightning_version": "2",
        "state_dict": {"a": torch.ones(1)},
        "hyper_parameters": {"tuning": "frozen"},
    }
    with pytest.raises(CheckpointError, match=r"holds no adapters \(its tuning is 'frozen'\)"):
        merged(plain, "x")
