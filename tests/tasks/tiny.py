"""Random image-text pairs at toy size, for runs that take a moment."""

from __future__ import annotations

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchdata.stateful_dataloader import StatefulDataLoader

from farl_lightning.models.config import FaceCLIPConfig
from farl_lightning.models.image_tokenizer import ImageTarget, KMeansTokens
from farl_lightning.objectives import Contrastive, MaskedImage
from farl_lightning.tasks import OptimConfig, PretrainTask
from farl_lightning.testing.models import tiny_config
from farl_lightning.text import Tokenizer
from farl_lightning.transforms.collate import collate_pretrain
from farl_lightning.types import FaceSpec

ATTRIBUTES = ("Smiling", "Eyeglasses", "Odd")


def config(**changes) -> FaceCLIPConfig:
    return tiny_config(width=24, depth=1, heads=2, **changes)


def farl(target: ImageTarget | None = None) -> dict:
    return {"contrastive": Contrastive(), "masked_image": MaskedImage(target=target or KMeansTokens(8))}


def task(objectives: dict | None = None, **changes) -> PretrainTask:
    torch.manual_seed(0)
    settings = {"optim": OptimConfig(lr=1e-3, schedule="constant"), "fit_images": 8, **changes}
    return PretrainTask(config(), objectives or farl(), **settings)


class Pairs(Dataset):
    """Random pictures with captions that count."""

    def __init__(self, count: int, train: bool, size: int = 32) -> None:
        generator = torch.Generator().manual_seed(int(train))
        self.images = torch.randn(count, 3, size, size, generator=generator)
        self.masks = torch.rand(count, (size // 8) ** 2, generator=generator) < 0.4
        self.captions = [f"face number {i}" for i in range(count)]
        self.text = Tokenizer()(self.captions)
        self.train = train

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, object]:
        sample = {
            "image": self.images[index],
            "text": self.text[index],
            "patch_mask": self.masks[index],
            "key": f"{'train' if self.train else 'val'}-{index}",
            "caption": self.captions[index],
            "labels": torch.tensor([index % 2, 1, -1]),
        }
        if not self.train:
            sample |= {"texts": self.text[[index]], "valid": torch.tensor(True)}
        if self.train and index % 4 == 3:
            sample["dropped"] = [{"key": f"bad-{index}", "reason": "not_an_image", "detail": "no header"}]
        return sample


class TinyData(L.LightningDataModule):
    """Sixteen training and eight validation pairs, in order, resumable."""

    def __init__(self, image_size: int = 32) -> None:
        super().__init__()
        self.image_size = image_size
        self.spec = FaceSpec(image_size=image_size, mean=(0.5,) * 3, std=(0.25,) * 3, attributes=ATTRIBUTES)
        self.fitted = 0

    def fit_images(self, count: int) -> Tensor:
        self.fitted += 1
        return Pairs(16, True, self.image_size).images[:count]

    def train_dataloader(self) -> StatefulDataLoader:
        return StatefulDataLoader(Pairs(16, True, self.image_size), batch_size=4, collate_fn=collate_pretrain)

    def val_dataloader(self) -> StatefulDataLoader:
        return StatefulDataLoader(Pairs(8, False, self.image_size), batch_size=4, collate_fn=collate_pretrain)

    test_dataloader = val_dataloader


def trainer(folder, **changes) -> L.Trainer:
    settings = {
        "accelerator": "cpu",
        "max_steps": 2,
        "val_check_interval": 2,
        "log_every_n_steps": 1,
        "num_sanity_val_steps": 0,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "logger": False,
        "default_root_dir": str(folder),
    }
    return L.Trainer(**{**settings, **changes})
