"""Every shipped config: it says what it is, it parses, and it trains on tiny sizes where its data can be made here."""

from __future__ import annotations

import pytest
import yaml

from farl_lightning.cli.shipped import shipped_configs
from farl_lightning.testing.models import write_random_codebook
from farl_lightning.testing.shards import write_fake_laion_face

CONFIGS = shipped_configs()
OVERLAYS = sorted(name for name in CONFIGS if name.startswith("trainer/"))
RECIPES = sorted(set(CONFIGS) - set(OVERLAYS))
TINY = {
    "trainer.accelerator": "cpu",
    "trainer.devices": "1",
    "trainer.num_nodes": "1",
    "trainer.strategy": "auto",
    "trainer.precision": "32-true",
    "model.clip.embed_dim": "16",
    "model.clip.image.image_size": "32",
    "model.clip.image.patch_size": "8",
    "model.clip.image.width": "48",
    "model.clip.image.depth": "2",
    "model.clip.image.heads": "3",
    "data.transform.image_size": "32",
    "data.transform.patch_size": "8",
    "data.batch_size": "4",
    "data.num_workers": "0",
}


def tree(name: str) -> dict:
    return yaml.safe_load(CONFIGS[name].read_text())


def tiny(name: str, folder) -> list[str]:
    """Return flags that make a recipe run on one core within seconds, without changing what it is made of."""
    config = tree(name)
    arguments, data = config["model"]["init_args"], config["data"]
    flags = dict(TINY)
    flags["trainer.max_steps"] = "100000"  # schedules stay as they are; fast_dev_run ends the run
    if "num_masked" in data["init_args"].get("transform", {}):
        flags["data.transform.num_masked"] = "6"
        flags["data.transform.min_block"] = "2"
    if (arguments["clip"].get("text", {}) or {}) is not None and "contrastive" in arguments.get(
        "objectives", {"contrastive": 0}
    ):
        flags.update({"model.clip.text.width": "48", "model.clip.text.depth": "2", "model.clip.text.heads": "3"})
    for objective, node in arguments.get("objectives", {}).items():
        target = (node.get("init_args", {}).get("target") or {}).get("class_path")
        if target == "DVAETokens":
            codebook = write_random_codebook(folder / "codebook")
            flags[f"model.objectives.{objective}.target.path_or_hub"] = str(codebook)
        if target == "KMeansTokens":
            flags[f"model.objectives.{objective}.target.vocab_size"] = "8"
    if data["class_path"] == "LaionFaceDataModule":
        fake = write_fake_laion_face(folder / "laion", shards=2, samples=8)
        flags["data.shards"] = str(fake.folder)
    else:
        flags.update({"data.train_count": "8", "data.val_count": "4"})
    return [f"--{key}={value}" for key, value in flags.items()]


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_the_first_comment_tells_what_data_hardware_time_and_outcome(name):
    text = CONFIGS[name].read_text()
    comment = "\n".join(line for line in text.splitlines()[:12] if line.startswith("#"))
    assert comment.count("\n") >= 2
    for word in ("Data:", "Hardware:", "Expect"):
        assert word in comment, f"{name} does not say: {word}"


@pytest.mark.parametrize("name", RECIPES)
def test_it_parses(name, run):
    status, out, err = run("fit", "--config", name, "--print_config")
    assert status == 0, err
    config = yaml.safe_load(out)
    assert config["model"]["class_path"].endswith(tree(name)["model"]["class_path"])


@pytest.mark.parametrize("name", RECIPES)
def test_it_trains_on_tiny_sizes(name, run, here):
    status, _, err = run("fit", "--config", name, *tiny(name, here), "--trainer.fast_dev_run=2")
    assert status == 0, err
    assert "max_steps=2` reached" in err


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_go_on_top_of_any_recipe(name, run):
    status, out, err = run("fit", "--config", "pretrain", "--config", name, "--print_config")
    assert status == 0, err
    merged, overlay = yaml.safe_load(out)["trainer"], tree(name)["trainer"]
    kept = [callback["class_path"].rsplit(".", 1)[-1] for callback in merged["callbacks"]]
    first = [callback["class_path"] for callback in tree("pretrain")["trainer"]["callbacks"]]
    added = [callback["class_path"] for callback in overlay.get("callbacks+", [])]
    assert kept == first + added
    assert "callbacks" not in overlay  # it would replace those of the recipe
    for key in ("accelerator", "devices", "num_nodes", "precision"):
        assert merged[key] == overlay[key]


def test_the_cpu_overlay_runs(run, here):
    flags = tiny("pretrain", here)
    kept = [flag for flag in flags if not flag.startswith("--trainer.")]
    status, _, err = run("fit", "--config", "pretrain", "--config", "trainer/cpu", *kept, "--trainer.fast_dev_run=1")
    assert status == 0, err
    assert "fit on CPU" in err


def test_no_list_of_a_recipe_depends_on_a_machine():
    for name, path in CONFIGS.items():
        assert "/home/" not in path.read_text(), name
        assert "/root/" not in path.read_text(), name
