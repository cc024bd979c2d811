"""Settings survive as plain data on every route, steps repeat, the face specification travels."""

from __future__ import annotations

import sys
import warnings
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn

from farl_lightning.errors import ConfigError
from farl_lightning.tasks import BaseTask, OptimConfig
from farl_lightning.types import FaceSpec
from tests.tasks.toy import FixedTask, OtherPart, Part, Sizes, ToyData, ToyTask, UserTask

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


def trainer(**kwargs) -> L.Trainer:
    return L.Trainer(**QUIET, **{"max_steps": 2, "limit_val_batches": 0, "enable_checkpointing": False, **kwargs})


def cli(*args: str) -> LightningCLI:
    """A plain LightningCLI with subclass mode, as the package's own command line has it."""
    argv, sys.argv = sys.argv, ["program"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return LightningCLI(
                BaseTask,
                L.LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                auto_configure_optimizers=False,
                save_config_callback=None,
                trainer_defaults=QUIET,
                args=list(args),
            )
    finally:
        sys.argv = argv


def fit_by_cli(tmp_path, name: str, *extra: str) -> tuple[dict, str]:
    """Fit one step through the command line; the checkpoint and its path."""
    run = cli(
        "fit",
        f"--model=tests.tasks.toy.{name}",
        *extra,
        "--data=tests.tasks.toy.ToyData",
        "--trainer.max_steps=1",
        "--trainer.limit_val_batches=0",
        "--trainer.enable_checkpointing=false",
    )
    path = str(tmp_path / "cli.ckpt")
    run.trainer.save_checkpoint(path)
    return torch.load(path, weights_only=True), path


def fit_by_python(tmp_path, task: BaseTask) -> tuple[dict, str]:
    """Fit one step through Python; the checkpoint and its path."""
    run = trainer(max_steps=1)
    run.fit(task, datamodule=ToyData())
    path = str(tmp_path / "python.ckpt")
    run.save_checkpoint(path)
    return torch.load(path, weights_only=True), path


ROUTES = {
    "ToyTask": (
        [
            "--model.sizes.width=6",
            "--model.parts={a: {class_path: tests.tasks.toy.OtherPart, init_args: {extra: 4}}}",
            "--model.optim.lr=0.5",
            "--model.seed=3",
        ],
        lambda: ToyTask(Sizes(width=6), {"a": OtherPart(extra=4)}, OptimConfig(lr=0.5), seed=3),
    ),
    "UserTask": (
        ["--model.sizes.names=[b, c]", "--model.bias=0.25", "--model.seed=3"],
        lambda: UserTask(Sizes(names=["b", "c"]), 0.25, seed=3),
    ),
    "FixedTask": (["--model.note=y"], lambda: FixedTask("y")),
}


@pytest.mark.parametrize("name", list(ROUTES))
def test_python_and_command_line_write_the_same(tmp_path, name):
    options, build = ROUTES[name]
    by_cli, cli_path = fit_by_cli(tmp_path, name, *options)
    by_python, python_path = fit_by_python(tmp_path, build())
    assert by_cli["hyper_parameters"] == by_python["hyper_parameters"]
    assert by_cli["hyper_parameters"]["_class_path"] == f"tests.tasks.toy.{name}"
    assert by_cli["face_spec"] == by_python["face_spec"] == ToyData().spec.to_dict()

    expected = build()
    kinds = [type(expected), BaseTask, L.LightningModule]
    for path in (cli_path, python_path):
        for kind in kinds:
            task = kind.load_from_checkpoint(path, weights_only=True)
            assert type(task) is type(expected)
            assert task.sizes == expected.sizes
            assert task.optim == expected.optim
            assert task.seed == expected.seed
            assert {k: (type(p), p.init_args) for k, p in task.parts.items()} == {
                k: (type(p), p.init_args) for k, p in expected.parts.items()
            }
            assert task.spec == ToyData().spec
            assert dict(task.hparams) == dict(expected.hparams)


@pytest.mark.parametrize("name", list(ROUTES))
def test_checkpoint_of_python_is_tested_by_command_line(tmp_path, name):
    options, build = ROUTES[name]
    checkpoint, path = fit_by_python(tmp_path, build())
    data = ["--data=tests.tasks.toy.ToyData"]
    required = [option for option in options if "sizes" in option][:1]
    run = cli("test", f"--model=tests.tasks.toy.{name}", *required, *data, f"--ckpt_path={path}")
    assert type(run.model).__name__ == name
    assert dict(run.model.hparams) == checkpoint["hyper_parameters"]
    for key, value in checkpoint["state_dict"].items():
        assert torch.equal(run.model.state_dict()[key], value)


def test_saved_settings_do_not_follow_later_changes(tmp_path):
    sizes = Sizes()
    task = ToyTask(sizes)
    sizes.names.append("later")
    assert task.hparams["sizes"] == {"width": 4, "names": ["a"]}
    assert task.hparams["optim"] is None


def test_unplain_argument_is_refused_by_name():
    class Unplain(BaseTask):
        def __init__(self, backbone: nn.Module) -> None:
            super().__init__()

    with pytest.raises(ConfigError, match=r"Unplain\(backbone=\.\.\.\): a Linear cannot be saved"):
        Unplain(nn.Linear(1, 1))


@pytest.mark.parametrize("steps", [True, 3])
def test_fast_dev_run_cuts_the_warmup_and_nothing_else_does(steps):
    task = ToyTask(Sizes(), optim=OptimConfig(warmup_steps=40))
    quick = L.Trainer(**QUIET, fast_dev_run=steps)
    quick.fit(task, datamodule=ToyData())
    assert quick.global_step == int(steps)
    assert task.optim.warmup_steps == 40  # the settings of the real run stay
    with pytest.raises(ConfigError, match="warmup_steps is 40, but the whole run has 3 steps"):
        trainer(max_steps=3).fit(ToyTask(Sizes(), optim=OptimConfig(warmup_steps=40)), datamodule=ToyData())


def test_unfinished_subclass_says_what_is_missing():
    with pytest.raises(NotImplementedError, match="BaseTask must define build_model"):
        BaseTask().build()


def test_dropout_depends_on_seed_and_step_only(tmp_path):
    whole = ToyTask(Sizes(), {"a": Part()})
    start = whole.state_dict()
    start = {key: value.clone() for key, value in start.items()}
    trainer(max_steps=8).fit(whole, datamodule=ToyData())

    first = ToyTask(Sizes(), {"a": Part()})
    first.load_state_dict(start)
    path = tmp_path / "middle.ckpt"
    trainer(max_steps=8, callbacks=[StopAfter(3, path)]).fit(first, datamodule=ToyData())
    torch.rand(100)  # the global generator is elsewhere now

    second = ToyTask(Sizes(), {"a": Part()})
    trainer(max_steps=8).fit(second, datamodule=ToyData(), ckpt_path=path, weights_only=True)
    assert first.losses == whole.losses[:3]
    assert second.losses[-5:] == whole.losses[3:]
    other = ToyTask(Sizes(), {"a": Part()}, seed=1)
    other.load_state_dict(start)
    trainer(max_steps=8).fit(other, datamodule=ToyData())
    assert other.losses[0] != whole.losses[0]


class StopAfter(L.Callback):
    """Save a checkpoint after some steps, in the middle of an epoch, and end."""

    def __init__(self, steps: int, path) -> None:
        self.steps = steps
        self.path = path

    def on_train_batch_end(self, trainer, *args) -> None:
        if trainer.global_step == self.steps:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def test_spec_of_the_data_wins_over_the_checkpoint_and_differences_are_told(tmp_path):
    _, path = fit_by_python(tmp_path, ToyTask(Sizes()))
    task = ToyTask(Sizes())
    with pytest.warns(UserWarning, match=r"trained on faces with image_size 32, the data has image_size 64"):
        trainer().test(task, datamodule=ToyData(size=64), ckpt_path=path, weights_only=True, verbose=False)
    assert task.spec is not None
    assert task.spec.image_size == 64


def test_task_works_without_a_trainer():
    task = ToyTask(Sizes())
    assert task.model(torch.zeros(2, 3)).shape == (2, 1)
    assert task.spec is None
    checkpoint: dict = {}
    task.on_save_checkpoint(checkpoint)
    assert checkpoint == {}
    task.on_load_checkpoint({"face_spec": FaceSpec(image_size=48).to_dict()})
    assert task.spec == FaceSpec(image_size=48)


def test_classic_fsdp_clips_norms_by_its_root():
    clipped, task = [], ToyTask(Sizes(), {"a": Part()})
    strategy = FSDPStrategy()
    strategy._model = SimpleNamespace(clip_grad_norm_=clipped.append)
    task._trainer = SimpleNamespace(strategy=strategy, precision="bf16-mixed")
    task.configure_gradient_clipping(None, gradient_clip_val=0.5)
    assert clipped == [0.5]
    task.configure_gradient_clipping(None, gradient_clip_val=None)
    assert clipped == [0.5]
