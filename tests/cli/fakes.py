"""A small task and its data, for tests of the command line."""

from __future__ import annotations

import dataclasses

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from farl_lightning.errors import DatasetNotFoundError


@dataclasses.dataclass
class FakeOptim:
    """Settings of the optimiser."""

    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)


@dataclasses.dataclass
class FakeTower:
    """Settings of a tower."""

    width: int | None = None
    name: str = "vit"


@dataclasses.dataclass
class FakeClip:
    """Settings of both towers."""

    embed_dim: int = 8
    image: FakeTower = dataclasses.field(default_factory=FakeTower)


class FakeObjective(nn.Module):
    """Base of fake objectives."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight


class FakeTarget(nn.Module):
    """Base of fake targets."""


class FakePixels(FakeTarget):
    """A target."""

    def __init__(self, normalize: bool = True) -> None:
        super().__init__()


class FakeContrast(FakeObjective):
    """An objective."""

    def __init__(self, weight: float = 1.0, form: str = "clip") -> None:
        super().__init__(weight)


class FakeMasked(FakeObjective):
    """An objective with a target."""

    def __init__(self, weight: float = 1.0, target: FakeTarget | None = None, depth: int = 1) -> None:
        super().__init__(weight)


class FakeTask(L.LightningModule):
    """Learns a constant."""

    def __init__(
        self,
        clip: FakeClip,
        objectives: dict[str, FakeObjective] | None = None,
        optim: FakeOptim | None = None,
        names: list[str] | None = None,
        weights: str | None = None,
        note: str = "",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.optim = optim or FakeOptim()
        self.model = nn.ModuleDict({"tower": nn.Linear(4, clip.embed_dim), "frozen": nn.Linear(4, 4)})
        self.model["frozen"].requires_grad_(False)

    def _loss(self, batch: dict[str, Tensor]) -> Tensor:
        return self.model["tower"](batch["image"].flatten(1)[:, :4]).square().mean()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self._loss(batch)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("val/loss", self._loss(batch))

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("test/loss", self._loss(batch))

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, object]:
        return {"key": batch["key"], "image_features": self.model["tower"](batch["image"].flatten(1)[:, :4])}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.model["tower"].parameters(), self.optim.lr)


class OtherTask(FakeTask):
    """Another class with the same arguments."""


class FakeData(L.LightningDataModule):
    """Random images with captions and masks."""

    def __init__(self, batch_size: int = 4, count: int = 8, num_workers: int = 0, root: str | None = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        if root is not None:
            raise DatasetNotFoundError(f"no shards at '{root}': it must hold split_00000/*.tar; see img2dataset")

    def _loader(self) -> DataLoader[dict[str, object]]:
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(self.hparams["count"], 3, 16, 16, generator=generator)
        samples = [
            {"image": image, "patch_mask": torch.arange(4) == 0, "key": f"k{i}", "caption": f"caption {i}"}
            for i, image in enumerate(images)
        ]
        return DataLoader(samples, batch_size=self.hparams["batch_size"])

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = _loader
