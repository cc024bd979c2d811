"""Every shipped config: it says what it is, it parses, and it trains on tiny sizes where its data can be made here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint

from farl_lightning.callbacks import HangGuard
from farl_lightning.cli.shipped import shipped_configs
from farl_lightning.datasets.detections import index_detections
from farl_lightning.testing.models import write_random_codebook
from farl_lightning.testing.shards import write_fake_laion_face
from tests.tasks import tiny as tiny_task

CONFIGS = shipped_configs()
OVERLAYS = sorted(name for name in CONFIGS if name.startswith("trainer/"))
BENCHMARKS = sorted(name for name in CONFIGS if name.startswith("benchmark/"))
RECIPES = sorted(set(CONFIGS) - set(OVERLAYS) - set(BENCHMARKS))
PRETRAINING = [name for name in RECIPES if name.startswith("pretrain")]
TINY = {
    "trainer.max_steps": "2",
    "trainer.limit_val_batches": "1",
    "trainer.enable_progress_bar": "false",
    "model.fit_images": "8",
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


def tiny(name: str, folder: Path) -> list[str]:
    """Return flags that make a recipe run on one core within seconds, without changing what it is made of."""
    config = tree(name)
    arguments, data = config["model"]["init_args"], config["data"]
    flags = dict(TINY)
    if arguments["clip"].get("text"):
        flags |= {"model.clip.text.width": "48", "model.clip.text.depth": "2", "model.clip.text.heads": "3"}
    if "warmup_steps" in arguments["optim"]:
        flags["model.optim.warmup_steps"] = "0"
    for objective, node in arguments["objectives"].items():
        target = (node.get("init_args", {}).get("target") or {}).get("class_path")
        if target == "DVAETokens":
            codebook = write_random_codebook(folder / "codebook")
            flags[f"model.objectives.{objective}.target.path_or_hub"] = str(codebook)
        if target == "KMeansTokens":
            flags[f"model.objectives.{objective}.target.vocab_size"] = "8"
    flags |= small_data(data["class_path"], data["init_args"], folder)
    return [f"--{key}={value}" for key, value in flags.items()]


def small_data(kind: str, arguments: dict, folder: Path) -> dict[str, str]:
    """Return the flags of a few samples: drawn ones, or shards in LAION-Face's own layout."""
    flags = {"data.transform.num_masked": "6", "data.transform.min_block": "2"}
    if "num_masked" not in arguments["transform"]:
        flags = {}
    if kind != "LaionFaceDataModule":
        return {**flags, "data.train_count": "8", "data.val_count": "4"}
    fake = write_fake_laion_face(folder / "laion", shards=2, samples=8)
    flags |= {"data.train_shards": str(fake.folder), "data.samples_per_epoch": "8", "data.shuffle_buffer": "4"}
    if "val_shards" in arguments:
        flags["data.val_shards"] = str(fake.folder)
    if "detections" in arguments:
        index_detections([fake.detections], folder / "detections")
        flags["data.detections"] = str(folder / "detections")
    return flags


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_the_first_comment_tells_what_data_hardware_time_and_outcome(name):
    text = CONFIGS[name].read_text()
    comment = "\n".join(line for line in text.splitlines()[:12] if line.startswith("#"))
    assert comment.count("\n") >= 2
    for word in ("data", "hardware", "expect"):
        assert word in comment.lower(), f"{name} does not say: {word}"


@pytest.mark.parametrize("name", RECIPES)
def test_it_parses(name, run):
    status, out, err = run("fit", "--config", name, "--print_config")
    assert status == 0, err
    config = yaml.safe_load(out)
    assert config["model"]["class_path"].endswith(tree(name)["model"]["class_path"])


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_lists_its_cells(name, run):
    status, out, err = run("benchmark", "--config", name, "--list")
    assert status == 0, err
    assert len(out.splitlines()) > 1


@pytest.mark.parametrize("name", PRETRAINING)
def test_it_trains_on_tiny_sizes(name, run, here):
    status, _, err = run("fit", "--config", name, *tiny(name, here))
    assert status == 0, err
    assert "max_steps=2` reached" in err
    (checkpoint,) = here.rglob("last.ckpt")
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 2


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
    for key in {"accelerator", "devices", "num_nodes", "precision"} & set(overlay):
        assert merged[key] == overlay[key]


def test_the_cpu_overlay_runs(run, here):
    own = ("accelerator", "devices", "num_nodes", "strategy", "precision")
    kept = [flag for flag in tiny("pretrain", here) if not flag.startswith(tuple(f"--trainer.{key}" for key in own))]
    status, _, err = run("fit", "--config", "pretrain", "--config", "trainer/cpu", *kept)
    assert status == 0, err
    assert "fit on CPU" in err


def test_a_recipe_continues_from_its_checkpoint_and_is_evaluated_from_it(run, here):
    flags = tiny("pretrain", here)
    assert run("fit", "--config", "pretrain", *flags)[0] == 0
    (last,) = here.rglob("last.ckpt")
    again = ["fit", "--config", "pretrain", *flags, "--ckpt_path", last, "--trainer.max_steps=3"]
    status, _, err = run(*again)
    assert status == 0, err
    status, _, err = run(*again, "--model.objectives.masked_image.target.vocab_size=9", "--model.optim.lr=0.7")
    assert status == 2
    conflicts = [line for line in err.splitlines() if " in " in line]
    assert len(conflicts) == 2, err  # nothing but what was given anew
    assert f"target.vocab_size: 8 in {last}, 9 in --model.objectives.masked_image.target.vocab_size" in conflicts[0]
    assert f"model.optim.lr: {tree('pretrain')['model']['init_args']['optim']['lr']} in {last}, 0.7 in" in conflicts[1]
    status, out, err = run("test", "--ckpt_path", last, "--data.test_count=8", "--data.eval_batch_size=8")
    assert status == 0, err
    assert "test/image_to_text_r1" in out


def test_no_list_of_a_recipe_depends_on_a_machine():
    for name, path in CONFIGS.items():
        assert "/home/" not in path.read_text(), name
        assert "/root/" not in path.read_text(), name


def callbacks_of(name: str) -> dict[str, dict]:
    """The callbacks of a config by class."""
    trainer = tree(name)["trainer"]
    nodes = [*trainer.get("callbacks", ()), *trainer.get("callbacks+", ())]
    return {node["class_path"]: node.get("init_args", {}) for node in nodes}


def savers(name: str) -> list[dict]:
    """The settings of all ModelCheckpoints of a config."""
    nodes = tree(name)["trainer"].get("callbacks", ())
    return [node["init_args"] for node in nodes if node["class_path"] == "ModelCheckpoint"]


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.startswith("zero_shot")])
def test_the_best_and_the_newest_checkpoint_are_kept(name):
    best = [saver for saver in savers(name) if "monitor" in saver]
    newest = [saver for saver in savers(name) if "monitor" not in saver]
    assert len(newest) == 1
    if not best:
        return
    # beside a monitor, save_last writes last.ckpt only where the metric has improved
    assert not any("save_last" in saver for saver in best)
    assert newest == [{"filename": "last", "enable_version_counter": False}]
    assert savers(name).index(best[0]) == 0  # what `test` takes after `fit`


def test_the_newest_checkpoint_is_written_where_nothing_improves(tmp_path):
    best, newest = ModelCheckpoint(monitor="step", mode="min"), ModelCheckpoint(**savers("age")[1])
    settings = {"max_steps": 6, "val_check_interval": 2, "limit_val_batches": 1, "enable_checkpointing": True}
    run = tiny_task.trainer(tmp_path, callbacks=[best, newest], **settings)
    run.fit(tiny_task.task(), datamodule=tiny_task.TinyData())
    steps = {path.name: torch.load(path, weights_only=True)["global_step"] for path in tmp_path.rglob("*.ckpt")}
    assert run.checkpoint_callback is best
    assert steps.pop("last.ckpt") == 6
    assert list(steps.values()) == [2]


@pytest.mark.parametrize("name", [name for name in PRETRAINING if "/" in name])
def test_long_runs_save_in_time_and_leave_out_what_is_not_finite(name):
    assert {"SafetyCheckpoint", "FiniteGuard"} <= set(callbacks_of(name))


@pytest.mark.parametrize("name", ["trainer/ddp", "trainer/fsdp", "trainer/fsdp2", "trainer/multinode"])
def test_runs_of_several_processes_end_when_they_hang_before_collectives_give_up(name):
    timeout = tree(name)["trainer"]["strategy"]["init_args"].get("timeout", "0:30:00")  # torch's own for gloo
    assert 0 < HangGuard(**callbacks_of(name)["HangGuard"]).minutes < int(timeout.split(":")[1])
