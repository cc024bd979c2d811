from __future__ import annotations

import inspect
import json

import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningCLI

from farl_lightning.cli.checkpoint import MISSING, Difference, differences, read_run, same_class
from farl_lightning.cli.lightning_cli import FarlCLI


def test_the_private_hook_that_is_replaced_is_still_called_after_parsing():
    source = inspect.getsource(LightningCLI.__init__)
    assert (
        source.index("self.parse_arguments(")
        < source.index("self._parse_ckpt_path()")
        < source.index("self.instantiate_classes()")
    )
    assert "_parse_ckpt_path" in vars(FarlCLI)


def test_the_settings_inside_a_checkpoint(last):
    saved = read_run(str(last))
    assert saved.model["class_path"] == "tests.cli.fakes.FakeTask"
    assert saved.model["init_args"]["clip"]["embed_dim"] == 4
    assert saved.data == {
        "class_path": "tests.cli.fakes.FakeData",
        "init_args": {"batch_size": 4, "count": 8, "num_workers": 0, "root": None},
    }
    assert read_run("last") is None
    assert read_run("s3://bucket/x.ckpt") is None
    assert read_run(None) is None


def test_a_run_continues_with_its_own_config(run, last, here):
    status, _, err = run("fit", "--config", "fake", "--ckpt_path", last, "--trainer.max_steps", "4")
    assert status == 0, err
    assert torch.load(here / "runs/fake/version_1/checkpoints/last.ckpt", weights_only=True)["global_step"] == 4
    assert "Restored all states" in err


def test_settings_the_user_did_not_give_come_from_the_checkpoint(run, here):
    assert run("fit", "--config", "fake", "--model.note", "first")[0] == 0
    last = here / "runs/fake/version_0/checkpoints/last.ckpt"
    status, _, err = run("fit", "--config", "fake", "--ckpt_path", last, "--trainer.max_steps", "3")
    assert status == 0, err
    saved = yaml.safe_load((here / "runs/fake/version_1/config.yaml").read_text())
    assert saved["model"]["init_args"]["note"] == "first"


def test_other_values_stop_with_both_values_and_their_places(run, last, here):
    (here / "other.yaml").write_text("model:\n  init_args:\n    clip:\n      embed_dim: 5\n")
    flags = ["--model.objectives.new", "FakeContrast", "--model.objectives.contrast.weight", "2"]
    status, _, err = run("fit", "--config", "fake", "--config", "other", "--ckpt_path", last, *flags)
    assert status == 2
    assert err.splitlines() == [
        "farl-lightning fit:",
        f"  model.clip.embed_dim: 4 in {last}, 5 in other.yaml:4",
        f"  model.objectives.contrast.weight: 1.0 in {last}, 2.0 in --model.objectives.contrast.weight",
        f"  model.objectives.new: absent in {last}, 'FakeContrast' in --model.objectives.new",
        "  To continue with the values given here, add --ckpt_override; else leave them out.",
    ]


def test_override_lets_the_user_win_and_prints_it(run, last):
    status, _, err = run("test", "--ckpt_path", last, "--model.note", "tta", "--ckpt_override")
    assert status == 0, err
    assert f"--ckpt_override: model.note: '' in {last}, 'tta' in --model.note; the latter is used" in err


def test_another_class_is_refused_even_with_override(run, last):
    for extra in ([], ["--ckpt_override"]):
        status, _, err = run("fit", "--config", "fake", "--model", "OtherTask", "--ckpt_path", last, *extra)
        assert status == 2
        assert f"    {last}: model is tests.cli.fakes.FakeTask" in err
        assert "    --model: model is OtherTask" in err
        assert f"give --model.weights {last} instead" in err


def test_a_checkpoint_alone_is_enough_to_evaluate(run, last, here):
    for verb in ("test", "validate"):
        status, out, err = run(verb, "--ckpt_path", last)
        assert status == 0, err
        assert "loss" in out
    assert sorted(path.name for path in (here / "runs/fake").iterdir()) == ["version_0"]
    assert sorted(path.name for path in here.iterdir()) == ["fake.yaml", "runs"]
    results = json.loads((here / "runs/fake/version_0/results.json").read_text())
    assert results["test"]["metrics"]["test/loss"]["value"] > 0
    assert set(results) == {"test", "validate"}
    assert not (here / "lightning_logs").exists()


def test_evaluation_equals_the_run_it_came_from(run, last):
    outputs = [run("test", *words, "--ckpt_path", last)[1] for words in ([], ["--config", "fake"])]
    alone, with_config = ([line for line in out.splitlines() if "test/loss" in line] for out in outputs)
    assert alone == with_config
    assert len(alone) == 1


def test_data_may_be_another_and_flags_refine_the_checkpoints(run, last):
    status, _, err = run("test", "--ckpt_path", last, "--data.batch_size", "2")
    assert status == 0, err
    status, _, err = run("test", "--ckpt_path", last, "--data", "tests.cli.fakes.FakeData", "--data.count", "3")
    assert status == 0, err
    status, _, err = run("test", "--ckpt_path", last, "--data.bach_size", "2")
    assert status == 2
    assert "Did you mean 'batch_size'?" in err


def test_continuing_without_a_config_names_the_one_of_the_run(run, last, here):
    status, _, err = run("fit", "--ckpt_path", last)
    assert status == 2
    assert err == (
        f"farl-lightning fit: to continue a run, give its config too: --config {here}/runs/fake/version_0/config.yaml\n"
    )


def test_a_missing_checkpoint_is_one_line_with_the_nearest(run, last):
    status, _, err = run("test", "--ckpt_path", last.with_name("lats.ckpt"))
    assert status == 1
    assert err.startswith(f"farl-lightning test: checkpoint '{last.with_name('lats.ckpt')}' does not exist. Did you")
    assert str(last) in err
    assert len(err.splitlines()) == 1
    assert "The newest one here is 'runs/fake/version_0/checkpoints/last.ckpt'" in run("test", "--ckpt_path", "x")[2]


def test_files_that_are_no_checkpoints_of_a_run(run, here):
    torch.save({"state_dict": {}}, here / "farl.pth")
    (here / "cut.ckpt").write_bytes(b"PK\x03\x04 cut off")
    status, _, err = run("test", "--ckpt_path", "farl.pth")
    assert status == 1
    assert "give it as --model.weights" in err
    status, _, err = run("test", "--ckpt_path", "cut.ckpt")
    assert status == 1
    assert "'cut.ckpt' cannot be read" in err
    assert len(err.splitlines()) == 1


def test_a_checkpoint_that_would_execute_code_is_refused(run, here):
    class Evil:
        def __reduce__(self):
            return (exec, ("open('hacked', 'w')",))

    torch.save({"pytorch-lightning_version": "2.6", "hyper_parameters": Evil()}, here / "evil.ckpt")
    assert run("test", "--ckpt_path", "evil.ckpt")[0] == 1
    assert not (here / "hacked").exists()


def test_one_class_under_two_names_is_no_difference():
    long, short = "farl_lightning.objectives.contrastive.Contrastive", "farl_lightning.Contrastive"
    assert same_class(long, short)
    assert not same_class(long, "farl_lightning.MaskedImage")
    assert not same_class("gone.A", "gone.B")
    assert differences({"x": {"class_path": long}}, Namespace(x=Namespace(class_path=short))) == []


def test_differences_of_free_names_count_and_of_new_arguments_do_not():
    given = Namespace(a=1, new=2, named={"x": 1, "y": Namespace(class_path="m.Y", init_args=Namespace())})
    assert differences({"a": 1.0, "named": {"x": 1, "z": 3}}, given) == [
        Difference(("named", "z"), 3, MISSING),
        Difference(("named", "y"), MISSING, "Y"),
    ]
    assert differences({"a": (1, 2)}, Namespace(a=[1, 2])) == [Difference(("a",), (1, 2), [1, 2])]
    assert differences({"a": [1, 2]}, Namespace(a=(1, 2))) == []
