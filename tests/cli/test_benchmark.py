"""The verb ``benchmark`` on the shipped miniature at tiny sizes: pretraining, training, probes, table, page, resume."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from farl_lightning.benchmark import Cell, read_benchmark
from farl_lightning.cli.cells import FitWorker, merged, pick
from farl_lightning.cli.shipped import find_config
from farl_lightning.errors import ConfigError
from farl_lightning.planning import read_workload, step_flops
from farl_lightning.probing import read_features

NAME = "benchmark/miniature"
TINY = {
    "labels": [0.5, 1.0],
    "seeds": [0, 1],
    "image": {"image_size": 32, "patch_size": 8, "width": 24, "depth": 2, "heads": 2},
    "pretrain_settings": {
        "trainer": {"accelerator": "cpu"},
        "model": {
            "init_args": {
                "fit_images": 8,
                "clip": {"embed_dim": 8},
                "optim": {"warmup_steps": 0},
            }
        },
        "data": {
            "init_args": {
                "train_count": 8,
                "batch_size": 4,
                "image_size": 32,
                "transform": {"image_size": 32, "num_masked": 6, "min_block": 2},
            }
        },
    },
    "settings": {
        "trainer": {"accelerator": "cpu", "max_steps": 2},
        "model": {"init_args": {"optim": {"warmup_steps": 0}}},
        "data": {"init_args": {"batch_size": 2, "image_size": 32}},
    },
}
FEW = {"data": {"init_args": {"train_count": 8, "test_count": 4, "transform": {"size": 32}}}}
SMALL_TEXT = {"model": {"init_args": {"clip": {"text": {"width": 24, "depth": 1, "heads": 2}}}}}
CODEBOOK = {"vocab_size": 4, "num_patches": 16}
SMALL_HEAD = {"model": {"init_args": {"network": {"image": {"image_size": 32}, "channels": 8}}}}


def shipped() -> dict:
    return yaml.safe_load(find_config(NAME).read_text())


def lay(base: dict, over: dict) -> dict:
    """Merge mappings, names as they stand."""
    found = dict(base)
    for name, value in over.items():
        old = base.get(name)
        found[name] = lay(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return found


def tiny() -> dict:
    """Return the shipped benchmark at sizes of seconds, with everything that it is made of."""
    tree = lay(shipped(), TINY)
    for name in ("itc_mim", "itc", "mim"):
        own = tree["encoders"][name]["pretrain"]["settings"]
        own["trainer"]["max_steps"] = 2
        if name != "mim":
            own |= lay(own, SMALL_TEXT)
    objectives = tree["encoders"]["mim"]["pretrain"]["settings"]["model"]["init_args"]["objectives="]
    objectives["masked_image"]["init_args"]["target"]["init_args"] |= CODEBOOK
    both = {"objectives": {"masked_image": {"init_args": {"target": {"init_args": CODEBOOK}}}}}
    own = tree["encoders"]["itc_mim"]["pretrain"]["settings"]
    own |= lay(own, {"model": {"init_args": both}})
    for task in tree["tasks"].values():
        own = lay(task["settings"], FEW)
        task["settings"] = lay(own, SMALL_HEAD) if task["methods"] == ["frozen"] else own
    return tree


@pytest.fixture
def config(here: Path) -> Path:
    path = here / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny(), sort_keys=False))
    return path


def cells(folder: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("cells/*.json")}


def test_the_miniature_runs_and_goes_on_where_it_stopped(run, here, config):
    output = here / "runs/benchmark/miniature"
    status, out, err = run("benchmark", "--config", config, "--seeds", 0, "--labels", 1, "--tasks", "parsing", "age")
    assert status == 0, out + err
    found = cells(output)
    assert len(found) == 2 * 4
    assert all(cell["state"] == "done" for cell in found.values())
    for name in ("table.md", "table.csv", "table.json", "index.html"):
        assert (output / name).is_file()
    assert "## Face parsing" in out
    made = {name: json.loads((output / f"encoders/{name}.json").read_text()) for name in ("itc_mim", "itc", "mim")}
    assert all(record["details"]["steps"] == 2 for record in made.values())

    status, out, err = run("benchmark", "--config", config, "--seeds", 0, "--encoders", "mim")
    assert status == 0, out + err
    assert "2 of 8 cells are there already" in out
    assert "pretraining" not in out.partition("#")[0]
    assert cells(output).items() >= found.items()
    found = cells(output)
    assert len(found) == 2 * 4 + 6
    check_that_heads_alone_were_trained(found)
    check_that_encoders_differ(output, made)

    status, out, _ = run("benchmark", "--config", config, "--table_only")
    assert status == 0
    assert "(1 of 2 seeds)" in out
    assert cells(output) == found


def check_that_heads_alone_were_trained(found: dict[str, dict]) -> None:
    """Frozen cells train the neck and the head; shares of labels reach probes."""
    counts = {cell["details"].get("trainable_parameters") for key, cell in found.items() if key.startswith("parsing")}
    assert len(counts) == 1
    assert 0 < counts.pop() < 50_000
    half, whole = (found[f"age.mim.linear.{share}pct.seed0"]["details"] for share in (50, 100))
    assert (half["n_train"], whole["n_train"], whole["n_test"]) == (4, 8, 4)
    assert found["parsing.itc.frozen.100pct.seed0"]["details"]["selected"] == "last step"


def check_that_encoders_differ(output: Path, made: dict[str, dict]) -> None:
    """Each encoder was trained on its own objectives, and each cell began with its encoder."""
    states = {name: torch.load(record["details"]["weights"], weights_only=True) for name, record in made.items()}
    parts = {name: set(saved["hyper_parameters"]["objectives"]) for name, saved in states.items()}
    assert parts == {"itc_mim": {"contrastive", "masked_image"}, "itc": {"contrastive"}, "mim": {"masked_image"}}
    assert not any("text_encoder" in name for name in states["mim"]["state_dict"])
    fit = yaml.safe_load((output / "cells/parsing.mim.frozen.50pct.seed0/fit.yaml").read_text())
    assert fit["model"]["init_args"]["weights"] == made["mim"]["details"]["weights"]
    assert fit["model"]["init_args"]["tuning"] == "frozen"
    assert fit["data"]["init_args"]["train_fraction"] == 0.5


def test_an_interrupted_pretraining_goes_on(here):
    tree = tiny()
    tree["pretrain_settings"]["trainer"]["callbacks"][0]["init_args"] |= {"every_n_train_steps": 1, "save_top_k": -1}
    benchmark = read_benchmark(tree)
    encoder = next(encoder for encoder in benchmark.encoders if encoder.name == "itc")
    worker, folder = FitWorker(benchmark), here / "encoder"
    folder.mkdir()
    weights, details = worker.pretrain(encoder, folder)
    whole = torch.load(weights, weights_only=True)["state_dict"]
    Path(weights).unlink()
    (last,) = folder.rglob("last.ckpt")
    first = next(path for path in last.parent.glob("*step=1*.ckpt"))
    last.unlink()
    first.rename(last)  # as if the power had failed after one of two steps
    weights, again = worker.pretrain(encoder, folder)
    assert again["steps"] == details["steps"] == 2
    for name, value in torch.load(weights, weights_only=True)["state_dict"].items():
        torch.testing.assert_close(value, whole[name], rtol=0, atol=0)


def test_cells_fail_with_the_reason_and_the_rest_goes_on(run, here):
    tree = tiny()
    del tree["encoders"]["itc"], tree["encoders"]["mim"], tree["encoders"]["itc_mim"]
    tree |= {"seeds": [0], "labels": [1.0]}
    tree["tasks"] = {name: tree["tasks"][name] for name in ("parsing", "alignment", "age")}
    tree["tasks"]["parsing"]["settings"]["model"]["init_args"]["netwrk"] = 3
    tree["tasks"]["age"]["metric"] = "test/accuracy"
    (here / "wrong.yaml").write_text(yaml.safe_dump(tree))
    status, _, _ = run("benchmark", "--config", "wrong.yaml", "--output", "elsewhere")
    assert status == 1
    found = cells(here / "elsewhere")
    assert "'netwrk'" in found["parsing.scratch.frozen.100pct.seed0"]["reason"]
    assert "a probe of 'age' gives no 'test/accuracy'" in found["age.scratch.linear.100pct.seed0"]["reason"]
    assert found["alignment.scratch.frozen.100pct.seed0"]["state"] == "done"
    assert "failed: random weights" in (here / "elsewhere/index.html").read_text()


def test_a_checkpoint_of_ones_own_is_an_encoder(run, here, config):
    assert (
        run("benchmark", "--config", config, "--seeds", 0, "--labels", 1, "--tasks", "age", "--encoders", "itc")[0] == 0
    )
    (weights,) = here.rglob("encoder.ckpt")
    tree = tiny() | {"encoders": {"mine": {"weights": str(weights)}}, "baseline": None, "output": "mine"}
    (here / "mine.yaml").write_text(yaml.safe_dump(tree))
    words = ("--seeds", 0, "--labels", 1, "--tasks", "age")
    assert run("benchmark", "--config", "mine.yaml", *words)[0] == 0
    one, other = (cells(here / folder) for folder in ("runs/benchmark/miniature", "mine"))
    key = "age.{}.linear.100pct.seed0"
    assert one[key.format("itc")]["value"] == other[key.format("mine")]["value"]


def test_a_network_of_another_library_is_an_encoder(run, here):
    encoders = {"other": {"backbone": "timm/test_resnet"}, "ours": None}
    tree = tiny() | {"encoders": encoders, "baseline": "ours", "output": "mixed"}
    tree["tasks"] = {name: tree["tasks"][name] for name in ("attributes", "age")}
    (here / "mixed.yaml").write_text(yaml.safe_dump(tree))
    status, _, err = run("benchmark", "--config", "mixed.yaml", "--labels", 1, "--seeds", 0, 1)
    assert status == 0, err
    found = cells(here / "mixed")
    assert len(found) == 8
    values = {found[f"age.other.linear.100pct.seed{seed}"]["value"] for seed in (0, 1)}
    assert len(values) == 2  # each seed draws other weights
    tables = [read_features(path) for path in (here / "mixed/features").glob("other.*.npz")]
    assert len(tables) == 2  # a seed each: both tasks see the same faces
    assert all(list(table.features) == ["feature"] for table in tables)


def test_the_list_measures_nothing(run, here, config):
    status, out, _ = run("benchmark", "--config", NAME, "--list")
    assert status == 0
    assert out.splitlines()[0] == "parsing, itc_mim, frozen, 10 %, seed 0"
    assert out.splitlines()[-1] == "96 cells, results in runs/benchmark/miniature"
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give a config: farl-lightning benchmark --config benchmark/miniature.yaml"),
        (["--config", "benchmark/minature"], "Did you mean 'benchmark/miniature'?"),
        (["--config", NAME, "--tasks", "pasing"], "tasks: there is no 'pasing'. Did you mean 'parsing'?"),
        (["--config", NAME, "--labels", "10"], "labels are shares above 0 and up to 1 (0.1 is 10 %), got 10"),
        (["--config", NAME, "--sead", "1"], "there is no option '--sead'. Did you mean '--seeds'?"),
        (["--config", "pretrain"], "a benchmark needs 'encoders'"),
    ],
)
def test_mistakes_are_named(run, words, message):
    status, _, err = run("benchmark", *words)
    assert status == 2
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_missing_config_stops_before_anything_is_measured(run, here):
    tree = tiny()
    tree["tasks"]["age"]["config"] = "aeg.yaml"
    (here / "wrong.yaml").write_text(yaml.safe_dump(tree))
    status, _, err = run("benchmark", "--config", "wrong.yaml")
    assert status == 2
    assert "config 'aeg.yaml' is neither a file nor a shipped config" in err
    assert not list(here.glob("runs/benchmark/*/cells/*.json"))


def test_pretrainings_take_equally_many_operations():
    benchmark = read_benchmark(shipped())
    worker = FitWorker(benchmark)
    totals = []
    for encoder in benchmark.encoders:
        if encoder.pretrain is not None:
            tree = worker.pretraining(encoder, encoder.pretrain)
            totals.append(tree["trainer"]["max_steps"] * sum(step_flops(read_workload(tree), 1)))
    assert len(totals) == 3
    assert max(totals) / min(totals) < 1.001


def test_settings_of_a_cell(here):
    benchmark = read_benchmark(shipped())
    worker = FitWorker(benchmark)
    parsing, attributes = benchmark.tasks[0], benchmark.tasks[2]
    tree = worker.settings(Cell(benchmark.encoders[3], parsing, "lora", 0.1, 7))
    arguments = tree["model"]["init_args"]
    assert (arguments["tuning"], arguments["seed"], tree["seed_everything"]) == ("lora", 7, 7)
    assert arguments["network"]["image"] == benchmark.image
    assert (tree["data"]["init_args"]["train_fraction"], tree["data"]["init_args"]["seed"]) == (0.1, 7)
    assert tree["trainer"]["enable_checkpointing"] is False  # no callback of the config saves any
    assert [node["class_path"] for node in tree["trainer"]["callbacks"]] == ["EMA"]
    probed = worker.settings(Cell(benchmark.encoders[3], attributes, "linear", 0.1, 7))
    assert "tuning" not in probed["model"]["init_args"]
    assert "train_fraction" not in probed["data"]["init_args"]


def test_every_cell_of_the_miniature_has_the_tower_that_was_pretrained():
    """A task's config may have another architecture, of which nothing may be left under the benchmark's own."""
    benchmark = read_benchmark(shipped())
    worker = FitWorker(benchmark)
    pretrained = worker.pretraining(benchmark.encoders[0], benchmark.encoders[0].pretrain)
    tower = pretrained["model"]["init_args"]["clip"]["image"]
    for task in benchmark.tasks:
        tree = worker.settings(Cell(benchmark.encoders[3], task, task.methods[0], 1.0, 0))
        assert tree["model"]["init_args"]["network"]["image"] == tower, task.name


def test_layers_of_settings():
    base = {"a": {"class_path": "A", "init_args": {"x": 1}}, "list": [1], "map": {"k": 1}}
    found = merged(base, {"a": {"class_path": "B"}, "list+": [2], "map=": {"m": 2}})
    assert found == {"a": {"class_path": "B"}, "list": [1, 2], "map": {"m": 2}}
    assert base["list"] == [1]
    assert merged(base, {"a": {"init_args": {"x": None}}})["a"] == {"class_path": "A", "init_args": {"x": None}}


def test_a_metric_must_exist():
    with pytest.raises(ConfigError, match=r"no metric 'test/f1' among the results. Did you mean 'test/f1_mean'"):
        pick("test/f1", {"test/f1_mean": 1.0})
