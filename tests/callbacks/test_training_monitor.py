"""Speed, wait and gradient norm in the log."""

from __future__ import annotations

import time
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from farl_lightning.callbacks import TrainingMonitor
from farl_lightning.errors import ConfigError
from farl_lightning.functional.accelerators import identify
from farl_lightning.functional.distributed import rank
from farl_lightning.testing.distributed import run_distributed
from tests.tasks.test_base import trainer
from tests.tasks.toy import Part, Sizes, ToyData, ToyTask


class Slow(L.Callback):
    """Make each step last, and keep the true gradient norm."""

    norm = 0.0

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        self.norm = torch.cat([p.grad.flatten() for p in pl_module.parameters()]).norm().item()

    def on_train_batch_start(self, *args) -> None:
        time.sleep(0.05)


def test_values(tmp_path):
    slow, monitor = Slow(), TrainingMonitor()
    run = trainer(max_steps=4, callbacks=[slow, monitor], log_every_n_steps=2, gradient_clip_val=1e-3)
    run.fit(ToyTask(Sizes(), {"a": Part()}), datamodule=ToyData())
    values = run.callback_metrics
    assert 0 < values["train/samples_per_s"] <= 4 / 0.05  # four samples per step of at least 50 ms
    assert 0.3 < values["train/data_wait"] <= 1  # the pause lies between batches
    assert values["train/grad_norm"] == pytest.approx(slow.norm, rel=1e-5)
    assert values["train/grad_norm"] > 1e-3  # before clipping


def test_steps_between_are_not_logged():
    run = trainer(max_steps=3, callbacks=[TrainingMonitor()], log_every_n_steps=50)
    run.fit(ToyTask(Sizes(), {"a": Part()}), datamodule=ToyData())
    assert not [name for name in run.callback_metrics if name.startswith("train/samples")]


class Dropping(L.Callback):
    """Pretend that the loader left two samples out of every batch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        batch["dropped"] = [{"key": "k", "reason": "r", "detail": ""}] * 2


def test_memory_drops_and_use_of_the_device():
    monitor = TrainingMonitor(peak_tflops=1e-6)  # a million operations per second
    run = trainer(max_steps=4, callbacks=[Dropping(), monitor], log_every_n_steps=2)
    task = ToyTask(Sizes(), {"a": Part()})
    run.fit(task, datamodule=ToyData())
    values = run.callback_metrics
    assert values["data/dropped_rank/0"] == 8
    assert 0.05 < values["train/memory_gb"] < 50
    per_second = float(values["train/mfu"]) * 1e6
    assert per_second == pytest.approx(monitor._flops_per_sample * float(values["train/samples_per_s"]), rel=1e-5)
    with FlopCounterMode(display=False) as counter:
        task.model(torch.rand(4, 3)).sum().backward()
    assert monitor._flops_per_sample == counter.get_total_flops() / 4 > 0


def test_without_a_known_peak_nothing_is_counted():
    monitor = TrainingMonitor()
    run = trainer(max_steps=2, callbacks=[monitor], log_every_n_steps=1)
    run.fit(ToyTask(Sizes(), {"a": Part()}), datamodule=ToyData())
    assert "train/mfu" not in run.callback_metrics
    assert monitor._counter is None


def test_many_processes_log_the_worst_one():
    monitor = TrainingMonitor(max_ranks=3)
    assert monitor._drops([1.0, 0.0, 2.0]) == {f"data/dropped_rank/{r}": n for r, n in enumerate((1.0, 0.0, 2.0))}
    assert monitor._drops([1.0, 5.0, 2.0, 0.0]) == {"data/dropped_rank_max": 5.0, "data/dropped_rank_worst": 1.0}


def _values_of_a_process():
    monitor = TrainingMonitor()
    monitor._began, monitor._samples = time.perf_counter() - 10, 40
    monitor._dropped, monitor._waited = 3 + 4 * rank(), 1.0 + rank()
    return monitor._values(SimpleNamespace(world_size=2), torch.device("cpu"))


def test_two_processes_log_the_same_values():
    first, second = run_distributed(_values_of_a_process, 2)
    assert [first[f"data/dropped_rank/{r}"] for r in (0, 1)] == [3, 7]
    assert first["train/data_wait"] == pytest.approx(0.2, rel=0.02)  # of the process that waited longer
    assert first["train/samples_per_s"] == pytest.approx(8, rel=0.02)
    for key in ("train/data_wait", "train/memory_gb", "data/dropped_rank/1"):
        assert first[key] == second[key]


@pytest.mark.parametrize("wrong", [{"peak_tflops": 0}, {"max_ranks": -1}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match="TrainingMonitor"):
        TrainingMonitor(**wrong)


@pytest.mark.parametrize(
    ("device", "title"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM 80 GB"),
        ("NVIDIA H200", "H200 SXM 141 GB"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM 80 GB"),
        ("NVIDIA L4", "L4 PCIe 24 GB"),
        ("NVIDIA L40S", "L40S PCIe 48 GB"),
        ("NVIDIA L40", None),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA GeForce RTX 4090", "RTX 4090 24 GB"),
        ("Tesla V100-SXM2-32GB", "V100 SXM2 32 GB"),
        ("Tesla T4", None),
    ],
)
def test_gpus_are_known_by_the_name_of_the_driver(device, title):
    found = identify(device)
    assert (found and found.title) == title
