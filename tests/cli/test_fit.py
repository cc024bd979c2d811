from __future__ import annotations

import functools
import importlib.metadata
import json
import sys
import types

import numpy as np
import pytest
import torch
import yaml

from farl_lightning.cli.trainer import FarlTrainer


def test_what_a_run_prints_is_worth_reading(run):
    status, out, err = run("fit", "--config", "fake", "--seed_everything", "5")
    assert status == 0
    lines = [line.removeprefix("INFO: ") for line in err.splitlines()]  # pytest's own handler formats log lines
    assert lines[0].startswith("fit on CPU (")
    assert lines[0].endswith("precision 32-true, seed 5, runs/fake/version_0")
    assert lines[1] == "FakeTask: 20 trainable parameters, 20 frozen: 50 % are trained (tower 20, frozen 0)"
    assert lines[2] == "`Trainer.fit` stopped: `max_steps=2` reached."
    assert len(lines) == 3
    assert out == ""


def test_the_saved_config_repeats_the_run(run, here):
    run("fit", "--config", "fake", "--model.optim.lr", "0.01", "--seed_everything", "7")
    config = here / "runs/fake/version_0/config.yaml"
    saved = yaml.safe_load(config.read_text())
    assert saved["seed_everything"] == 7
    assert saved["model"]["init_args"]["optim"]["lr"] == 0.01
    assert run("fit", "--config", config)[0] == 0
    first, second = (
        torch.load(here / f"runs/fake/version_{n}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for n in (0, 1)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    again = yaml.safe_load((here / "runs/fake/version_1/config.yaml").read_text())
    assert again == saved


def test_without_a_logger_nothing_in_the_folder_is_overwritten(run, here):
    (here / "config.yaml").write_text("# mine\n")
    flags = ["--trainer.logger", "false", "--trainer.enable_checkpointing", "false", "--trainer.callbacks", "null"]
    status, _, err = run("fit", "--config", "fake", *flags)
    assert status == 0, err
    assert (here / "config.yaml").read_text() == "# mine\n"


def test_print_config_is_the_merged_config_and_nothing_runs(run, here):
    status, out, _ = run("fit", "--config", "fake", "--model.clip.embed_dim", "6", "--print_config")
    assert status == 0
    config = yaml.safe_load(out)
    assert config["model"]["init_args"]["clip"]["embed_dim"] == 6
    assert config["model"]["init_args"]["objectives"]["contrast"]["init_args"]["weight"] == 1.0
    assert "max_epochs" not in config["trainer"]  # unset
    assert not (here / "runs").exists()


def test_classes_of_the_users_folder_are_found(run, here):
    (here / "mytask.py").write_text("from tests.cli.fakes import FakeTask\n\nclass MyTask(FakeTask):\n    pass\n")
    status, _, err = run("fit", "--config", "fake", "--model", "mytask.MyTask")
    assert status == 0, err
    assert "MyTask: 20 trainable parameters" in err


def test_the_users_folder_cannot_stand_in_for_installed_packages(run, here):
    (here / "yaml.py").write_text("raise RuntimeError('hijacked')\n")
    (here / "timm.py").write_text("raise RuntimeError('hijacked')\n")
    assert run("fit", "--config", "fake")[0] == 0
    assert sys.path[-1] == str(here)


def test_plugins_are_loaded_and_broken_ones_left_out(run, here, monkeypatch):
    good = types.ModuleType("goodplugin")
    exec(  # noqa: S102
        "from tests.cli.fakes import FakeTask\nclass PluginTask(FakeTask): pass\nPluginTask.__module__ = 'goodplugin'",
        good.__dict__,
    )
    task = good.PluginTask
    monkeypatch.setitem(sys.modules, "goodplugin", good)
    points = [
        importlib.metadata.EntryPoint("good", "goodplugin", "farl_lightning.plugins"),
        importlib.metadata.EntryPoint("bad", "nothere.at_all", "farl_lightning.plugins"),
    ]
    monkeypatch.setattr("farl_lightning.cli.preflight.entry_points", lambda group: points)
    status, _, err = run("fit", "--config", "fake", "--model", "PluginTask")
    assert status == 0, err
    assert "PluginTask: 20 trainable" in err
    assert "plugin 'bad' (nothere.at_all) is left out: ModuleNotFoundError" in err
    del task


def test_abbreviated_options_are_refused(run):
    status, _, err = run("fit", "--config", "fake", "--trainer.max_step", "1")
    assert status == 2
    assert "--trainer.max_step: trainer: Trainer has no argument 'max_step'. Did you mean 'max_steps'?" in err


def test_missing_data_is_told_without_a_traceback(run):
    status, _, err = run("fit", "--config", "fake", "--data.root", "/nowhere")
    assert status == 1
    assert err == ("farl-lightning fit: no shards at '/nowhere': it must hold split_00000/*.tar; see img2dataset\n")


def test_float32_precision_is_a_setting(run):
    assert run("fit", "--config", "fake", "--float32_matmul_precision", "high")[0] == 0
    assert torch.get_float32_matmul_precision() == "high"
    status, _, err = run("fit", "--config", "fake", "--float32_matmul_precision", "hihg")
    assert status == 2
    assert "Did you mean 'high'?" in err


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_evaluation_without_a_checkpoint(run, here, verb):
    status, out, err = run(verb, "--config", "fake")
    assert status == 0, err
    assert "loss" in out
    assert not (here / "runs/fake/version_0/config.yaml").exists()
    results = json.loads((here / "runs/fake/version_0/results.json").read_text())
    assert list(results) == [verb]


def test_predict_writes_features_beside_the_run(run, here, last):
    status, out, err = run("predict", "--ckpt_path", last)
    assert status == 0, err
    path = here / "runs/fake/version_0/features.npz"
    assert f"features  {path}\n          8 images, 0 with captions; 4 numbers each\n" in out
    with np.load(path, allow_pickle=False) as features:
        assert features["key"].tolist() == [f"k{i}" for i in range(8)]
        assert features["image_features"].shape == (8, 4)
    assert sorted(path.name for path in here.iterdir()) == ["fake.yaml", "runs"]


@pytest.mark.parametrize("verb", ["fit", "test", "predict"])
def test_a_trial_leaves_nothing_behind(run, here, last, verb):
    before = sorted(here.rglob("*"))
    status, _, err = run(verb, "--config", "fake", "--ckpt_path", last, "--trainer.fast_dev_run", "true")
    assert status == 0, err
    assert sorted(here.rglob("*")) == before


def test_predictions_are_not_piled_up(run, here, monkeypatch):
    kept = []
    predict = FarlTrainer.predict

    @functools.wraps(predict)  # jsonargparse reads the arguments
    def spy(self, *args, **kwargs):
        kept.append(kwargs["return_predictions"])
        return predict(self, *args, **kwargs)

    monkeypatch.setattr(FarlTrainer, "predict", spy)
    writer = "--trainer.callbacks=[FeatureWriter]"
    assert run("predict", "--config", "fake", writer)[0] == 0
    assert kept == [False]
    assert (here / "runs/fake/version_0/features.npz").is_file()


def test_the_bar_counts_epochs_without_a_last_one():
    import lightning as L
    from lightning.pytorch.callbacks import RichProgressBar

    from farl_lightning.cli.progress import EpochBar, progress_bar

    bar = EpochBar()
    bar._trainer = L.Trainer(max_epochs=-1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    bar._trainer.fit_loop.max_epochs = -1
    assert RichProgressBar._get_train_description(bar, 3).strip() == "Epoch 3/-2"  # what Lightning writes
    assert bar._get_train_description(3).strip() == "Epoch 3"
    assert progress_bar(False, []) == []
    assert progress_bar(None, [RichProgressBar()]) == []
    assert isinstance(progress_bar(None, [])[0], EpochBar)
