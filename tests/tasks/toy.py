"""A small task of a user's own module, with every kind of argument that a task may take."""

from __future__ import annotations

from dataclasses import dataclass, field

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchdata.stateful_dataloader import StatefulDataLoader

from farl_lightning.tasks import BaseTask, OptimConfig
from farl_lightning.types import Configurable, FaceSpec


@dataclass
class Sizes:
    """Plain settings."""

    width: int = 4
    names: list[str] = field(default_factory=lambda: ["a"])


class Part(nn.Module, Configurable):
    """A component chosen by class."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight


class OtherPart(Part):
    """Another choice, with an argument of its own."""

    def __init__(self, weight: float = 2.0, extra: int = 3) -> None:
        super().__init__(weight)
        self.extra = extra


class ToyTask(BaseTask):
    """Fits a line through noise, with dropout."""

    def __init__(
        self,
        sizes: Sizes,
        parts: dict[str, Part] | None = None,
        optim: OptimConfig | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(optim, seed)
        self.sizes = sizes
        self.parts = parts or {"default": Part()}
        self.losses: list[float] = []
        self.build()

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(3, self.sizes.width), nn.Dropout(0.5), nn.Linear(self.sizes.width, 1))

    def _step(self, batch: dict[str, Tensor], batch_idx: int, stage: str) -> Tensor:
        loss = (self.model(batch["image"]) - 1).square().mean() * sum(part.weight for part in self.parts.values())
        self.losses.append(loss.item())
        self.log(f"{stage}/loss", loss, batch_size=len(batch["image"]))
        return loss


class UserTask(ToyTask):
    """A user's subclass that hands the rest on."""

    def __init__(self, sizes: Sizes, bias: float = 0.5, **kwargs) -> None:
        super().__init__(sizes, **kwargs)
        self.bias = bias


class FixedTask(ToyTask):
    """A user's subclass that settles one of its parent's arguments."""

    def __init__(self, note: str = "x", **kwargs) -> None:
        super().__init__(sizes=Sizes(width=5), **kwargs)
        self.note = note


class Points(Dataset):
    """Sixteen fixed points."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"image": torch.full((3,), index / 16)}


class ToyData(L.LightningDataModule):
    """Batches of four, in order."""

    def __init__(self, size: int = 32, mean: float = 0.5) -> None:
        super().__init__()
        self.spec = FaceSpec(image_size=size, mean=(mean,) * 3, attributes=("Smiling",))

    def train_dataloader(self) -> StatefulDataLoader:
        return StatefulDataLoader(Points(), batch_size=4)

    val_dataloader = test_dataloader = train_dataloader
