"""Datamodules of the parsing benchmarks."""

from __future__ import annotations

from typing import ClassVar

from farl_lightning.datamodules.faces import FaceDataModule
from farl_lightning.datasets.celebamask_hq import CelebAMaskHQ
from farl_lightning.datasets.face_synthetics import FaceSynthetics
from farl_lightning.datasets.faces import FaceDataset
from farl_lightning.datasets.ibugmask import IBugMask
from farl_lightning.datasets.lapa import LaPa
from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.transforms.dense_config import DenseTransformConfig, alignment_recipe, parsing_recipe

TASKS = ("parsing", "alignment")
"""What FaceSynthetics can be used for."""


class LaPaDataModule(FaceDataModule):
    """LaPa with its official splits, aligned by five landmarks under the tanh warp of factor 0.8, as in FaRL."""

    labels = LaPa.spec

    def default_transform(self) -> DenseTransformConfig:
        """Return FaRL's recipe."""
        return parsing_recipe(crop="align", warp_factor=0.8)

    def open_split(self, split: str) -> FaceDataset:
        """Open one split.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.
        """
        return LaPa(self.root, split)


class CelebAMaskHQDataModule(FaceDataModule):
    """CelebAMask-HQ with the splits of CelebA's partition, taken as they are at 512 px, as in FaRL.

    Args:
        root: Folder of the dataset in its native layout.
        transform: Augmentation and size; None takes FaRL's recipe.
        batch_size: Samples per batch and process.
        eval_batch_size: The same in evaluation; None means ``batch_size``.
        num_workers: Loader processes per training process.
        seed: Key of shuffling, augmentation and of the share that ``train_fraction`` keeps.
        train_fraction: Share of the training samples that is used; see
            :class:`~farl_lightning.datamodules.faces.DenseDataModule`.
        keep_epoch_length: See :class:`~farl_lightning.datamodules.faces.DenseDataModule`.
        mask_cache: Folder that keeps painted masks, so that only the first epoch reads up to 18 files per face; see
            :class:`~farl_lightning.datasets.celebamask_hq.CelebAMaskHQ`.
        prefetch_factor: Batches that each worker keeps ready.
        pin_memory: Page-locked batches; None means whenever there is a GPU.

    Raises:
        ConfigError: If a setting cannot work.
        DatasetNotFoundError: From ``setup``, if the folder is not what it should be.
    """

    labels = CelebAMaskHQ.spec
    crops: ClassVar[tuple[str, ...]] = ("none",)  # no landmarks, no boxes: the pictures are aligned already

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
        mask_cache: str | None = None,
        prefetch_factor: int = 2,
        pin_memory: bool | None = None,
    ) -> None:
        super().__init__(
            root,
            transform,
            batch_size,
            eval_batch_size,
            num_workers,
            seed,
            train_fraction,
            keep_epoch_length,
            prefetch_factor=prefetch_factor,
            pin_memory=pin_memory,
        )
        self.mask_cache = mask_cache

    def default_transform(self) -> DenseTransformConfig:
        """Return FaRL's recipe."""
        return parsing_recipe(crop="none", warp_factor=0.0)

    def open_split(self, split: str) -> FaceDataset:
        """Open one split.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.
        """
        return CelebAMaskHQ(self.root, split, self.mask_cache)


class IBugMaskDataModule(FaceDataModule):
    """iBugMask with its official train and test splits; a seeded share of training stands in for validation.

    Training shows each of Helen's pictures in several poses; the validation share takes all versions of a picture.
    """

    labels = IBugMask.spec
    official: ClassVar[tuple[str, ...]] = ("train", "test")

    def default_transform(self) -> DenseTransformConfig:
        """Return FaRL's recipe for LaPa, whose crop suits any pose."""
        return parsing_recipe(crop="align", warp_factor=0.8)

    def open_split(self, split: str) -> FaceDataset:
        """Open one split.

        Args:
            split: ``"train"`` or ``"test"``.
        """
        return IBugMask(self.root, split)


class FaceSyntheticsDataModule(FaceDataModule):
    """FaceSynthetics, divided by seed: there is no official split.

    Args:
        root: Folder of the files.
        task: ``"parsing"`` (masks; the pictures as they are) or ``"alignment"`` (68 landmarks; crops around them).
        transform: Crop, augmentation and size; None takes FaRL's recipe for the task.
        batch_size: Samples per batch and process.
        eval_batch_size: The same in evaluation; None means ``batch_size``.
        num_workers: Loader processes per training process.
        seed: Key of shuffling, augmentation and of the share that ``train_fraction`` keeps.
        train_fraction: Share of the training samples that is used; see
            :class:`~farl_lightning.datamodules.faces.DenseDataModule`.
        keep_epoch_length: See :class:`~farl_lightning.datamodules.faces.DenseDataModule`.
        val_fraction: Share held out for validation; 0 leaves it out.
        test_fraction: Share held out for the test, drawn first.
        split_seed: Which samples are held out.
        prefetch_factor: Batches that each worker keeps ready.
        pin_memory: Page-locked batches; None means whenever there is a GPU.

    Raises:
        ConfigError: If a setting cannot work.
        DatasetNotFoundError: From ``setup``, if the folder is not what it should be.
    """

    labels = FaceSynthetics.spec
    official: ClassVar[tuple[str, ...]] = ("train",)

    def __init__(
        self,
        root: str,
        task: str = "parsing",
        transform: DenseTransformConfig | None = None,
        batch_size: int = 5,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        train_fraction: float = 1.0,
        keep_epoch_length: bool = True,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        prefetch_factor: int = 2,
        pin_memory: bool | None = None,
    ) -> None:
        if task not in TASKS:
            raise ConfigError(f"task '{task}' is unknown. {did_you_mean(task, TASKS)}")
        self.task, self.test_fraction = task, test_fraction  # the base asks for the recipe of the task
        super().__init__(
            root,
            transform,
            batch_size,
            eval_batch_size,
            num_workers,
            seed,
            train_fraction,
            keep_epoch_length,
            val_fraction,
            split_seed,
            prefetch_factor,
            pin_memory,
        )

    def default_transform(self) -> DenseTransformConfig:
        """Return FaRL's recipe for the task."""
        return parsing_recipe(crop="none", warp_factor=0.0) if self.task == "parsing" else alignment_recipe(crop="box")

    def open_split(self, split: str) -> FaceDataset:
        """Open all samples.

        Args:
            split: ``"train"``.
        """
        del split  # there is but one
        return FaceSynthetics(self.root, masks=self.task == "parsing")
