"""Tasks with one answer per face, and verification with its margin head, follow DDP when they are sharded."""

from __future__ import annotations

import pytest
import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from farl_lightning.cli.consolidate import consolidate
from farl_lightning.functional.distributed import rank, world_size
from farl_lightning.tasks import OptimConfig
from farl_lightning.testing.distributed import run_distributed
from tests.distributed import sharded
from tests.tasks import labelled, people

STEPS = 4
SGD = OptimConfig(optimizer="sgd", lr=0.05, momentum=0.9, schedule="constant")


class RankedLabels(labelled.LabelledData):
    """Every process trains on its own crops of each batch of eight."""

    def train_dataloader(self):
        crops = labelled.Crops(16)
        own = [crops[index] for index in range(rank(), 16, world_size())]
        return torch.utils.data.DataLoader(own, batch_size=8 // world_size(), collate_fn=labelled.collate_faces)


def new_task(kind: str, tuning: str = "finetune"):
    if kind in labelled.KINDS:
        return labelled.task(kind, optim=SGD, tuning=tuning, lora_rank=2)
    return people.task(loss=kind, optim=SGD, tuning=tuning, lora_rank=2)


def train(kind: str, tuning: str, strategy: str, folder: str, precision: str = "32-true") -> dict:
    """Train for a few steps; returns losses, what validation found, the weights, and what was sharded."""
    losses, task = sharded.Curve(), new_task(kind, tuning)
    data = RankedLabels() if kind in labelled.KINDS else people.PeopleData()
    trainer = sharded.trainer(
        folder,
        strategy,
        max_steps=STEPS,
        val_check_interval=2,
        gradient_clip_val=0.5,
        precision=precision,
        callbacks=[losses],
    )
    trainer.fit(task, datamodule=data)
    trainer.save_checkpoint(f"{folder}/{strategy}.ckpt")
    return {
        "losses": losses.losses,
        "values": {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")},
        "state": sharded.state(task),
        "sharded": all(isinstance(parameter, DTensor) for parameter in task.model.parameters()),
        "units": sum(isinstance(module, FSDPModule) for module in task.model.modules()),
    }


def train_both(cases: list[tuple[str, str]], folder: str) -> dict:
    """All cases in one group of processes, under DDP and under FSDP2."""
    return {
        (*case, strategy): train(*case, strategy, f"{folder}/{'-'.join(case)}")
        for case in cases
        for strategy in ("ddp", "fsdp2")
    }


CASES = [("attributes", "finetune"), ("classification", "frozen"), ("age", "finetune"), ("arcface", "finetune")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("faces")


@pytest.fixture(scope="module")
def runs(folder) -> dict:
    return run_distributed(train_both, 2, CASES, str(folder))[0]


@pytest.mark.parametrize(("kind", "tuning"), CASES)
def test_sharded_tasks_follow_ddp(runs, folder, kind, tuning):
    given, expected = runs[kind, tuning, "fsdp2"], runs[kind, tuning, "ddp"]
    assert given["sharded"]
    assert given["units"] >= 4  # root, encoder, two blocks
    assert not expected["sharded"]
    assert len(given["losses"]) == STEPS
    assert given["losses"] == pytest.approx(expected["losses"], rel=1e-4)
    assert len(set(given["losses"])) == STEPS
    assert given["values"].keys() == expected["values"].keys() != set()
    assert given["values"] == pytest.approx(expected["values"], rel=1e-3, abs=1e-4, nan_ok=True)
    assert given["state"].keys() == expected["state"].keys()
    torch.testing.assert_close(given["state"], expected["state"], rtol=1e-3, atol=1e-5)
    one = consolidate(folder / f"{kind}-{tuning}" / "fsdp2.ckpt", folder / f"{kind}-{tuning}" / "one.ckpt")
    saved, wanted = (
        torch.load(path, weights_only=True)["state_dict"] for path in (one, folder / f"{kind}-{tuning}" / "ddp.ckpt")
    )
    assert saved.keys() == wanted.keys()
    torch.testing.assert_close(saved, wanted, rtol=1e-3, atol=1e-5)


def train_half(folder: str) -> dict:
    return {
        strategy: train("attributes", "finetune", strategy, f"{folder}/half", "bf16-mixed")
        for strategy in ("ddp", "fsdp2")
    }


def test_half_precision_follows_ddp_on_the_cpu(folder):
    found = run_distributed(train_half, 2, str(folder))[0]
    given, expected = found["fsdp2"], found["ddp"]
    assert given["losses"] == pytest.approx(expected["losses"], rel=0.02)
    assert all(value.dtype == torch.float32 for value in given["state"].values() if value.is_floating_point())
    for name, value in expected["state"].items():
        torch.testing.assert_close(given["state"][name], value, rtol=0.02, atol=5e-3)
