"""Recipes that train nothing: labels told by prompts on fake benchmark folders, and any test split by subgroups."""

from __future__ import annotations

import csv
import json

import pytest

from farl_lightning.testing import benchmarks
from tests.configs.test_configs import CONFIGS, tree
from tests.configs.test_global_configs import TINY as TINY_FACES

RECIPES = {
    "zero_shot/celeba": (benchmarks.write_celeba, ["mean", "Smiling", "Male_balanced"], "gender x age"),
    "zero_shot/fairface": (benchmarks.write_fairface, ["gender", "age", "age_balanced", "gender_f1"], "race x gender"),
    "zero_shot/rafdb": (benchmarks.write_rafdb, ["expression", "expression_f1"], "race"),
}
TINY = {
    "trainer.accelerator": "cpu",
    "trainer.devices": "1",
    "trainer.enable_progress_bar": "false",
    "model.weights": "null",
    "model.clip.embed_dim": "16",
    "model.clip.image.image_size": "32",
    "model.clip.image.patch_size": "16",
    "model.clip.image.width": "24",
    "model.clip.image.depth": "1",
    "model.clip.image.heads": "2",
    "model.clip.text.width": "16",
    "model.clip.text.depth": "1",
    "model.clip.text.heads": "2",
    "data.transform.size": "32",
    "data.num_workers": "0",
}


def rows(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_recipe_is_tried():
    assert {name for name in CONFIGS if name.startswith("zero_shot/")} == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_labels_are_told_and_split_by_subgroups(name, run, here):
    write, keys, column = RECIPES[name]
    write(here / "faces")
    flags = [f"--{key}={value}" for key, value in TINY.items()]
    status, _, err = run("test", "--config", name, *flags, f"--data.root={here / 'faces'}")
    assert status == 0, err
    (results,) = here.rglob("results.json")
    metrics = json.loads(results.read_text())["test"]["metrics"]
    for key in keys:
        entry = metrics[f"test/zero_shot_{key}"]
        assert entry["low"] <= entry["difference"] <= entry["high"]
    table = rows(results.parent / "test_subgroups.csv")
    assert column in {row["column"] for row in table}
    assert {row["column"] for row in table} == set(tree(name)["trainer"]["callbacks"][2]["init_args"]["columns"])
    assert (results.parent / "test_subgroups.png").is_file()


def test_the_overlay_splits_the_test_of_a_checkpoint(run, here):
    flags = [f"--{key}={value}" for key, value in TINY_FACES.items()]
    status, _, err = run("fit", "--config", "expression", *flags)
    assert status == 0, err
    (last,) = here.rglob("last.ckpt")
    status, out, err = run("test", "--config", "trainer/subgroups", "--ckpt_path", last, "--trainer.accelerator=cpu")
    assert status == 0, err
    assert "split by" in out
    (table,) = here.rglob("test_subgroups.csv")
    assert {row["column"] for row in rows(table)} == {"gender", "age_group"}
    assert sum(int(row["faces"]) for row in rows(table) if row["column"] == "gender") == 3
