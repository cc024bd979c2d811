"""Recipes of labels of the whole face: each trains and is tested on tiny sizes, beside its baseline."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from tests.configs.test_configs import CONFIGS, tree

RECIPES = {
    "attributes": ("accuracy_mean", "test_per_attribute.csv"),
    "expression": ("accuracy", "test_per_class.csv"),
    "age": ("mae", "test_per_decade.csv"),
}
TINY = {
    "trainer.max_steps": "2",
    "trainer.val_check_interval": "2",
    "trainer.limit_val_batches": "1",
    "trainer.enable_progress_bar": "false",
    "trainer.accelerator": "cpu",
    "model.network.image.image_size": "32",
    "model.network.image.patch_size": "16",
    "model.network.image.width": "24",
    "model.network.image.depth": "2",
    "model.optim.warmup_steps": "0",
    "data.transform.size": "32",
    "data.batch_size": "2",
    "data.train_count": "4",
    "data.val_count": "2",
    "data.test_count": "3",
}


@pytest.mark.parametrize("name", RECIPES)
def test_it_trains_and_is_tested_on_tiny_sizes(name, run, here):
    assert name in CONFIGS
    flags = [f"--{key}={value}" for key, value in TINY.items()]
    status, _, err = run("fit", "--config", name, *flags)
    assert status == 0, err
    (last,) = here.rglob("last.ckpt")
    saved = torch.load(last, weights_only=True)
    assert saved["global_step"] == 2
    assert saved["averaging_state"]["n_averaged"] == 2
    status, _, err = run("test", "--ckpt_path", last, "--trainer.accelerator=cpu")
    assert status == 0, err
    check_results(name, last.parents[1])


def check_results(name: str, folder: Path) -> None:
    """Look at what the test left behind: a value, its baseline with an interval, and a table."""
    key, table = RECIPES[name]
    entry = json.loads((folder / "results.json").read_text())["test"]["metrics"][f"test/{key}"]
    assert entry["value"] is not None
    assert entry["baseline"] is not None
    assert entry["low"] <= entry["difference"] <= entry["high"]
    assert len(list(csv.reader((folder / table).open(newline="")))) > 1


@pytest.mark.parametrize("name", RECIPES)
def test_the_checkpoint_is_chosen_on_validation(name):
    saver = tree(name)["trainer"]["callbacks"][0]["init_args"]
    assert saver["monitor"].startswith("val/")
    assert saver["mode"] == ("min" if name == "age" else "max")
