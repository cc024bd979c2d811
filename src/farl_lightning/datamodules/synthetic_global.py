"""Attributes, classes and age on drawn faces: no download, and the truth is known."""

from __future__ import annotations

from farl_lightning.datamodules.synthetic_dense import DrawnSplits
from farl_lightning.datasets.drawn_global import DrawnGlobalFaces, drawn_global_labels
from farl_lightning.datasets.faces import FaceDataset
from farl_lightning.datasets.synthetic import SyntheticFaces
from farl_lightning.transforms.dense_config import DenseTransformConfig, global_recipe


class SyntheticGlobalDataModule(DrawnSplits):
    """Drawn faces with labels of the whole face; validation and test show people that training never saw.

    Labels: ``attributes`` (CelebA's 40; what a picture cannot show is unknown), ``age``, ``expression`` (7 classes) and
    ``gender``. Groups: ``gender`` and ``age_group``.

    Args:
        train_count: Number of training pictures.
        val_count: Number of validation pictures.
        test_count: Number of test pictures.
        image_size: Side of the drawn pictures in pixels.
        pictures_per_identity: Pictures of each person, in every split.
        faces_seed: Which faces are drawn. Independent of ``seed``, so that runs with other seeds meet the same faces.
        cache: Draw every picture once, before the first batch, into memory that workers share.
        transform: Crop, augmentation and size; None takes the recipe for whole faces at ``image_size``.
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
        train_count: int = 4096,
        val_count: int = 256,
        test_count: int = 512,
        image_size: int = 96,
        pictures_per_identity: int = 1,
        faces_seed: int = 0,
        cache: bool = True,
        transform: DenseTransformConfig | None = None,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        train_fraction: float = 1.0,
        keep_epoch_length: bool = True,
        prefetch_factor: int = 2,
        pin_memory: bool | None = None,
    ) -> None:
        super().__init__(
            drawn_global_labels(),
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

    def label(self, faces: SyntheticFaces) -> FaceDataset:
        """Give drawn faces labels of the whole face."""
        return DrawnGlobalFaces(faces, self.cache)

    def default_transform(self) -> DenseTransformConfig:
        """Return the recipe for whole faces at the size of the drawn pictures."""
        return global_recipe(size=self.image_size)
