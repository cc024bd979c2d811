"""Two processes give the metrics of one: real runs on a set whose size is not divisible."""

from __future__ import annotations

import os
import tempfile

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader

from farl_lightning.datamodules.samplers import PaddedSampler
from farl_lightning.datasets.source import Replica
from farl_lightning.functional.distributed import rank, world_size
from farl_lightning.testing.distributed import run_distributed
from tests.tasks import faces, tiny


class ShardedData(faces.FaceData):
    """Each process reads its share, padded with repeats as the package's own loaders do it."""

    def test_dataloader(self) -> DataLoader:
        sampler = PaddedSampler(7, Replica(rank(), world_size()))
        samples = [{**faces.Faces(7)[index], "valid": torch.tensor(valid)} for index, valid in sampler]
        return DataLoader(samples, batch_size=2, collate_fn=faces.collate)


def evaluate(kind: str) -> dict[str, float]:
    """Test in this process group, through a real Trainer."""
    torch.set_num_threads(1)
    options = {"tta_flip": True}
    task = (
        faces.parser(boundary=True, **options)
        if kind == "parsing"
        else faces.aligner(more_normalizers=["box"], **options)
    )
    with tempfile.TemporaryDirectory() as folder:
        (found,) = trainer(folder).test(task, datamodule=ShardedData(), verbose=False)
    return found


def trainer(folder: str, **changes) -> L.Trainer:
    if world_size() == 1:
        return tiny.trainer(folder, **changes)
    os.environ.update({"LOCAL_RANK": str(rank()), "NODE_RANK": "0", "WORLD_SIZE": str(world_size())})
    strategy = DDPStrategy(cluster_environment=LightningEnvironment(), process_group_backend="gloo")
    return tiny.trainer(folder, devices=world_size(), strategy=strategy, use_distributed_sampler=False, **changes)


@pytest.mark.parametrize("kind", ["parsing", "alignment"])
def test_two_processes_give_exactly_the_metrics_of_one(kind):
    alone = evaluate(kind)
    assert len(alone) > 8
    for found in run_distributed(evaluate, 2, kind):
        losses = {name for name in alone if "loss" in name}
        assert {name: found[name] for name in losses} == pytest.approx({name: alone[name] for name in losses}, rel=1e-6)
        assert {**found, **{name: alone[name] for name in losses}} == alone
