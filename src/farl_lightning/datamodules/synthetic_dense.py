"""Face parsing and face alignment on drawn faces: no download, and the truth is known."""

from __future__ import annotations

from typing import Any

from farl_lightning.datamodules.faces import SPLITS, DenseDataModule
from farl_lightning.datamodules.synthetic import SPLIT_SIZE
from farl_lightning.datasets.drawn import DrawnFaces, drawn_labels
from farl_lightning.datasets.faces import FaceDataset
from farl_lightning.datasets.synthetic import SyntheticFaces
from farl_lightning.errors import ConfigError
from farl_lightning.transforms.dense_config import DenseTransformConfig, alignment_recipe, parsing_recipe
from farl_lightning.types import FaceSpec


class DrawnSplits(DenseDataModule):
    """Base of datamodules of drawn faces: three splits that share neither pictures nor people.

    Args:
        labels: The labels.
        counts: Number of pictures by split.
        image_size: Side of the drawn pictures in pixels.
        pictures_per_identity: Pictures of each person, in every split.
        faces_seed: Which faces are drawn.
        cache: Draw every picture once, before the first batch.
        **options: For :class:`~farl_lightning.datamodules.faces.DenseDataModule`.

    Raises:
        ConfigError: If a setting cannot work.
    """

    def __init__(
        self,
        labels: FaceSpec,
        counts: dict[str, int],
        image_size: int,
        pictures_per_identity: int,
        faces_seed: int,
        cache: bool,
        **options: Any,
    ) -> None:
        for split, count in counts.items():
            if not 1 <= count <= SPLIT_SIZE:
                raise ConfigError(f"{split}_count must lie between 1 and {SPLIT_SIZE}, got {count}")
        if pictures_per_identity < 1:
            raise ConfigError(f"pictures_per_identity must be at least 1, got {pictures_per_identity}")
        self.labels, self.counts, self.image_size = labels, counts, image_size
        self.pictures_per_identity, self.faces_seed, self.cache = pictures_per_identity, faces_seed, cache
        super().__init__(**options)

    def open_split(self, split: str) -> FaceDataset:
        """Draw one split.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.
        """
        # splits begin with a person's first picture, so that nobody is in two of them
        people = -(-SPLIT_SIZE // self.pictures_per_identity)
        faces = SyntheticFaces(
            self.counts[split],
            self.image_size,
            self.faces_seed,
            start=SPLITS.index(split) * people * self.pictures_per_identity,
            pictures_per_identity=self.pictures_per_identity,
        )
        return self.label(faces)

    def label(self, faces: SyntheticFaces) -> FaceDataset:
        """Give drawn faces the labels of this datamodule.

        Args:
            faces: Those of one split.
        """
        return DrawnFaces(faces, len(self.labels.classes), self.labels.num_landmarks, self.cache)


class SyntheticParsingDataModule(DrawnSplits):
    """Drawn faces with masks; validation and test show people that training never saw.

    Args:
        train_count: Number of training pictures.
        val_count: Number of validation pictures.
        test_count: Number of test pictures.
        classes: 11 (LaPa's classes) or 19 (CelebAMask-HQ's).
        image_size: Side of the drawn pictures in pixels.
        pictures_per_identity: Pictures of each person, in every split.
        faces_seed: Which faces are drawn. Independent of ``seed``, so that runs with other seeds meet the same faces.
        cache: Draw every picture once, before the first batch, into memory that workers share.
        transform: Crop, augmentation and size; None takes FaRL's recipe for LaPa at ``image_size``.
        batch_size: Samples per batch and process.
        eval_batch_size: The same in evaluation; None means ``batch_size``.
        num_workers: Loader processes per training process.
        seed: Key of shuffling, augmentation and of the share that ``train_fraction`` keeps.
        train_fraction: Share of the training samples that is used; see
            :class:`~farl_lightning.datamodules.faces.DenseDataModule`.
        keep_epoch_length: See :class:`~farl_lightning.datamodules.faces.DenseDataModule`.
        prefetch_factor: Batches that each worker keeps ready.
        pin_memory: Page-locked batches; None means whenever there is a GPU.

    Raises:
        ConfigError: If a setting cannot work.
    """

    def __init__(
        self,
        train_count: int = 2048,
        val_count: int = 128,
        test_count: int = 256,
        classes: int = 11,
        image_size: int = 96,
        pictures_per_identity: int = 1,
        faces_seed: int = 0,
        cache: bool = True,
        transform: DenseTransformConfig | None = None,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        train_fraction: float = 1.0,
        keep_epoch_length: bool = True,
        prefetch_factor: int = 2,
        pin_memory: bool | None = None,
    ) -> None:
        super().__init__(
            drawn_labels(classes, 0),
            {"train": train_count, "val": val_count, "test": test_count},
            image_size,
            pictures_per_identity,
            faces_seed,
            cache,
            transform=transform,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            seed=seed,
            train_fraction=train_fraction,
            keep_epoch_length=keep_epoch_length,
            prefetch_factor=prefetch_factor,
            pin_memory=pin_memory,
        )

    def default_transform(self) -> DenseTransformConfig:
        """Return FaRL's recipe for LaPa at the size of the drawn pictures."""
        return parsing_recipe(size=self.image_size, crop="align", warp_factor=0.8)


class SyntheticAlignmentDataModule(DrawnSplits):
    """Drawn faces with landmarks; validation and test show people that training never saw.

    Args:
        train_count: Number of training pictures.
        val_count: Number of validation pictures.
        test_count: Number of test pictures.
        landmarks: 68 (iBUG), 98 (WFLW) or 19 (AFLW).
        image_size: Side of the drawn pictures in pixels.
        pictures_per_identity: Pictures of each person, in every split.
        faces_seed: Which faces are drawn. Independent of ``seed``, so that runs with other seeds meet the same faces.
        cache: Draw every picture once, before the first batch, into memory that workers share.
        transform: Crop, augmentation and size; None takes FaRL's recipe for 300W at ``image_size``.
        batch_size: Samples per batch and process.
        eval_batch_size: The same in evaluation; None means ``batch_size``.
        num_workers: Loader processes per training process.
        seed: Key of shuffling, augmentation and of the share that ``train_fraction`` keeps.
        train_fraction: Share of the training samples that is used; see
            :class:`~farl_lightning.datamodules.faces.DenseDataModule`.
        keep_epoch_length: See :class:`~farl_lightning.datamodules.faces.DenseDataModule`.
        prefetch_factor: Batches that each worker keeps ready.
        pin_memory: Page-locked batches; None means whenever there is a GPU.

    Raises:
        ConfigError: If a setting cannot work.
    """

    def __init__(
        self,
        train_count: int = 2048,
        val_count: int = 128,
        test_count: int = 256,
        landmarks: int = 68,
        image_size: int = 96,
        pictures_per_identity: int = 1,
        faces_seed: int = 0,
        cache: bool = True,
        transform: DenseTransformConfig | None = None,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        train_fraction: float = 1.0,
        keep_epoch_length: bool = True,
        prefetch_factor: int = 2,
        pin_memory: bool | None = None,
    ) -> None:
        super().__init__(
            drawn_labels(0, landmarks),
            {"train": train_count, "val": val_count, "test": test_count},
            image_size,
            pictures_per_identity,
            faces_seed,
            cache,
            transform=transform,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            seed=seed,
            train_fraction=train_fraction,
            keep_epoch_length=keep_epoch_length,
            prefetch_factor=prefetch_factor,
            pin_memory=pin_memory,
        )

    def default_transform(self) -> DenseTransformConfig:
        """Return FaRL's recipe for 300W at the size of the drawn pictures."""
        return alignment_recipe(size=self.image_size, crop="box")
