"""Recipes of verification: people drawn or in folders are learned, pairs of others judged, on tiny sizes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from farl_lightning.testing import benchmarks
from tests.configs.test_configs import CONFIGS, tree

RECIPES = sorted(name for name in CONFIGS if name.startswith("verification"))
TINY = {
    "trainer.max_steps": "2",
    "trainer.enable_progress_bar": "false",
    "trainer.accelerator": "cpu",
    "trainer.devices": "1",
    "trainer.precision": "32-true",
    "trainer.sync_batchnorm": "false",
    "model.network.image.image_size": "32",
    "model.network.image.patch_size": "16",
    "model.network.image.width": "24",
    "model.network.image.depth": "2",
    "model.network.image.heads": "2",
    "model.embedding_size": "8",
    "data.batch_size": "4",
}


def tiny(name: str, folder: Path) -> list[str]:
    """Return flags that make a recipe run on one core within seconds, without changing what it is made of."""
    flags, data = dict(TINY), tree(name)["data"]
    if data["class_path"] == "SyntheticIdentitiesDataModule":
        flags |= {"data.train_people": "3", "data.val_people": "20", "data.test_people": "20", "data.image_size": "32"}
        flags |= {"data.pictures_per_identity": "3", "data.val_pairs": "20", "data.test_pairs": "40"}
        flags |= {"data.transform.size": "32", "model.optim.warmup_steps": "0", "trainer.val_check_interval": "2"}
    else:
        benchmarks.write_identities(folder / "people", people=3, pictures=4)
        flags |= {"data.root": str(folder / "people"), "data.num_workers": "0", "model.weights": "null"}
        for seed, (key, _) in enumerate(data["init_args"]["pairs"].items()):
            benchmarks.write_pairs_bin(folder / f"{key}.bin", seed=seed, protocol=2)
            flags[f"data.pairs.{key}"] = str(folder / f"{key}.bin")
    return [f"--{key}={value}" for key, value in flags.items()]


@pytest.mark.parametrize("name", ["verification", "verification/cosface", "verification/arcface_sharded"])
def test_it_trains_and_is_tested_on_tiny_sizes(name, run, here):
    status, _, err = run("fit", "--config", name, *tiny(name, here))
    assert status == 0, err
    (last,) = here.rglob("last.ckpt")
    saved = torch.load(last, weights_only=True)
    assert saved["global_step"] == 2
    assert saved["state_dict"]["model.margin.centres.weight"].shape == (3, 8)
    assert ("averaging_state" in saved) == (name != "verification/arcface_sharded")
    status, out, err = run("test", "--ckpt_path", last, "--trainer.accelerator=cpu")
    assert status == 0, err
    check_results(name, last.parents[1], out)


def check_results(name: str, folder: Path, out: str) -> None:
    """Look at what the test left behind: every list with its baseline, published numbers, a row per fold."""
    config = tree(name)
    metrics = json.loads((folder / "results.json").read_text())["test"]["metrics"]
    lists = config["data"]["init_args"].get("pairs", ["drawn"])
    for key in [f"accuracy_{part}" for part in (*lists, "mean")]:
        entry = metrics[f"test/{key}"]
        assert entry["baseline"] == pytest.approx(50)
        assert entry["low"] <= entry["difference"] <= entry["high"]
    for key, row in config["model"]["init_args"].get("reference", {}).items():
        assert metrics[f"test/{key}"]["difference_to_paper"] == pytest.approx(
            metrics[f"test/{key}"]["value"] - row["value"]
        )
        assert f"test/{key} " in out
    rows = list(csv.DictReader((folder / "test_per_fold.csv").open(newline="")))
    assert {row["trial"] for row in rows} == set(lists)
    assert len(rows) == 10 * len(lists)
    assert (folder / "test_per_rank.csv").exists() == ("drawn" in lists)


def test_every_list_has_a_published_number_and_no_list_of_the_test_chooses_an_epoch():
    rows = tree("verification/cosface")["model"]["init_args"]["reference"]
    five = [rows[f"accuracy_{name}"]["value"] for name in tree("verification/cosface")["data"]["init_args"]["pairs"]]
    assert sum(five) / 5 == pytest.approx(rows["accuracy_mean"]["value"], abs=0.01)
    for name in RECIPES:
        saver = tree(name)["trainer"]["callbacks"][0]["init_args"]
        assert saver.get("monitor") == ("val/accuracy_mean" if name == "verification" else None)


def test_triplets_train_from_the_same_recipe(run, here):
    flags = ["--model.loss=triplet", "--model.margin=0.2", "--data.pictures_per_person=2"]
    flags += ["--trainer.limit_val_batches=0", "--trainer.callbacks=[]"]
    status, _, err = run("fit", "--config", "verification", *tiny("verification", here), *flags)
    assert status == 0, err
