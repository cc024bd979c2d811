"""Runs of tiny tasks on the processes of the gloo pool, under DDP and under FSDP2."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor
from torch.distributed.tensor import DTensor
from torchdata.stateful_dataloader import StatefulDataLoader

from farl_lightning.callbacks.checkpoint_io import write_atomically
from farl_lightning.functional.distributed import rank, world_size
from farl_lightning.models.image_tokenizer import KMeansTokens
from farl_lightning.objectives import Contrastive, MaskedImage
from farl_lightning.tasks import OptimConfig, PretrainTask
from farl_lightning.testing.models import tiny_config
from farl_lightning.transforms.collate import collate_pretrain
from tests.tasks import faces, tiny

LIMIT = timedelta(seconds=60)


class RankedData(tiny.TinyData):
    """Every process reads its own pictures of each global batch of eight, on any number of processes."""

    def _loader(self, train: bool) -> StatefulDataLoader:
        own = 8 // world_size()
        pairs = tiny.Pairs(16 if train else 8, train, self.image_size)
        batches = [[*range(start + rank() * own, start + (rank() + 1) * own)] for start in range(0, len(pairs), 8)]
        return StatefulDataLoader(pairs, batch_sampler=batches, collate_fn=collate_pretrain)

    def train_dataloader(self) -> StatefulDataLoader:
        return self._loader(True)

    def val_dataloader(self) -> StatefulDataLoader:
        return self._loader(False)

    test_dataloader = val_dataloader


class RankedFaces(faces.FaceData):
    """The same for crops with masks and landmarks."""

    def train_dataloader(self) -> StatefulDataLoader:
        samples = [faces.Faces(8, source=False)[index] for index in range(rank(), 8, world_size())]
        return StatefulDataLoader(samples, batch_size=2, collate_fn=faces.collate)

    def val_dataloader(self) -> StatefulDataLoader:
        samples = [faces.Faces(8)[index] for index in range(rank(), 8, world_size())]
        return StatefulDataLoader(samples, batch_size=2, collate_fn=faces.collate)

    test_dataloader = val_dataloader


def pretrain_task(**changes) -> PretrainTask:
    """FaRL, toy sized, deep enough that blocks, towers and root are units of their own; layers drop at random."""
    torch.manual_seed(rank())  # sharding must not join rows of different networks
    clip = tiny_config(width=24, depth=2, heads=2)
    clip.image.drop_path = 0.2
    objectives = {"contrastive": Contrastive(form="siglip"), "masked_image": MaskedImage(target=KMeansTokens(8))}
    optim = OptimConfig(lr=2e-3, schedule="constant", layer_decay=0.9)
    return PretrainTask(clip, objectives, **{"optim": optim, "fit_images": 8, **changes})


class Curve(L.Callback):
    """Keeps the loss of every step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(trainer.callback_metrics["train/loss"]))


def trainer(folder: str | Path, strategy: str, **changes) -> L.Trainer:
    """A trainer on all processes of the group."""
    torch.set_num_threads(1)
    world = world_size()
    os.environ.update({"LOCAL_RANK": str(rank()), "NODE_RANK": "0", "WORLD_SIZE": str(world)})
    if strategy == "ddp":
        changes["strategy"] = DDPStrategy(
            cluster_environment=LightningEnvironment(), process_group_backend="gloo", timeout=LIMIT
        )
    elif strategy != "auto":
        plan = ModelParallelStrategy(
            data_parallel_size=world,
            tensor_parallel_size=1,
            save_distributed_checkpoint=strategy == "fsdp2",
            process_group_backend="gloo",
            timeout=LIMIT,
        )
        plan.cluster_environment = LightningEnvironment()
        changes["strategy"] = plan
    made = tiny.trainer(folder, devices=world, use_distributed_sampler=False, max_epochs=-1, **changes)
    write_atomically(made)
    return made


def whole(tensor: Tensor) -> Tensor:
    """Gather a sharded tensor."""
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()


def state(task: L.LightningModule) -> dict[str, Tensor]:
    """The whole weights of a task, on every process."""
    return {name: whole(value) for name, value in task.model.state_dict().items()}
