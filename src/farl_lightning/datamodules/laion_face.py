"""Pretraining on shards of pictures with captions: LAION-Face, or anything img2dataset or ``write-shards`` made."""

from __future__ import annotations

from functools import cached_property
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from farl_lightning.datamodules.base import BaseDataModule
from farl_lightning.datamodules.loader import ResumableLoader
from farl_lightning.datasets.decode import MAX_PIXELS
from farl_lightning.datasets.laion_face import (
    HeldPictures,
    LaionFace,
    PictureReader,
    PretrainSamples,
    needs_faces,
    sample_count,
)
from farl_lightning.datasets.shard_list import is_local, list_shards
from farl_lightning.datasets.source import Entry, Replica
from farl_lightning.datasets.stream import ShardStream
from farl_lightning.datasets.tar import count_samples
from farl_lightning.errors import ConfigError, DataError
from farl_lightning.transforms.collate import collate_pretrain
from farl_lightning.transforms.pretrain import PretrainTransform, PretrainTransformConfig

COUNTED_SHARDS = 64
"""So many shards without statistics are read through to learn how many samples they hold; beyond, it must be said."""


class LaionFaceDataModule(BaseDataModule):
    """Streams of pictures with captions from tar shards, shuffled, exactly resumable, tolerant of bad samples.

    Args:
        train_shards: Folder, tar file, glob or brace pattern, URL, list file, or a list of these; see
            :func:`~farl_lightning.datasets.shard_list.list_shards`.
        val_shards: The same for validation; None has no validation.
        test_shards: The same for ``test`` and ``predict``; None takes ``val_shards``.
        val_samples: The first so many pictures are evaluated on, held in memory as encoded bytes by every process.
        subset: ``"20M"`` or ``"50M"``: only the parts of LAION-Face that belong to it; training only.
        samples_per_epoch: Length of an epoch over all processes. None counts the samples: from the statistics beside
            the shards, or by reading through the headers of a few local shards.
        detections: Folder written by ``farl-lightning data index-detections``.
        faces: Which face of a picture: ``"largest"``, ``"first"``, ``"best"`` or ``"every"``.
        min_face_size: Shorter side of a face box in pixels below which a face is passed over.
        min_face_score: Certainty, 0 to 1, below which a face is passed over.
        transform: Crop, augmentation, mask, tokens; None takes the defaults.
        shuffle_buffer: Undecoded samples per worker among which the order is drawn; each takes its file's size.
        max_pixels: Largest width x height of a picture.
        min_side: Smallest side of a picture in pixels.
        batch_size: Samples per batch and process.
        eval_batch_size: The same in evaluation; None means ``batch_size``.
        num_workers: Loader processes per training process.
        seed: Key of shuffling, augmentation, masks and caption choice.
        prefetch_factor: Batches that each worker keeps ready.
        pin_memory: Page-locked batches; None means whenever there is a GPU.

    Raises:
        ConfigError: If a setting cannot work.
        DatasetNotFoundError: From ``setup``, if shards or detections are not there.
    """

    def __init__(
        self,
        train_shards: str | list[str],
        val_shards: str | list[str] | None = None,
        test_shards: str | list[str] | None = None,
        val_samples: int = 1000,
        subset: str | None = None,
        samples_per_epoch: int | None = None,
        detections: str | None = None,
        faces: str = "largest",
        min_face_size: float = 0.0,
        min_face_score: float = 0.0,
        transform: PretrainTransformConfig | None = None,
        shuffle_buffer: int = 1000,
        max_pixels: int = MAX_PIXELS,
        min_side: int = 1,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        prefetch_factor: int = 2,
        pin_memory: bool | None = None,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, seed, prefetch_factor, pin_memory)
        self.transform = transform or PretrainTransformConfig()
        if faces == "every" and not needs_faces(self.transform.crop):
            raise ConfigError(f"faces 'every' needs crop 'box' or 'align', got crop '{self.transform.crop}'")
        self.train_shards, self.val_shards, self.test_shards = train_shards, val_shards, test_shards or val_shards
        self.subset, self.samples_per_epoch, self.val_samples = subset, samples_per_epoch, val_samples
        self.shuffle_buffer = shuffle_buffer
        self._limits = {"max_pixels": max_pixels, "min_side": min_side}
        self._face_settings: dict[str, Any] = {
            "detections": detections,
            "faces": faces,
            "need_faces": needs_faces(self.transform.crop),
            "min_face_size": min_face_size,
            "min_face_score": min_face_score,
        }
        self.spec = self.transform.face_spec()
        self._train_list: list[str] = []
        self._held: dict[str, HeldPictures] = {}

    def setup(self, stage: str) -> None:
        """Find the shards, and complain at once if there are none.

        Args:
            stage: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.

        Raises:
            DatasetNotFoundError: If shards or detections are not there.
        """
        super().setup(stage)
        if stage == "fit":
            self._train_list = list_shards(self.train_shards, self.subset)
        if stage in ("fit", "validate") and self.val_shards:
            self._hold("val", self.val_shards)
        if stage in ("test", "predict") and self.test_shards:
            self._hold("test", self.test_shards)

    def train_dataloader(self) -> ResumableLoader:
        """Return the stream of this process."""
        return self.stream_loader(self._stream)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return the validation pictures, every process its share."""
        return self._eval("val")

    def test_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return the test pictures, every process its share."""
        return self._eval("test")

    def predict_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return the test pictures, every process its share.

        Raises:
            ConfigError: If there are none.
        """
        if not self.test_shards:
            raise ConfigError("predict reads data.test_shards, or else data.val_shards, and neither is set")
        return self.test_dataloader()

    def fit_images(self, count: int) -> Tensor:
        """Return the first pictures of the training stream of a single process.

        Args:
            count: How many; as many as there are comes back if the shards hold less.

        Returns:
            (M, 3, H, W) float32, normalised, augmented as in the first pass.
        """
        if not self._train_list:
            self._train_list = list_shards(self.train_shards, self.subset)
        stream = self._stream(Replica(), batch_size=1, num_workers=0, samples=max(count, 1))
        seen: dict[str, Tensor] = {}
        for delivery in stream.batches(0, 1, Entry(0, stream.first_positions(0))):
            if delivery.batch["key"][0] in seen:  # the pass is over
                break
            seen[delivery.batch["key"][0]] = delivery.batch["image"][0]
        return torch.stack(list(seen.values()))

    @cached_property
    def epoch_length(self) -> int:
        """Samples of an epoch over all processes, as stated or counted.

        Raises:
            ConfigError: If nothing was stated and counting would take long.
        """
        if self.samples_per_epoch is not None:
            return self.samples_per_epoch
        if (count := sample_count(self._train_list)) is not None:
            return count
        if len(self._train_list) <= COUNTED_SHARDS and all(map(is_local, self._train_list)):
            return sum(map(count_samples, self._train_list))
        raise ConfigError(
            f"samples_per_epoch is not set, and the {len(self._train_list)} shards have no *_stats.json beside them to "
            "count from: state how many samples make an epoch"
        )

    @cached_property
    def _reader(self) -> PictureReader:
        return PictureReader(**self._face_settings)

    def _maker(self, train: bool) -> PretrainSamples:
        """Return what makes samples."""
        transform = PretrainTransform(self.transform, self.seed, train)
        transform.tokenizer("read the vocabulary here, once, instead of in every worker of every epoch")
        return PretrainSamples(self._reader, transform, **self._limits)

    def _stream(self, replica: Replica, **changes: Any) -> ShardStream:
        """Return the stream of one process."""
        return ShardStream(
            self._train_list,
            self._maker(train=True),
            cast(Any, collate_pretrain),
            batch_size=changes.get("batch_size", self.batch_size),
            samples_per_epoch=changes.get("samples") or self.epoch_length,
            num_workers=changes.get("num_workers", self.num_workers),
            shuffle_buffer=self.shuffle_buffer,
            seed=self.seed,
            replica=replica,
        )

    def _hold(self, name: str, shards: str | list[str]) -> None:
        """Read the first pictures of an evaluation set into memory, once."""
        if name in self._held:
            return
        found = LaionFace(shards, reader=self._reader)
        pictures = list(islice(found, self.val_samples))
        if not pictures:
            raise DataError(f"no usable picture in {shards}; look at them with: farl-lightning data check")
        self._held[name] = HeldPictures(pictures, self._maker(train=False), found.drops)

    def _eval(self, name: str) -> DataLoader[Any] | list[Any]:
        """Return the loader of an evaluation set; an empty list, which Lightning takes for none, without one."""
        return self.eval_loader(self._held[name], cast(Any, collate_pretrain)) if name in self._held else []
