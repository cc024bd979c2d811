"""Every recipe of a benchmark of the whole face: it trains and is tested on tiny sizes, on fakes of its benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from farl_lightning.models.released import released_spec
from farl_lightning.testing import benchmarks
from tests.configs.test_configs import CONFIGS, tree

FAKES: dict[str, Any] = {
    "CelebADataModule": benchmarks.write_celeba,
    "LFWADataModule": benchmarks.write_lfwa,
    "RAFDBDataModule": benchmarks.write_rafdb,
    "AffectNetDataModule": benchmarks.write_affectnet,
    "UTKFaceDataModule": benchmarks.write_utkface,
    "MORPH2DataModule": benchmarks.write_morph2,
    "FairFaceDataModule": benchmarks.write_fairface,
}
JUDGED = {"AttributeTask": "accuracy_mean", "ClassificationTask": "accuracy", "AgeTask": "mae"}


def is_recipe(name: str) -> bool:
    """Whether a config trains a task of whole faces on a benchmark."""
    data, model = ((tree(name).get(part) or {}).get("class_path") for part in ("data", "model"))
    return "/" in name and data in FAKES and model in JUDGED


RECIPES = sorted(filter(is_recipe, CONFIGS))
TINY = {
    "trainer.max_steps": "2",
    "trainer.val_check_interval": "2",
    "trainer.check_val_every_n_epoch": "null",
    "trainer.limit_val_batches": "1",
    "trainer.enable_progress_bar": "false",
    "trainer.accelerator": "cpu",
    "trainer.devices": "1",
    "model.weights": "null",
    "model.network.image.image_size": "32",
    "model.network.image.width": "24",
    "model.network.image.depth": "2",
    "model.network.image.heads": "2",
    "data.transform.size": "32",
    "data.batch_size": "2",
    "data.num_workers": "0",
}


@pytest.mark.parametrize("name", RECIPES)
def test_it_trains_and_is_tested_on_tiny_sizes(name, run, here):
    config = tree(name)
    kind, task = config["data"]["class_path"], config["model"]
    if kind == "LFWADataModule":
        pytest.importorskip("scipy", reason="SciPy is not installed (extra 'datasets')")
    FAKES[kind](here / "faces")
    flags = [f"--{key}={value}" for key, value in TINY.items()]
    if kind != "CelebADataModule":  # the others have no official validation split
        flags.append("--data.val_fraction=0.2")
    status, _, err = run("fit", "--config", name, *flags, "--data.root", here / "faces")
    assert status == 0, err
    (last,) = here.rglob("last.ckpt")
    assert len(list(last.parent.glob("epoch*.ckpt"))) == 1  # chosen on validation
    saved = torch.load(last, weights_only=True)
    assert (saved["global_step"], int(saved["averaging_state"]["n_averaged"])) == (2, 2)
    trained = {str(group.get("name")) for group in saved["optimizer_states"][0]["param_groups"]}
    assert any("encoder" in group for group in trained) != ("frozen" in name)
    again = ["--config", name, *flags, "--data.root", here / "faces"] if kind == "FairFaceDataModule" else []
    status, out, err = run("test", *again, "--ckpt_path", last, "--trainer.accelerator=cpu")
    assert status == 0, err
    key = JUDGED[task["class_path"]]
    newest = max(here.rglob("results.json"), key=lambda path: path.stat().st_mtime)
    entry = json.loads(newest.read_text())["test"]["metrics"][f"test/{key}"]
    assert entry["baseline"] is not None
    paper = task["init_args"]["reference"][key]
    assert entry["difference_to_paper"] == pytest.approx(entry["value"] - paper["value"])
    assert str(paper["value"]) in out
    if kind == "FairFaceDataModule":
        groups = (newest.parent / "test_subgroups.csv").read_text()
        assert all(word in groups for word in ("Female", "East Asian", "race x gender"))


@pytest.mark.parametrize("name", RECIPES)
def test_epochs_are_chosen_on_validation_and_papers_named(name):
    config = tree(name)
    key = JUDGED[config["model"]["class_path"]]
    saver = config["trainer"]["callbacks"][0]["init_args"]
    assert (saver["monitor"], saver["mode"]) == (f"val/{key}", "min" if key == "mae" else "max")
    (row,) = config["model"]["init_args"]["reference"].values()
    assert row["source"]
    assert row["selection"]
    assert row["mark"] in ("confirmed", "recalled")


def test_every_benchmark_has_a_recipe():
    assert {tree(name)["data"]["class_path"] for name in RECIPES} == set(FAKES)
    assert {"attributes/celeba", "attributes/celeba_frozen", "age/morph2", "race/fairface"} <= set(RECIPES)


def test_celeba_is_cropped_as_facer_crops():
    spec = released_spec("attributes", 40, 224)
    assert spec is not None
    for name in ("attributes/celeba", "attributes/celeba_frozen"):
        transform = tree(name)["data"]["init_args"]["transform"]
        torch.testing.assert_close(torch.tensor(transform["template"]), torch.tensor(spec.template), atol=1e-5, rtol=0)


def test_comments_name_only_settings_that_exist():
    for name in RECIPES:
        text, config = Path(CONFIGS[name]).read_text(encoding="utf-8"), tree(name)
        for word in (word.strip(",.:;") for word in text.split() if word.startswith("--data.")):
            assert word.removeprefix("--data.").split(".")[0] in {
                *config["data"]["init_args"],
                *("train_fraction", "ages", "protocol", "expressions"),
            }, (name, word)
