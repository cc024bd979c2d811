"""Faces with labels: splits of datasets, joined with a transform, to loaders."""

from __future__ import annotations

import dataclasses
import functools
import json
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, cast

from torch import Tensor
from torch.utils.data import DataLoader

from farl_lightning.datamodules.base import BaseDataModule
from farl_lightning.datamodules.loader import ResumableLoader
from farl_lightning.datamodules.samples import FaceSamples
from farl_lightning.datasets.faces import FaceDataset
from farl_lightning.datasets.splits import hold_out, take_fraction
from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.transforms.collate_faces import collate_faces
from farl_lightning.transforms.dense import DenseTransform
from farl_lightning.transforms.dense_config import DenseTransformConfig
from farl_lightning.types import FaceBatch, FaceSpec

SPLIT_FILE = "data_split.json"
"""What a run's folder keeps: which samples were drawn, wherever a draw decided."""

SPLITS = ("train", "val", "test")


class DenseDataModule(BaseDataModule):
    """Base of datamodules of faces with masks or landmarks.

    A subclass has ``labels``, :meth:`default_transform` and :meth:`open_split`.

    Args:
        transform: Crop, augmentation and size; None takes the recipe of the dataset.
        batch_size: Samples per batch and process.
        eval_batch_size: The same in evaluation; None means ``batch_size``.
        num_workers: Loader processes per training process.
        seed: Key of shuffling, augmentation and of the share that ``train_fraction`` keeps.
        train_fraction: Share of the training samples that is used, for low-data runs: floor(share * n) samples, drawn
            once per seed and listed in ``data_split.json`` in the run's folder.
        keep_epoch_length: Make an epoch of a share as long as one of all samples, as FaRL's low-data runs do; each pass
            over the share is augmented anew.
        prefetch_factor: Batches that each worker keeps ready.
        pin_memory: Page-locked batches; None means whenever there is a GPU.

    Raises:
        ConfigError: If a setting cannot work.
    """

    labels: FaceSpec
    """Classes and landmarks of the dataset."""

    def __init__(
        self,
        transform: DenseTransformConfig | None = None,
        batch_size: int = 5,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        train_fraction: float = 1.0,
        keep_epoch_length: bool = True,
        prefetch_factor: int = 2,
        pin_memory: bool | None = None,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, seed, prefetch_factor, pin_memory)
        if not 0 < train_fraction <= 1:
            raise ConfigError(f"train_fraction is a share above 0 and up to 1, got {train_fraction}")
        self.transform = self.default_transform() if transform is None else transform
        self.train_fraction, self.keep_epoch_length = train_fraction, keep_epoch_length
        self.spec = self.transform.face_spec(self.labels)
        self._opened: dict[str, FaceDataset] = {}
        self._wholes: dict[str, FaceDataset | None] = {}

    @abstractmethod
    def default_transform(self) -> DenseTransformConfig:
        """Return the recipe that the dataset's papers use."""

    @abstractmethod
    def open_split(self, split: str) -> FaceDataset | None:
        """Open one split; None if there is no such split.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.

        Raises:
            DatasetNotFoundError: If it is not where it should be.
        """

    def setup(self, stage: str) -> None:
        """Open the splits of a stage, and complain at once if they are not there.

        Args:
            stage: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.

        Raises:
            DatasetNotFoundError: If the data are not there.
        """
        super().setup(stage)
        needed = {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ("test",))
        for split in needed:
            self.faces(split)
        if stage == "fit":
            self._write_split()

    def faces(self, split: str) -> FaceDataset | None:
        """Return the bare faces of a split as records; training is reduced to ``train_fraction``.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.

        Returns:
            The dataset, or None if there is no such split.

        Raises:
            ConfigError: If the name is unknown.
        """
        if split not in SPLITS:
            raise ConfigError(f"there is no split '{split}'. {did_you_mean(split, SPLITS)}")
        if split not in self._opened:
            dataset = self._whole(split)
            if dataset is not None and split == "train":
                dataset = take_fraction(dataset, self.train_fraction, self.seed)
            if dataset is not None:
                self._opened[split] = dataset
        return self._opened.get(split)

    def _whole(self, split: str) -> FaceDataset | None:
        """Return a split as it is before ``train_fraction``; opened once."""
        if split not in self._wholes:
            self._wholes[split] = self._find(split)
        return self._wholes[split]

    def _find(self, split: str) -> FaceDataset | None:
        """Open a split."""
        return self.open_split(split)

    @functools.cached_property
    def train_set(self) -> FaceSamples:
        """The training samples."""
        dataset = self.faces("train")
        if dataset is None:
            raise ConfigError(f"{type(self).__name__} has no training split")
        length = None
        if self.train_fraction < 1 and self.keep_epoch_length:
            whole = self._whole("train")
            length = None if whole is None else len(whole)
        return self._samples(dataset, self._train_transform, length)

    @functools.cached_property
    def _train_transform(self) -> DenseTransform:
        """The transform of training; its second half may run on the device."""
        return DenseTransform(self.transform, self.labels, self.seed, train=True)

    def _samples(self, dataset: FaceDataset, transform: DenseTransform, length: int | None = None) -> FaceSamples:
        """Join a dataset and a transform."""
        return FaceSamples(dataset, transform, self.seed, transform.train, length)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Finish on the device what workers left to it (``on_device`` of the transform).

        Args:
            batch: The batch, on its device.
            dataloader_idx: Number of the loader.
        """
        del dataloader_idx
        if not (isinstance(batch, dict) and "draws" in batch):
            return batch
        return self._train_transform.finish(cast(FaceBatch, batch))

    def fit_images(self, count: int) -> Tensor:
        """Return pictures of the training set, for targets that are fitted before training.

        Args:
            count: How many; fewer come back when the set is smaller.

        Returns:
            (M, 3, S, S) float32, normalised.
        """
        if not self.transform.on_device:
            return self.sample_images(self.train_set, count)
        config = dataclasses.replace(self.transform, on_device=False)
        transform = DenseTransform(config, self.labels, self.seed, train=True)
        return self.sample_images(self._samples(self.train_set.dataset, transform), count)

    def train_dataloader(self) -> ResumableLoader:
        """Return the shuffled, resumable training loader."""
        return self.train_loader(self.train_set, collate_faces)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return the validation loader; an empty list, which Lightning takes for none, without such a split."""
        return self._eval("val")

    def test_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return the test loader."""
        return self._eval("test")

    def predict_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return the test loader."""
        return self._eval("test")

    def _eval(self, split: str) -> DataLoader[Any] | list[Any]:
        """Return the loader of an evaluation split."""
        dataset = self.faces(split)
        if dataset is None:
            return []
        transform = DenseTransform(self.transform, self.labels, self.seed, train=False)
        return self.eval_loader(self._samples(dataset, transform), collate_faces)

    def share_faces(self, other: DenseDataModule) -> None:
        """Read the splits that another datamodule of the same data opened (or drew), before anything was read.

        Args:
            other: Differs in nothing but ``seed`` and ``train_fraction``.
        """
        self._wholes = other._wholes

    def drawn(self) -> dict[str, dict[str, Any]]:
        """Return what draws decided, by split: settings, counts and names of the samples.

        Returns:
            Plain data; empty when every split is official and whole.
        """
        if self.train_fraction == 1:
            return {}
        train = self.faces("train")
        keys = [] if train is None else train.keys
        return {"train": {"fraction": self.train_fraction, "seed": self.seed, "count": len(keys), "keys": keys}}

    def _write_split(self) -> None:
        """Write what was drawn to the run's folder."""
        if self.trainer is None or not (drawn := self.drawn()):
            return
        folder = Path(self.trainer.log_dir or self.trainer.default_root_dir)  # every process has to ask for it
        if self.trainer.is_global_zero and not getattr(self.trainer, "fast_dev_run", 0):
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(drawn, ensure_ascii=False, indent=1)
            (folder / SPLIT_FILE).write_text(text + "\n", encoding="utf-8")


class FaceDataModule(DenseDataModule):
    """Base of datamodules of a dataset in a folder, official splits first.

    Where a dataset has no validation (or test) split, one is held out of training by ``split_seed``, and listed in
    ``data_split.json`` in the run's folder. A subclass names its official splits in ``official`` and opens them.

    Args:
        root: Folder of the dataset in its native layout.
        transform: Crop, augmentation and size; None takes the recipe of the dataset.
        batch_size: Samples per batch and process.
        eval_batch_size: The same in evaluation; None means ``batch_size``.
        num_workers: Loader processes per training process.
        seed: Key of shuffling, augmentation and of the share that ``train_fraction`` keeps.
        train_fraction: Share of the training samples that is used; see :class:`DenseDataModule`.
        keep_epoch_length: See :class:`DenseDataModule`.
        val_fraction: Share of the training samples that is held out for validation, only where the dataset has no
            official validation split. None means 0.1 there; 0 leaves training whole, without validation.
        split_seed: Which samples are held out. Independent of ``seed``, so that all runs are selected on the same.
        prefetch_factor: Batches that each worker keeps ready.
        pin_memory: Page-locked batches; None means whenever there is a GPU.

    Raises:
        ConfigError: If a setting cannot work.
        DatasetNotFoundError: From ``setup``, if the folder is not what it should be, with how to get the dataset.
    """

    official: ClassVar[tuple[str, ...]] = SPLITS
    """Splits that the dataset's authors made."""

    crops: ClassVar[tuple[str, ...]] = ("none", "box", "align", "quad")
    """Crops that the dataset's annotations allow."""

    test_fraction: float = 0.1
    """Share that is held out for the test where no test split is official; drawn before ``val_fraction``'s."""

    def __init__(
        self,
        root: str,
        transform: DenseTransformConfig | None = None,
        batch_size: int = 5,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        train_fraction: float = 1.0,
        keep_epoch_length: bool = True,
        val_fraction: float | None = None,
        split_seed: int = 0,
        prefetch_factor: int = 2,
        pin_memory: bool | None = None,
    ) -> None:
        super().__init__(
            transform,
            batch_size,
            eval_batch_size,
            num_workers,
            seed,
            train_fraction,
            keep_epoch_length,
            prefetch_factor,
            pin_memory,
        )
        if val_fraction is not None and "val" in self.official_splits():
            name = type(self).__name__
            raise ConfigError(
                f"val_fraction is {val_fraction}, but {name} has an official validation split; leave it out"
            )
        if val_fraction is not None and not 0 <= val_fraction < 1:
            raise ConfigError(f"val_fraction is a share from 0 and below 1, got {val_fraction}")
        if self.transform.crop not in self.crops:
            hint = did_you_mean(self.transform.crop, self.crops)
            raise ConfigError(f"{type(self).__name__} has nothing to cut crop '{self.transform.crop}' by. {hint}")
        self.root, self.split_seed = root, split_seed
        self.val_fraction = 0.1 if val_fraction is None else val_fraction

    def official_splits(self) -> tuple[str, ...]:
        """Return the splits that need no draw."""
        return self.official

    @property
    def held_out(self) -> dict[str, float]:
        """Shares of the official training set that are held out, by split."""
        shares = {"test": self.test_fraction, "val": self.val_fraction}
        return {split: share for split, share in shares.items() if split not in self.official_splits() and share > 0}

    def _find(self, split: str) -> FaceDataset | None:
        """Open an official split, or the part of training that stands for it."""
        if split in self.official_splits() and (split != "train" or not self.held_out):
            return self.open_split(split)
        return self._parts.get(split)

    @functools.cached_property
    def _parts(self) -> dict[str, FaceDataset]:
        """The official training set, divided."""
        whole = self.open_split("train")
        if whole is None:
            return {}
        parts = hold_out(whole, *self.held_out.values(), seed=self.split_seed)
        return dict(zip(("train", *self.held_out), parts, strict=True))

    def drawn(self) -> dict[str, dict[str, Any]]:
        """Return what draws decided; see :meth:`DenseDataModule.drawn`."""
        found = super().drawn()
        for split, share in self.held_out.items():
            keys = self._parts[split].keys
            found[split] = {"fraction": share, "seed": self.split_seed, "count": len(keys), "keys": keys}
        return found
