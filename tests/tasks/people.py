"""Small crops whose colour tells who they show: people to learn, and pairs of others to be judged by."""

from __future__ import annotations

import types

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from farl_lightning.datamodules.samplers import PaddedSampler
from farl_lightning.datasets.source import Replica
from farl_lightning.functional.distributed import rank, world_size
from farl_lightning.models.config import GlobalConfig, ImageEncoderConfig
from farl_lightning.tasks import OptimConfig, VerificationTask
from farl_lightning.transforms.collate_faces import collate_faces
from farl_lightning.types import FaceSpec

SIZE, PEOPLE, PICTURES = 16, 6, 4
SPEC = FaceSpec(
    image_size=SIZE,
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
    label_names={"identity": tuple(f"p{number}" for number in range(PEOPLE))},
)


def network(**changes) -> GlobalConfig:
    return GlobalConfig(ImageEncoderConfig(image_size=SIZE, patch_size=8, width=24, depth=2, heads=2), **changes)


def task(config: GlobalConfig | None = None, **changes) -> VerificationTask:
    """Return a task of a few thousand weights, the same every time."""
    torch.manual_seed(0)
    optim = OptimConfig(lr=3e-3, schedule="constant")
    return VerificationTask(
        **{"network": config or network(), "embedding_size": 8, "scale": 16.0, "optim": optim, **changes}
    )


class Faces(Dataset):
    """Some pictures of some people, person by person; the first person's last picture is of nobody known."""

    def __init__(self, first: int, people: int, repeats: int = 0) -> None:
        self.first, self.count, self.repeats = first, people * PICTURES, repeats

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        person = index // PICTURES
        colour = torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(self.first + person))
        noise = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(1000 * self.first + index))
        image = 4 * colour.repeat_interleave(SIZE // 2, 1).repeat_interleave(SIZE // 2, 2) - 2 + 0.2 * noise
        label = -1 if index == PICTURES - 1 else person
        labels = {"identity": torch.tensor(label)}
        return {"key": f"{self.first}-{index}", "image": image, "labels": labels, "valid": True}


def trial(identities: bool = True) -> types.SimpleNamespace:
    """Ten people that training never saw, two pairs of one person and of two in every fold."""
    people = np.arange(10)
    first = np.stack([people, people, people, people], 1).ravel() * PICTURES
    second = np.stack([people * PICTURES + 1, people * PICTURES + 2, *([(people + 1) % 10 * PICTURES] * 2)], 1).ravel()
    second[3::4] += 1
    return types.SimpleNamespace(
        pairs=types.SimpleNamespace(
            first=first, second=second, same=np.tile([True, True, False, False], 10), folds=np.repeat(people, 4)
        ),
        identities=np.repeat(people, PICTURES) if identities else None,
        rows={f"100-{index}": index for index in range(10 * PICTURES)},
    )


class PeopleData(L.LightningDataModule):
    """Twenty-four training crops; two trials of forty, read in shares where there are several processes."""

    def __init__(self, spec: FaceSpec | None = SPEC, batch_size: int = 12) -> None:
        super().__init__()
        self.spec, self.batch_size = spec, batch_size

    def train_dataloader(self) -> DataLoader:
        order = torch.randperm(PEOPLE * PICTURES, generator=torch.Generator().manual_seed(0)).tolist()
        faces = Faces(0, PEOPLE)
        own = [faces[index] for index in order[rank() :: world_size()]]
        return DataLoader(own, batch_size=self.batch_size // world_size(), collate_fn=collate_faces)

    def val_dataloader(self) -> list[DataLoader]:
        faces = Faces(100, 10)
        order = PaddedSampler(len(faces), Replica(rank(), world_size()))
        samples = [{**faces[index], "valid": valid} for index, valid in order]
        return [DataLoader(samples, batch_size=7, collate_fn=collate_faces) for _ in range(2)]

    test_dataloader = predict_dataloader = val_dataloader

    def trials(self, split: str) -> dict[str, types.SimpleNamespace]:
        return {"lfw": trial(), "cfp": trial(identities=False)}
