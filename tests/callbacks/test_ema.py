"""The moving average against the reference's numbers, through a real run, and across a resume."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn

from farl_lightning.callbacks import EMA
from farl_lightning.callbacks.ema import ModelAverage, changing
from farl_lightning.errors import ConfigError
from tests.parity.ema_09 import ema_deviation
from tests.shared import SHARED, needs_shared
from tests.tasks.test_base import StopAfter, trainer
from tests.tasks.toy import Part, Sizes, ToyData, ToyTask


class Recorder(EMA):
    """Keeps what was seen at each step."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.currents: list[dict] = []
        self.validated: list[dict] = []

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        self.currents.append({k: v.clone() for k, v in changing(pl_module.model).items()})
        super().on_train_batch_end(trainer, pl_module, *args)

    def on_validation_batch_start(self, trainer, pl_module, *_) -> None:
        self.validated.append({k: v.clone() for k, v in changing(pl_module.model).items()})


def model() -> ToyTask:
    torch.manual_seed(0)
    return ToyTask(Sizes(), {"a": Part()})


@needs_shared
def test_one_step_of_the_reference():
    fixture = np.load(SHARED / "parity" / "09_augment_ema.npz")
    deviations = ema_deviation(fixture)
    assert {deviation.name for deviation in deviations} >= {"ema/0.weight", "ema/1.running_var"}
    for name, deviation, tolerance in deviations:
        assert deviation <= tolerance, name
    # an integer is copied, not averaged
    assert fixture["ema/after/1.num_batches_tracked"] == fixture["ema/online/1.num_batches_tracked"]


def test_average_starts_from_the_initial_weights_and_skips_frozen_ones():
    root = nn.Module()
    root.model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1).requires_grad_(False))
    nn.init.constant_(root.model[0].weight, 1.0)
    average = ModelAverage(root.model, 0.9)
    nn.init.constant_(root.model[0].weight, 2.0)
    average.update_parameters(root)
    assert average.tensors["0.weight"].item() == pytest.approx(1.1)
    assert list(average.tensors) == ["0.weight"]


def test_half_precision_does_not_stall():
    root = nn.Module()
    root.model = nn.Linear(1, 1, bias=False).bfloat16()
    nn.init.constant_(root.model.weight, 1.0)
    average = ModelAverage(root.model, 0.999)
    nn.init.constant_(root.model.weight, 1.0078125)  # the next bfloat16
    for _ in range(3000):
        average.update_parameters(root)
    assert average.tensors["weight"].dtype == torch.float32
    assert average.tensors["weight"].item() == pytest.approx(1.0078125 - 0.0078125 * 0.999**3000, abs=1e-4)


def test_run_validates_saves_and_ends_with_the_average(tmp_path):
    task, ema = model(), Recorder(decay=0.5)
    expected = {k: v.clone() for k, v in changing(task.model).items()}
    saver = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=3, save_top_k=0)
    run = trainer(max_steps=4, callbacks=[ema, saver], enable_checkpointing=True, limit_val_batches=1)
    run.fit(task, datamodule=ToyData())
    assert isinstance(ema, WeightAveraging)
    averages = []
    for current in ema.currents:
        expected = {k: expected[k] * 0.5 + current[k] * 0.5 for k in expected}
        averages.append(expected)
    for name in expected:
        torch.testing.assert_close(ema.validated[-1][name], averages[-1][name])
        torch.testing.assert_close(task.model.state_dict()[name], averages[-1][name])
    saved = torch.load(saver.last_model_path, weights_only=True)
    step = saved["global_step"]
    for name in expected:
        torch.testing.assert_close(saved["state_dict"][f"model.{name}"], averages[step - 1][name])
        assert torch.equal(saved["current_model_state"][f"model.{name}"], ema.currents[step - 1][name])
    assert saved["averaging_state"]["n_averaged"] == step


def test_what_follows_training_sees_the_average(tmp_path):
    task, ema = model(), Recorder(decay=0.5)
    run = trainer(max_steps=3, callbacks=[ema], limit_val_batches=1)
    run.fit(task, datamodule=ToyData())
    average = {k: v.clone() for k, v in changing(task.model).items()}
    assert any(not torch.equal(average[name], ema.currents[-1][name]) for name in average)
    run.validate(task, datamodule=ToyData(), verbose=False)
    for name, value in average.items():
        assert torch.equal(ema.validated[-1][name], value)
        assert torch.equal(task.model.state_dict()[name], value)


def test_resume_repeats_an_uninterrupted_run(tmp_path):
    whole, whole_ema = model(), EMA(0.5)
    trainer(max_steps=8, callbacks=[whole_ema]).fit(whole, datamodule=ToyData())
    path = tmp_path / "middle.ckpt"
    trainer(max_steps=8, callbacks=[EMA(0.5), StopAfter(3, path)]).fit(model(), datamodule=ToyData())
    again, ema = model(), EMA(0.5)
    trainer(max_steps=8, callbacks=[ema]).fit(again, datamodule=ToyData(), ckpt_path=path, weights_only=True)
    assert again.losses[-5:] == whole.losses[-5:]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)
    assert ema._average_model.updates == 8


def test_resume_from_a_checkpoint_without_average_says_so(tmp_path):
    path = tmp_path / "plain.ckpt"
    trainer(max_steps=8, callbacks=[StopAfter(3, path)]).fit(model(), datamodule=ToyData())
    with pytest.warns(UserWarning, match="made without weight averaging; the average starts from its weights"):
        trainer(max_steps=4, callbacks=[EMA(0.5)]).fit(model(), datamodule=ToyData(), ckpt_path=path, weights_only=True)


def test_every_n_steps():
    task, ema = model(), EMA(0.5, every_n_steps=3)
    trainer(max_steps=7, callbacks=[ema]).fit(task, datamodule=ToyData())
    assert ema._average_model.updates == 2


@pytest.mark.parametrize("settings", [{"decay": 1.0}, {"decay": -0.1}, {"every_n_steps": 0}])
def test_wrong_settings(settings):
    with pytest.raises(ConfigError, match=f"EMA\\({next(iter(settings))}="):
        EMA(**settings)


def test_classic_fsdp_is_refused():
    with pytest.raises(ConfigError, match=r"trainer/fsdp2\.yaml"):
        EMA().setup(SimpleNamespace(strategy=FSDPStrategy()), model(), "fit")


def test_evaluation_with_the_callback_keeps_the_average():
    network = model()
    checkpoint = {"state_dict": network.state_dict(), "averaging_state": {"n_averaged": torch.tensor(3)}}
    checkpoint["current_model_state"] = {name: torch.full_like(v, 7) for name, v in network.state_dict().items()}
    before = {name: value.clone() for name, value in network.state_dict().items()}
    EMA().on_load_checkpoint(SimpleNamespace(state=SimpleNamespace(fn="test")), network, checkpoint)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
