"""What parsing and alignment share: built for their data, saved as plain data, tuned in parts, looked at in views."""

from __future__ import annotations

import warnings

import pytest
import torch

from farl_lightning import losses
from farl_lightning.errors import ConfigError
from farl_lightning.models.dense import FaceAligner, FaceParser
from farl_lightning.tasks import AlignmentTask, BaseTask, OptimConfig, PaperResult, ParsingTask
from farl_lightning.tasks.dense import counted, source_matrix, source_size
from farl_lightning.types import FaceSpec
from tests.tasks import faces, tiny
from tests.tasks.test_base import cli

BOTH = [faces.parser, faces.aligner]
NETWORK = "{image: {image_size: 32, patch_size: 8, width: 24, depth: 4, heads: 2}, channels: 8, dropout: 0.0}"


def test_the_network_is_built_for_the_data():
    task = faces.parser()
    assert not task.is_built
    task.set_spec(faces.SPEC)
    assert isinstance(task.model, FaceParser)
    assert task.model.num_outputs == task.num_outputs == 5
    assert task.metric.names == faces.SPEC.classes
    given = faces.aligner(num_landmarks=19)
    assert isinstance(given.model, FaceAligner)
    assert given(torch.zeros(2, 3, 32, 32)).shape == (2, 19, 2)


def test_numbers_that_contradict_the_data():
    with pytest.raises(ConfigError, match=r"has 7 classes, the data 5: remove model.num_classes.*or give 5"):
        faces.parser(num_classes=7).set_spec(faces.SPEC)
    with pytest.raises(ConfigError, match="has 68 landmarks, the data 19"):
        faces.aligner(num_landmarks=68).set_spec(faces.SPEC)


def test_data_without_labels_leaves_a_built_network_and_stops_one_that_is_not(tmp_path):
    task = faces.parser(num_classes=5)
    task.set_spec(FaceSpec(image_size=32))
    assert task.model.num_outputs == 5
    with pytest.raises(ConfigError, match="AlignmentTask does not know its number of landmarks"):
        tiny.trainer(tmp_path).fit(faces.aligner(), datamodule=faces.FaceData(FaceSpec(image_size=32)))


@pytest.mark.parametrize("kind", ["ParsingTask", "AlignmentTask"])
def test_python_and_command_line_save_the_same_and_load_without_a_model_section(tmp_path, kind):
    options = [
        f"--model=farl_lightning.{kind}",
        f"--model.network={NETWORK}",
        "--model.tta_scales=[0.9]",
        "--model.optim={lr: 0.001, schedule: constant, group_lrs: {encoder: 0.0001}}",
        "--model.reference={f1_mean: {value: 93.88, selection: best test epoch}}",
        f"--model.loss=farl_lightning.losses.{kind.replace('Task', 'Loss')}",
        "--data=tests.tasks.faces.FaceData",
    ]
    run = cli("fit", *options, "--trainer.max_steps=1", "--trainer.limit_val_batches=0")
    by_cli = tmp_path / "cli.ckpt"
    run.trainer.save_checkpoint(by_cli)
    build = {"ParsingTask": ParsingTask, "AlignmentTask": AlignmentTask}[kind]
    task = build(
        faces.network(),
        tta_scales=[0.9],
        optim=OptimConfig(lr=0.001, schedule="constant", group_lrs={"encoder": 1e-4}),
        reference={"f1_mean": PaperResult(93.88, "best test epoch")},
        loss=getattr(losses, kind.replace("Task", "Loss"))(),
    )
    trainer = tiny.trainer(tmp_path, max_steps=1, limit_val_batches=0)
    trainer.fit(task, datamodule=faces.FaceData())
    by_python = tmp_path / "python.ckpt"
    trainer.save_checkpoint(by_python)
    saved = [torch.load(path, weights_only=True) for path in (by_cli, by_python)]
    assert saved[0]["hyper_parameters"] == saved[1]["hyper_parameters"]
    assert saved[0]["face_spec"] == saved[1]["face_spec"] == faces.SPEC.to_dict()
    images = torch.randn(2, 3, 32, 32)
    for path in (by_cli, by_python):
        again = BaseTask.load_from_checkpoint(path, weights_only=True)
        assert type(again).__name__ == kind
        assert again.spec == faces.SPEC
        assert again.references["test/f1_mean"]["paper"] == 93.88
    torch.testing.assert_close(again.eval()(images), task.eval()(images))


@pytest.mark.parametrize("make", BOTH)
def test_testing_a_checkpoint_repeats_the_numbers(tmp_path, make):
    task = make()
    run = tiny.trainer(tmp_path)
    run.fit(task, datamodule=faces.FaceData())
    run.save_checkpoint(tmp_path / "x.ckpt")
    (first,) = run.test(task, datamodule=faces.FaceData(), verbose=False)
    other = tiny.trainer(tmp_path)
    (second,) = other.test(
        make(seed=5), datamodule=faces.FaceData(), ckpt_path=tmp_path / "x.ckpt", weights_only=True, verbose=False
    )
    assert first == second
    assert first["test/loss"] > 0


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize("tuning", ["finetune", "frozen", "linear"])
def test_what_moves(tmp_path, make, tuning):
    task, watch = make(tuning=tuning), faces.OnlyTrained()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny.trainer(tmp_path, callbacks=[watch], limit_val_batches=0).fit(task, datamodule=faces.FaceData())
    parts = {name.split(".")[0] for name in watch.moved}
    assert parts == {"finetune": {"encoder", "neck", "head"}, "frozen": {"neck", "head"}, "linear": {"head"}}[tuning]


def test_lora_moves_adapters_alone_in_the_encoder(tmp_path):
    pytest.importorskip("peft", reason="the extra 'lora' is not installed")
    task, watch = faces.parser(tuning="lora", lora_rank=2), faces.OnlyTrained()
    run = tiny.trainer(tmp_path, callbacks=[watch], limit_val_batches=0)
    run.fit(task, datamodule=faces.FaceData())
    in_encoder = {name for name in watch.moved if name.startswith("encoder.")}
    assert in_encoder
    assert all("lora_" in name for name in in_encoder)
    run.save_checkpoint(tmp_path / "lora.ckpt")
    again = BaseTask.load_from_checkpoint(tmp_path / "lora.ckpt", weights_only=True)
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(again.eval()(images), task.eval()(images))


def test_learning_rates_of_encoder_neck_and_head(tmp_path):
    rates = {"encoder": 1e-4, "neck": 1e-2, "head": 1e-3}
    task = faces.parser(optim=OptimConfig(lr=1.0, schedule="constant", group_lrs=rates))
    run = tiny.trainer(tmp_path, max_steps=1, limit_val_batches=0)
    run.fit(task, datamodule=faces.FaceData())
    groups = run.optimizers[0].param_groups
    assert {group["name"].split("/")[0]: group["lr"] for group in groups} == rates
    assert sum(len(group["params"]) for group in groups) == len(list(task.model.parameters()))


def test_milestones_in_epochs_become_steps(tmp_path):
    optim = OptimConfig(lr=1.0, schedule="multistep", milestones=(1,), milestones_in="epochs")
    task = faces.parser(optim=optim)
    seen = []
    task.on_train_batch_start = lambda *_: seen.append(task.optimizers().param_groups[0]["lr"])
    run = tiny.trainer(tmp_path, max_steps=-1, max_epochs=2, limit_val_batches=0, val_check_interval=None)
    run.fit(task, datamodule=faces.FaceData())
    assert seen == pytest.approx([1.0, 1.0, 0.1, 0.1])


@pytest.mark.parametrize("make", BOTH)
def test_weights_start_from_another_run_once(tmp_path, make):
    task = make()
    run = tiny.trainer(tmp_path, limit_val_batches=0)
    run.fit(task, datamodule=faces.FaceData())
    run.save_checkpoint(tmp_path / "x.ckpt")
    other = make(weights=str(tmp_path / "x.ckpt"), seed=1)
    images = torch.randn(1, 3, 32, 32)
    tiny.trainer(tmp_path).validate(other, datamodule=faces.FaceData(), verbose=False)
    torch.testing.assert_close(other.eval()(images), task.eval()(images))
    more = make(weights=str(tmp_path / "x.ckpt"), tuning="frozen")
    tiny.trainer(tmp_path, limit_val_batches=0).fit(more, datamodule=faces.FaceData())
    for name, value in task.model.encoder.state_dict().items():
        assert torch.equal(more.model.encoder.state_dict()[name], value)
    assert not torch.equal(more(images), task(images))  # it went on from there


def test_a_file_for_other_outputs_gives_its_encoder_alone(tmp_path):
    task = faces.parser(num_classes=5)
    run = tiny.trainer(tmp_path, max_steps=1, limit_val_batches=0)
    run.fit(task, datamodule=faces.FaceData())
    run.save_checkpoint(tmp_path / "x.ckpt")
    other = faces.aligner(num_landmarks=19)
    before = {name: value.clone() for name, value in other.model.head.state_dict().items()}
    other.load(str(tmp_path / "x.ckpt"))
    for name, value in task.model.encoder.state_dict().items():
        assert torch.equal(other.model.encoder.state_dict()[name], value)
    for name, value in other.model.head.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_frozen_random_encoder_is_told(tmp_path):
    with pytest.warns(UserWarning, match=r"tuning is 'frozen', but model.weights is not given"):
        tiny.trainer(tmp_path, limit_val_batches=0).fit(faces.parser(tuning="frozen"), datamodule=faces.FaceData())


def test_published_numbers_stand_beside_the_test():
    task = faces.parser(reference={"f1_mean": PaperResult(93.88, "best test epoch", "recalled", "a table")})
    assert task.references == {
        "test/f1_mean": {"paper": 93.88, "selection": "best test epoch", "mark": "recalled", "source": "a table"}
    }


def test_batches_without_source_pictures():
    batch = {"image": torch.zeros(2, 3, 8, 8), "key": ["a", "b"]}
    assert counted(batch).tolist() == [True, True]
    assert source_size(batch, 1) == (8, 8)
    assert torch.equal(source_matrix(batch), torch.eye(3).expand(2, 3, 3))
    assert counted({**batch, "valid": torch.tensor([True, False])}).tolist() == [True, False]
