"""Pretraining on drawn faces: image-text pairs without a download, with everything about them known."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from farl_lightning.datamodules.base import BaseDataModule
from farl_lightning.datamodules.loader import ResumableLoader
from farl_lightning.datasets.synthetic import SyntheticFaces
from farl_lightning.errors import ConfigError
from farl_lightning.transforms.collate import collate_pretrain
from farl_lightning.transforms.pretrain import PretrainTransform, PretrainTransformConfig

SPLIT_SIZE = 10_000_000
"""Training draws indices from 0, validation from here, test from twice here: no picture and no person is shared."""


class _Kept(NamedTuple):
    """What a sample is made of."""

    pixels: Tensor
    captions: list[str]
    key: str
    labels: Tensor


class SyntheticPairs:
    """Drawn faces as samples of a :class:`~farl_lightning.types.PretrainBatch`.

    Args:
        faces: The faces.
        transform: Crops, augments, tokenises and masks.
        keep: Keep what does not change from epoch to epoch: captions, labels and, without random crops and colours,
            the crop.
    """

    def __init__(self, faces: SyntheticFaces, transform: PretrainTransform, keep: bool = False) -> None:
        self.faces, self.transform = faces, transform
        self._kept: dict[int, _Kept] | None = {} if keep and transform.is_fixed else None

    def __len__(self) -> int:
        return len(self.faces)

    def sample(self, index: int, epoch: int) -> dict[str, Any]:
        """Return one sample with the 40 attributes as ``labels``.

        Args:
            index: Row of the dataset.
            epoch: Key of augmentation, caption choice and mask.
        """
        kept = None if self._kept is None else self._kept.get(index)
        if kept is None:
            kept = self._read(index, epoch)
            if self._kept is not None:
                self._kept[index] = kept
        return self.transform.finish(kept.pixels, kept.captions, kept.key, epoch, labels=kept.labels)

    def _read(self, index: int, epoch: int) -> _Kept:
        """Draw a face, cut it, write its captions."""
        face, crop = self.faces[index], self.transform.config.crop
        place: dict[str, Any] = {}
        if crop == "box":
            place["box"] = face.box
        elif crop == "align":
            place["landmarks"] = face.five_points
        pixels = self.transform.pixels(face.image, face.key, epoch if self.transform.train else 0, **place)
        return _Kept(pixels, face.captions, face.key, torch.tensor(face.attributes))


class SyntheticFacesDataModule(BaseDataModule):
    """Faces drawn from a seed, as image-text pairs; validation and test show people that training never saw.

    Args:
        train_count: Number of training pictures.
        val_count: Number of validation pictures.
        test_count: Number of test pictures.
        image_size: Side of the drawn pictures in pixels; None draws them as large as the network's input.
        align: Cut the face out of each picture by its five landmarks, whatever ``transform.crop`` says. An argument of
            its own, because drawn faces always have landmarks; other data may not.
        identities: Number of people in training, shown in turn; None never runs out of new ones.
        pictures_per_identity: Pictures of each person, in every split.
        captions_per_image: Captions of a picture; training draws one of them anew in each epoch.
        faces_seed: Which faces are drawn. Independent of ``seed``, so that runs with other seeds meet the same faces.
        cache: Draw every picture once, before the first batch, into memory that workers share (12 kB at 64 px), and
            keep captions and crops that no epoch changes in each process that reads them.
        transform: Crop, augmentation, mask and tokens; None takes 64 px and patches of 8 px.
        batch_size: Samples per batch and process.
        eval_batch_size: The same in evaluation; None means ``batch_size``.
        num_workers: Loader processes per training process.
        seed: Key of shuffling, augmentation, masks and caption choice.
        prefetch_factor: Batches that each worker keeps ready.
        pin_memory: Page-locked batches; None means whenever there is a GPU.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(
        self,
        train_count: int = 8192,
        val_count: int = 256,
        test_count: int = 256,
        image_size: int | None = None,
        align: bool = False,
        identities: int | None = None,
        pictures_per_identity: int = 1,
        captions_per_image: int = 5,
        faces_seed: int = 0,
        cache: bool = True,
        transform: PretrainTransformConfig | None = None,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        prefetch_factor: int = 2,
        pin_memory: bool | None = None,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, seed, prefetch_factor, pin_memory)
        if pictures_per_identity < 1:
            raise ConfigError(f"pictures_per_identity must be at least 1, got {pictures_per_identity}")
        counts = {"train_count": train_count, "val_count": val_count, "test_count": test_count}
        for name, count in counts.items():
            if not 1 <= count <= SPLIT_SIZE:
                raise ConfigError(f"{name} must lie between 1 and {SPLIT_SIZE}, got {count}")
        limit = SPLIT_SIZE // pictures_per_identity
        if identities is not None and not 1 <= identities <= limit:
            raise ConfigError(f"identities must lie between 1 and {limit}, or be null, got {identities}")
        self.counts = {"train": train_count, "val": val_count, "test": test_count}
        self.transform = transform or PretrainTransformConfig(image_size=64, patch_size=8, min_block=4)
        if align:
            self.transform = dataclasses.replace(self.transform, crop="align")
        self.image_size = self.transform.image_size if image_size is None else image_size
        self.identities, self.captions_per_image = identities, captions_per_image
        self.pictures_per_identity = pictures_per_identity
        self.faces_seed, self.cache = faces_seed, cache
        labels = SyntheticFaces.spec(self.image_size)
        self.spec = self.transform.face_spec(
            classes=labels.classes,
            class_flips=labels.class_flips,
            num_landmarks=labels.num_landmarks,
            landmark_flips=labels.landmark_flips,
            landmark_groups=labels.landmark_groups,
            attributes=labels.attributes,
        )

    def faces(self, split: str) -> SyntheticFaces:
        """Return the bare faces of a split, with all their labels.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.
        """
        return SyntheticFaces(
            self.counts[split],
            image_size=self.image_size,
            seed=self.faces_seed,
            start=("train", "val", "test").index(split) * SPLIT_SIZE,
            cache=self.cache,
            identities=self.identities if split == "train" else None,
            num_captions=self.captions_per_image,
            pictures_per_identity=self.pictures_per_identity,
        )

    def _pairs(self, split: str) -> SyntheticPairs:
        transform = PretrainTransform(self.transform, self.seed, train=split == "train")
        transform.tokenizer("read the vocabulary here, once, instead of in every worker of every epoch")
        return SyntheticPairs(self.faces(split), transform, keep=self.cache)

    @functools.cached_property
    def train_set(self) -> SyntheticPairs:
        """The training samples; drawn on first use when ``cache`` is on."""
        return self._pairs("train")

    @functools.cached_property
    def val_set(self) -> SyntheticPairs:
        """The validation samples."""
        return self._pairs("val")

    @functools.cached_property
    def test_set(self) -> SyntheticPairs:
        """The test samples."""
        return self._pairs("test")

    def fit_images(self, count: int) -> Tensor:
        """Return pictures of the training set, for targets that are fitted before training.

        Args:
            count: How many; fewer come back when the set is smaller.

        Returns:
            (M, 3, H, W) float32, normalised.
        """
        return self.sample_images(self.train_set, count)

    def train_dataloader(self) -> ResumableLoader:
        """Return the shuffled, resumable training loader."""
        return self.train_loader(self.train_set, collate_pretrain)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the validation loader."""
        return self.eval_loader(self.val_set, collate_pretrain)

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the test loader."""
        return self.eval_loader(self.test_set, collate_pretrain)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return the test loader."""
        return self.test_dataloader()
