"""Small crops whose colour tells their labels: attributes, a class of three, an age; some labels are unknown."""

from __future__ import annotations

import math

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from farl_lightning.datamodules.samplers import PaddedSampler
from farl_lightning.datasets.source import Replica
from farl_lightning.functional.distributed import rank, world_size
from farl_lightning.losses import AgeExpectation
from farl_lightning.models.config import GlobalConfig, ImageEncoderConfig
from farl_lightning.tasks import AgeTask, AttributeTask, ClassificationTask, OptimConfig
from farl_lightning.tasks.global_faces import GlobalTask
from farl_lightning.transforms.collate_faces import collate_faces
from farl_lightning.types import FaceSpec

SIZE = 16
SPEC = FaceSpec(
    image_size=SIZE,
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
    attributes=("Red", "Green"),
    label_names={"mood": ("calm", "glad", "sad"), "age": ()},
)
KINDS = ("attributes", "classification", "age")


def network(**changes) -> GlobalConfig:
    return GlobalConfig(ImageEncoderConfig(image_size=SIZE, patch_size=8, width=24, depth=2, heads=2), **changes)


def task(kind: str, config: GlobalConfig | None = None, **changes) -> GlobalTask:
    """Return a task of a few thousand weights, the same every time."""
    torch.manual_seed(0)
    settings = {"network": config or network(), "optim": OptimConfig(lr=3e-3, schedule="constant"), **changes}
    if kind == "attributes":
        return AttributeTask(**settings)
    if kind == "classification":
        return ClassificationTask(**{"column": "mood", **settings})
    return AgeTask(**{"method": AgeExpectation(0, 60), **settings})


class Crops(Dataset):
    """Crops in a few colours; every fifth label is unknown, and the last crop may be a repeat."""

    def __init__(self, count: int, repeats: int = 0) -> None:
        self.count, self.repeats = count, repeats

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        generator = torch.Generator().manual_seed(index)
        red, green, mood = index % 2, (index // 2) % 2, index % 3
        image = 0.1 * torch.randn(3, SIZE, SIZE, generator=generator)
        image += torch.tensor([2.0 * red - 1, 2.0 * green - 1, mood - 1.0])[:, None, None]
        unknown = index % 5 == 4
        labels = {
            "attributes": torch.tensor([red, -1 if unknown else green]),
            "mood": torch.tensor(-1 if unknown else mood),
            "age": torch.tensor(math.nan if unknown else 20.0 + 15 * mood),
            "age_std": torch.tensor(3.0),
        }
        return {"key": f"crop-{index}", "image": image, "labels": labels, "valid": index < self.count - self.repeats}


class LabelledData(L.LightningDataModule):
    """Twelve training crops; eleven for evaluation, read in shares where there are several processes."""

    def __init__(self, spec: FaceSpec | None = SPEC, repeats: int = 1) -> None:
        super().__init__()
        self.spec, self.repeats = spec, repeats

    def train_dataloader(self) -> DataLoader:
        return DataLoader(Crops(12), batch_size=4, collate_fn=collate_faces)

    def val_dataloader(self) -> DataLoader:
        whole = Crops(11, self.repeats)
        order = PaddedSampler(len(whole), Replica(rank(), world_size()))
        samples = [{**whole[index], "valid": valid and whole[index]["valid"]} for index, valid in order]
        return DataLoader(samples, batch_size=4, collate_fn=collate_faces)

    test_dataloader = predict_dataloader = val_dataloader
