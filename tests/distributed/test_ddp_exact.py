"""Real runs under DDP take the steps of one process on the joint batch: gradients, weights, averages, logged values."""

from __future__ import annotations

import os
import re
import tempfile
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader

from farl_lightning.callbacks import EMA
from farl_lightning.errors import ConfigError
from farl_lightning.functional.distributed import rank, world_size
from farl_lightning.models.image_tokenizer import KMeansTokens
from farl_lightning.objectives import Contrastive, MaskedImage
from farl_lightning.tasks import OptimConfig, PretrainTask
from farl_lightning.testing.distributed import run_distributed
from farl_lightning.transforms.collate import collate_pretrain
from farl_lightning.types import FaceSpec
from tests.distributed import sharded
from tests.objectives.test_accumulate import config, make_batch
from tests.tasks import tiny

STEPS = [8, 5]
"""Pairs of each joint batch; the last one is short."""

SHARES = {
    1: [(8,), (5,)],
    2: [(3, 5), (4, 1)],  # what one process dropped, another did not
    4: [(2, 1, 3, 2), (1, 2, 1, 1)],
}


class Data(L.LightningDataModule):
    """Joint batches whose rows are dealt unevenly."""

    spec = FaceSpec(image_size=32)

    def __init__(self, shares: list[tuple[int, ...]]) -> None:
        super().__init__()
        self.shares = shares

    def fit_images(self, count: int) -> torch.Tensor:
        return make_batch(count, seed=9)["image"]

    def train_dataloader(self) -> DataLoader:
        whole = make_batch(sum(STEPS))
        whole["patch_mask"][:3] = False  # with two processes the first has nothing to guess in the first step
        samples = [{name: value[index] for name, value in whole.items()} for index in range(sum(STEPS))]
        starts, first = [], 0
        for counts in self.shares:
            begin = first + sum(counts[: rank()])
            starts.append([*range(begin, begin + counts[rank()])])
            first += sum(counts)
        return DataLoader(samples, batch_sampler=starts, collate_fn=collate_pretrain)

    def val_dataloader(self) -> DataLoader:
        """Seven samples in all; what evens them out is marked."""
        whole, world = make_batch(7, seed=1), world_size()
        own = [(i % 7, i < 7) for i in range(rank(), -(-7 // world) * world, world)]
        samples = [{**{name: value[i] for name, value in whole.items()}, "valid": torch.tensor(ok)} for i, ok in own]
        size = 8 // world
        return DataLoader(samples, batch_size=size, collate_fn=collate_pretrain)


class Watch(L.Callback):
    """Keeps the gradients that the optimiser is given, and what is logged."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, torch.Tensor]] = []
        self.logged: list[dict[str, float]] = []
        self.backwards = 0

    def on_before_backward(self, trainer, pl_module, loss):
        self.backwards += 1

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        scaler = getattr(trainer.precision_plugin, "scaler", None)  # it has un-scaled them by now
        assert scaler is None or scaler.get_scale() == 1024
        self.gradients.append({n: p.grad.clone() for n, p in pl_module.named_parameters() if p.requires_grad})

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        names = [name for name in trainer.callback_metrics if name.startswith("train/")]
        self.logged.append({name: trainer.callback_metrics[name].item() for name in names})


def fit(jobs: list[dict]) -> list[dict]:
    """Train in this process group, once for each job."""
    torch.set_num_threads(1)
    return [_fit(**job) for job in jobs]


def _fit(precision: str = "64-true", chunk_rows: int | None = None, accumulate: int = 1, **settings) -> dict:
    torch.manual_seed(rank())  # DDP hands out the first process's weights
    objectives = {
        "contrastive": Contrastive(0.7, chunk_rows=chunk_rows),
        "masked_image": MaskedImage(1.5, KMeansTokens(8)),
    }
    optim = OptimConfig(optimizer="sgd", lr=0.05, schedule="constant")
    task = PretrainTask(config(), objectives, optim, fit_images=8, zero_shot=[], accumulate_contrastive=accumulate)
    watch, average = Watch(), EMA(0.5)
    if precision == "16-scaled":
        settings["plugins"] = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
    else:
        settings["precision"] = precision
    if world_size() > 1:
        os.environ.update({"LOCAL_RANK": str(rank()), "NODE_RANK": "0", "WORLD_SIZE": str(world_size())})
        settings["strategy"] = DDPStrategy(cluster_environment=LightningEnvironment(), process_group_backend="gloo")
    with tempfile.TemporaryDirectory() as folder:
        options = {"max_steps": -1, "max_epochs": 1, "val_check_interval": 1.0, "devices": world_size()}
        options |= {"use_distributed_sampler": False, "callbacks": [watch, average], **settings}
        run = tiny.trainer(folder, **options)
        run.fit(task, datamodule=Data(SHARES[world_size()]))
    return {
        "gradients": watch.gradients,
        "logged": watch.logged,
        "validated": {k: v.item() for k, v in run.callback_metrics.items() if k.startswith("val/")},
        "weights": {n: v for n, v in task.model.state_dict().items() if v.is_floating_point()},  # averaged
        "steps": run.global_step,
        "backwards": watch.backwards,
        "updates": average._average_model.updates,
    }


def assert_same(found: dict, joint: dict, rtol: float) -> None:
    """Compare runs; a gradient that is zero but for rounding is measured by the largest one."""
    assert {name: found[name] for name in ("steps", "updates", "backwards")} == {
        name: joint[name] for name in ("steps", "updates", "backwards")
    }
    pairs = [*zip(found["gradients"], joint["gradients"], strict=True), (found["weights"], joint["weights"])]
    for values, expected in pairs:
        assert values.keys() == expected.keys()
        largest = max(value.norm() for value in expected.values())
        for name, value in expected.items():
            error = (values[name] - value).norm()
            noise = 10 * torch.finfo(value.dtype).eps * largest
            assert error <= rtol * (value.norm() + 1e-3 * largest) + noise, f"{name}: {error / value.norm():.1e}"
    for values, expected in zip(found["logged"], joint["logged"], strict=True):
        assert values == pytest.approx(expected, rel=max(rtol, 1e-6))
    assert found["validated"] == pytest.approx(joint["validated"], rel=max(rtol, 1e-6))


EXACT: list[dict] = [{}, {"precision": "32-true"}]
PARTS: list[dict] = [
    {"accumulate": 3, "chunk_rows": 2},
    {"accumulate": 2, "gradient_clip_val": 0.05, "accumulate_grad_batches": 2},
]


@pytest.fixture(scope="module")
def joint() -> dict:
    """One process on the joint batch, nothing in parts."""
    jobs = [*EXACT, {**PARTS[1], "accumulate": 1}]
    return dict(zip(("64", "32", "clipped"), fit(jobs), strict=True))


def test_one_process_sees_something_to_compare(joint):
    run = joint["64"]
    assert len(run["gradients"]) == run["steps"] == run["updates"] == 2
    assert joint["clipped"]["steps"] == joint["clipped"]["updates"] == 1
    assert {"train/loss", "train/contrastive_accuracy", "train/masked_image_accuracy"} <= run["logged"][0].keys()
    assert 0 < run["logged"][0]["train/masked_image_accuracy"] < 1
    assert {"val/loss", "val/loss_contrastive", "val/mim_accuracy", "val/image_to_text_r1"} <= run["validated"].keys()
    norm = torch.stack([g.norm() for g in joint["clipped"]["gradients"][0].values()]).norm()
    assert norm > 0.05  # so that there is something to clip
    reference = [joint["64"]["gradients"][0], joint["32"]["gradients"][0]]
    assert any(not torch.equal(a, b.double()) for a, b in zip(*(r.values() for r in reference), strict=True))


@pytest.mark.parametrize("processes", [2, 4])
def test_ddp_equals_one_process_on_the_joint_batch(joint, processes):
    for double, single in run_distributed(fit, processes, EXACT):
        assert_same(double, joint["64"], 1e-9)
        assert_same(single, joint["32"], 1e-5)


@pytest.mark.parametrize("processes", [1, 2])
def test_parts_equal_the_whole_batch(joint, processes):
    runs = [fit(PARTS)] if processes == 1 else run_distributed(fit, processes, PARTS)
    for chunked, clipped in runs:
        assert_same(chunked, joint["64"], 1e-9)
        assert_same(clipped, joint["clipped"], 1e-9)


def test_parts_are_scaled_as_the_last_one(joint):
    whole, parts = fit([{"precision": "16-scaled", "accumulate": k} for k in (1, 3)])
    assert_same(parts, whole, 0.05)
    assert_same(whole, joint["32"], 0.1)


def _end_early(folder: str) -> str:
    """Train where the second process has a batch less; what happened."""
    data = Data([(4, 4), (5, 0)])
    data.train_dataloader = lambda: DataLoader([make_batch(2)] * (2 - rank()), batch_size=None)
    task = PretrainTask(config(), {"contrastive": Contrastive()}, zero_shot=[])
    run = sharded.trainer(folder, "ddp", max_steps=4, limit_val_batches=0)
    with pytest.raises(ConfigError) as error:
        run.fit(task, datamodule=data)
    return str(error.value)


def test_epochs_of_different_lengths_are_refused_instead_of_hanging(tmp_path):
    expected = r"different numbers of training batches \(2, 1, by rank\).*limit_train_batches: 1"
    for message in run_distributed(_end_early, 2, str(tmp_path), timeout=200.0):
        assert re.search(expected, message)


def _curve(folder: str, strategy: str) -> list[float]:
    """Losses of a run in parts, on a network that drops layers at random."""
    curve = sharded.Curve()
    task = sharded.pretrain_task(accumulate_contrastive=3)
    settings = {"max_steps": 4, "val_check_interval": None, "limit_val_batches": 0, "callbacks": [curve]}
    sharded.trainer(folder, strategy, **settings).fit(task, datamodule=sharded.RankedData())
    return curve.losses


def test_parts_train_alike_whole_and_sharded(tmp_path):
    plain, split = (run_distributed(_curve, 2, str(tmp_path), strategy) for strategy in ("ddp", "fsdp2"))
    assert plain[0] == plain[1]
    assert len(plain[0]) == 4
    assert len(set(plain[0])) == 4
    for losses in split:
        assert losses == pytest.approx(plain[0], rel=1e-4)


def test_a_strategy_of_one_backward_pass_is_refused():
    class Wrapping:
        """Stands for FSDPStrategy, which needs a GPU."""

    task = PretrainTask(config(), {"contrastive": Contrastive()}, accumulate_contrastive=2)
    task.trainer = SimpleNamespace(strategy=Wrapping(), datamodule=None)
    with pytest.raises(ConfigError, match=r"accumulate_contrastive=2 needs several backward passes.*Wrapping does not"):
        task._check_strategy()
