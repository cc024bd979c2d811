"""A few faces of blobs: small crops with masks and landmarks, larger pictures that they were cut from."""

from __future__ import annotations

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from farl_lightning.functional.geometry import apply_matrix
from farl_lightning.functional.warp import crop_to_source_grid, sample
from farl_lightning.models.config import DenseConfig, ImageEncoderConfig
from farl_lightning.tasks import AlignmentTask, OptimConfig, ParsingTask
from farl_lightning.types import FaceSpec

SIZE = 32
SPEC = FaceSpec(
    image_size=SIZE,
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
    crop="align",
    classes=("background", "skin", "left", "right", "hat"),
    class_flips=((2, 3),),
    num_landmarks=19,
    landmark_flips=((6, 11), (7, 10)),
)


def network(**changes) -> DenseConfig:
    sizes = {"image_size": SIZE, "patch_size": 8, "width": 24, "depth": 4, "heads": 2, **changes}
    return DenseConfig(ImageEncoderConfig(**sizes), channels=8, dropout=0.0)


def parser(**changes) -> ParsingTask:
    torch.manual_seed(0)
    return ParsingTask(network(), **{"optim": OptimConfig(lr=1e-3, schedule="constant"), **changes})


def aligner(**changes) -> AlignmentTask:
    torch.manual_seed(0)
    return AlignmentTask(network(), **{"optim": OptimConfig(lr=1e-3, schedule="constant"), **changes})


class Faces(Dataset):
    """Pictures of different sizes with two squares on a larger one; the last of them may be a repeat."""

    def __init__(self, count: int, invalid: int = 0, source: bool = True) -> None:
        self.count, self.invalid, self.source = count, invalid, source

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        height, width = 40 + 3 * (index % 5), 48 + 2 * (index % 4)
        left, top = 6 + index % 3, 5 + index % 2
        mask = torch.zeros(height, width, dtype=torch.uint8)
        mask[top : top + 30, left : left + 32] = 1
        mask[top + 8 : top + 14, left + 4 : left + 12] = 2
        mask[top + 8 : top + 14, left + 20 : left + 28] = 3
        steps = torch.arange(19.0)
        landmarks = torch.stack([left + 2 + 1.5 * steps, top + 10 + (steps % 4)], -1)
        matrix = torch.tensor([[0.8, 0.0, 2.0 - 0.8 * left], [0.0, 0.8, 3.0 - 0.8 * top], [0.0, 0.0, 1.0]])
        grid = crop_to_source_grid(matrix[None], SIZE)
        crop = sample(mask[None, None].float(), grid, "nearest")[0, 0].long()
        colours = torch.tensor([[-1.0, -1, -1], [1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [1, 1, 1]])
        item = {
            "key": f"face-{index}",
            "image": colours[crop].permute(2, 0, 1) + 0.01 * index,
            "mask": crop,
            "landmarks": apply_matrix(landmarks, matrix),
            "matrix": matrix,
        }
        if self.source:
            item |= {
                "size": torch.tensor([height, width]),
                "source_mask": mask,
                "source_landmarks": landmarks,
                "box": torch.tensor([float(left), float(top), left + 32.0, top + 30.0]),
                "subsets": ("even",) if index % 2 == 0 else ("odd", "rare"),
                "valid": torch.tensor(index < self.count - self.invalid),
            }
        return item


def collate(samples: list[dict]) -> dict:
    batch = {key: [sample[key] for sample in samples] for key in samples[0]}
    as_they_are = ("key", "source_mask", "subsets")
    return {key: values if key in as_they_are else torch.stack(values) for key, values in batch.items()}


class FaceData(L.LightningDataModule):
    """Eight training faces; seven for evaluation, of which the last is a repeat that must not count."""

    def __init__(self, spec: FaceSpec | None = SPEC, invalid: int = 1, source: bool = True) -> None:
        super().__init__()
        self.spec = spec
        self.invalid, self.source = invalid, source

    def train_dataloader(self) -> DataLoader:
        return DataLoader(Faces(8, source=False), batch_size=4, collate_fn=collate)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(Faces(7, self.invalid, self.source), batch_size=4, collate_fn=collate)

    test_dataloader = predict_dataloader = val_dataloader


class OnlyTrained(L.Callback):
    """Remembers which parameters moved."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.before = {name: value.detach().clone() for name, value in pl_module.model.named_parameters()}

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        now = dict(pl_module.model.named_parameters())
        self.moved = {name for name, value in self.before.items() if not torch.equal(value, now[name])}
