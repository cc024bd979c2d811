"""Base of the datamodules of faces with labels of the whole face."""

from __future__ import annotations

from farl_lightning.datamodules.faces import FaceDataModule
from farl_lightning.transforms.dense_config import DenseTransformConfig, global_recipe


class GlobalFaceDataModule(FaceDataModule):
    """Base of datamodules of a dataset with labels of the whole face: attributes, classes, numbers.

    Batches are :class:`~farl_lightning.types.FaceBatch` with ``labels`` and ``groups``; what they mean is said by
    ``spec.label_names`` and ``spec.attributes``.

    Args:
        root: Folder of the dataset in its native layout.
        transform: Crop, augmentation and size; None takes :func:`~farl_lightning.transforms.dense_config.global_recipe`
            with the crop that suits the dataset.
        batch_size: Samples per batch and process.
        eval_batch_size: The same in evaluation; None means ``batch_size``.
        num_workers: Loader processes per training process.
        seed: Key of shuffling, augmentation and of the share that ``train_fraction`` keeps.
        train_fraction: Share of the training samples that is used; see
            :class:`~farl_lightning.datamodules.faces.DenseDataModule`.
        keep_epoch_length: See :class:`~farl_lightning.datamodules.faces.DenseDataModule`.
        val_fraction: Share of the training samples that is held out for validation, only where the dataset has no
            official validation split. None means 0.1 there; 0 leaves training whole, without validation.
        split_seed: Which samples are held out.
        prefetch_factor: Batches that each worker keeps ready.
        pin_memory: Page-locked batches; None means whenever there is a GPU.

    Raises:
        ConfigError: If a setting cannot work.
        DatasetNotFoundError: From ``setup``, if the folder is not what it should be, with how to get the dataset.
    """

    def __init__(
        self,
        root: str,
        transform: DenseTransformConfig | None = None,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        train_fraction: float = 1.0,
        keep_epoch_length: bool = False,
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

    def default_transform(self) -> DenseTransformConfig:
        """Return the plain recipe."""
        return global_recipe()
