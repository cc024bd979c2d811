"""Datamodules of the landmark benchmarks.

None of them has an official validation split: a seeded share of the training photographs stands in for it, so that
models are selected without a look at the test set (FaRL's published numbers are the best test epoch).
"""

from __future__ import annotations

from typing import ClassVar

from farl_lightning.datamodules.faces import FaceDataModule
from farl_lightning.datasets.aflw19 import AFLW19
from farl_lightning.datasets.cofw import BOXES, COFW
from farl_lightning.datasets.faces import FaceDataset
from farl_lightning.datasets.ibug300w import IBug300W
from farl_lightning.datasets.wflw import WFLW
from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.transforms.dense_config import DenseTransformConfig, alignment_recipe


class _LandmarkDataModule(FaceDataModule):
    """What the landmark benchmarks share: splits, and FaRL's crop around the box, grown by a quarter."""

    official: ClassVar[tuple[str, ...]] = ("train", "test")

    def default_transform(self) -> DenseTransformConfig:
        """Return FaRL's recipe."""
        return alignment_recipe(crop="box", zoom_mean=0.8)


class IBug300WDataModule(_LandmarkDataModule):
    """300W: trains on 3148 faces, less those held out; tests on the 689 of "full" with subsets common, challenging."""

    labels = IBug300W.order.spec()

    def open_split(self, split: str) -> FaceDataset:
        """Open one split.

        Args:
            split: ``"train"`` or ``"test"``.
        """
        return IBug300W(self.root, "train" if split == "train" else "full")


class WFLWDataModule(_LandmarkDataModule):
    """WFLW: trains on 7500 faces, less those held out; tests on 2500 with their six subsets."""

    labels = WFLW.order.spec()

    def open_split(self, split: str) -> FaceDataset:
        """Open one split.

        Args:
            split: ``"train"`` or ``"test"``.
        """
        return WFLW(self.root, split)


class AFLW19DataModule(_LandmarkDataModule):
    """AFLW-19: trains on 20,000 faces, less those held out; tests on the 4386 of "full" with the subset frontal."""

    labels = AFLW19.order.spec()

    def default_transform(self) -> DenseTransformConfig:
        """Return FaRL's recipe: the box as it is, because AFLW's already leaves room around the landmarks."""
        return alignment_recipe(crop="box", zoom_mean=1.0)

    def open_split(self, split: str) -> FaceDataset:
        """Open one split.

        Args:
            split: ``"train"`` or ``"test"``.
        """
        return AFLW19(self.root, "train" if split == "train" else "full")


class COFWDataModule(_LandmarkDataModule):
    """COFW: trains on 1345 faces, less those held out; tests on 507. FaRL has no recipe for it: 300W's is taken.

    Args:
        root: Folder of the two files.
        boxes: ``"landmarks"`` or ``"detector"``; see :data:`farl_lightning.datasets.cofw.BOXES`.
        transform: Crop, augmentation and size; None takes FaRL's recipe for 300W.
        batch_size: Samples per batch and process.
        eval_batch_size: The same in evaluation; None means ``batch_size``.
        num_workers: Loader processes per training process.
        seed: Key of shuffling, augmentation and of the share that ``train_fraction`` keeps.
        train_fraction: Share of the training samples that is used; see
            :class:`~farl_lightning.datamodules.faces.DenseDataModule`.
        keep_epoch_length: See :class:`~farl_lightning.datamodules.faces.DenseDataModule`.
        val_fraction: Share of the training samples that is held out for validation; None means 0.1.
        split_seed: Which samples are held out.
        prefetch_factor: Batches that each worker keeps ready.
        pin_memory: Page-locked batches; None means whenever there is a GPU.

    Raises:
        ConfigError: If a setting cannot work.
        DatasetNotFoundError: From ``setup``, if the folder is not what it should be.
    """

    labels = COFW.order.spec()

    def __init__(
        self,
        root: str,
        boxes: str = "landmarks",
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
        if boxes not in BOXES:
            raise ConfigError(f"boxes '{boxes}' is unknown. {did_you_mean(boxes, BOXES)}")
        self.boxes = boxes

    def open_split(self, split: str) -> FaceDataset:
        """Open one split.

        Args:
            split: ``"train"`` or ``"test"``.
        """
        return COFW(self.root, split, self.boxes)
