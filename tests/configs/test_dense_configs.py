"""Every recipe of parsing and alignment: it trains and is tested on tiny sizes, on fakes of its benchmark."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from farl_lightning.testing import benchmarks
from tests.configs.test_configs import CONFIGS, tree

RECIPES = sorted(name for name in CONFIGS if name.startswith(("parsing", "alignment")))
FAKES = {
    "LaPaDataModule": benchmarks.write_lapa,
    "CelebAMaskHQDataModule": benchmarks.write_celebamask_hq,
    "FaceSyntheticsDataModule": benchmarks.write_face_synthetics,
    "IBugMaskDataModule": benchmarks.write_ibugmask,
    "IBug300WDataModule": benchmarks.write_ibug300w,
    "WFLWDataModule": benchmarks.write_wflw,
    "AFLW19DataModule": benchmarks.write_aflw19,
    "COFWDataModule": benchmarks.write_cofw,
}
TINY = {
    "trainer.max_steps": "2",
    "trainer.val_check_interval": "2",
    "trainer.check_val_every_n_epoch": "null",
    "trainer.limit_val_batches": "1",
    "trainer.enable_progress_bar": "false",
    "trainer.accelerator": "cpu",
    "trainer.devices": "1",
    "model.network.image.image_size": "32",
    "model.network.image.patch_size": "8",
    "model.network.image.width": "24",
    "model.network.image.depth": "4",
    "model.network.image.heads": "2",
    "model.network.channels": "8",
    "data.transform.size": "32",
    "data.batch_size": "2",
    "data.num_workers": "0",
}


def tiny(name: str, folder: Path) -> list[str]:
    """Return flags that make a recipe run on one core within seconds, without changing what it is made of."""
    config = tree(name)
    flags = dict(TINY)
    if "weights" in config["model"]["init_args"]:
        flags["model.weights"] = "null"
    if "warmup_steps" in config["model"]["init_args"]["optim"]:
        flags["model.optim.warmup_steps"] = "0"
    kind = config["data"]["class_path"]
    if kind in FAKES:
        FAKES[kind](folder / "faces", count=12)
        flags["data.root"] = str(folder / "faces")
    else:
        flags |= {"data.train_count": "4", "data.val_count": "2", "data.test_count": "3"}
    return [f"--{key}={value}" for key, value in flags.items()]


@pytest.mark.parametrize("name", RECIPES)
def test_it_trains_and_is_tested_on_tiny_sizes(name, run, here):
    status, _, err = run("fit", "--config", name, *tiny(name, here))
    assert status == 0, err
    (last,) = here.rglob("last.ckpt")
    saved = torch.load(last, weights_only=True)
    assert saved["global_step"] == 2
    assert saved["averaging_state"]["n_averaged"] == 2
    if "frozen" in name:
        assert not any("encoder" in str(group.get("name")) for group in saved["optimizer_states"][0]["param_groups"])
    status, out, err = run("test", "--ckpt_path", last, "--trainer.accelerator=cpu")
    assert status == 0, err
    check_results(name, last.parents[1], out)


def check_results(name: str, folder: Path, out: str) -> None:
    """Look at what the test left behind: its file, its table per class or subset, published numbers beside it."""
    arguments = tree(name)["model"]["init_args"]
    test = json.loads((folder / "results.json").read_text())["test"]
    key = "f1_mean" if name.startswith("parsing") else "nme"
    assert test["metrics"][f"test/{key}"]["value"] is not None
    table = "test_per_class.csv" if key == "f1_mean" else "test_per_subset.csv"
    assert len(list(csv.reader((folder / table).open(newline="")))) > 1
    assert ("FaRL paper" in out) == ("reference" in arguments)
    for metric, row in arguments.get("reference", {}).items():
        line = next(
            line for line in out.splitlines() if line.startswith(f"test/{metric} ") and row["selection"] in line
        )
        assert f" {row['value']} " in line
        entry = test["metrics"].get(f"test/{metric}")
        if entry is not None and entry["value"] is not None:
            assert entry["difference_to_paper"] == pytest.approx(entry["value"] - row["value"])


@pytest.mark.parametrize("name", [name for name in RECIPES if "/" in name])
def test_recipes_of_benchmarks_select_on_validation_and_name_their_source(name):
    config = tree(name)
    saver = config["trainer"]["callbacks"][0]["init_args"]
    assert saver["monitor"].startswith("val/")
    assert saver["mode"] == ("max" if name.startswith("parsing") else "min")
    average = next(c for c in config["trainer"]["callbacks"] if c["class_path"] == "EMA")
    assert average["init_args"]["decay"] == 0.999
    for row in config["model"]["init_args"].get("reference", {}).values():
        assert row["mark"] in ("confirmed", "recalled")
        assert row["selection"]


def test_every_benchmark_has_both_recipes():
    names = {name for name in RECIPES if "/" in name}
    assert {name.removesuffix("_frozen") for name in names if name.endswith("_frozen")} == {
        name for name in names if not name.endswith("_frozen")
    }
    kinds = {tree(name)["data"]["class_path"] for name in names}
    assert kinds == set(FAKES)
