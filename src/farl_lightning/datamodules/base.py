"""What every datamodule of this package has: a ``FaceSpec``, exact resume, exact evaluation, plain hyper-parameters."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from farl_lightning.datamodules.loader import ResumableLoader
from farl_lightning.datamodules.samplers import EpochDataset, PaddedSampler, PaddedView, ShuffledBatches
from farl_lightning.datasets.source import BatchSource, Replica
from farl_lightning.errors import ConfigError
from farl_lightning.functional.distributed import rank, world_size
from farl_lightning.functional.random import keyed_generator
from farl_lightning.types import Configurable, FaceSpec

WORKER_TIMEOUT = 1800.0
"""Seconds without a batch after which a dead file system ends a run, instead of hanging it."""


class BaseDataModule(L.LightningDataModule, Configurable):
    """Base of all datamodules.

    A subclass sets ``self.spec`` in its constructor and returns :meth:`train_loader` (a map-style set),
    :meth:`stream_loader` (shards) and :meth:`eval_loader` from Lightning's hooks. Its constructor arguments become the
    hyper-parameters of the checkpoint, as plain data, so that ``test --ckpt_path`` finds its data again.

    Args:
        batch_size: Samples per batch and process.
        eval_batch_size: The same in evaluation; None means ``batch_size``.
        num_workers: Loader processes per training process; 0 loads in the training process itself.
        seed: Key of shuffling, augmentation, masks and caption choice.
        prefetch_factor: Batches that each worker keeps ready.
        pin_memory: Page-locked batches, for faster copies to a GPU; None means whenever there is one.

    Raises:
        ConfigError: If a number is out of range.
    """

    spec: FaceSpec
    """What a model has to know of these faces."""
    worker_timeout: float = WORKER_TIMEOUT
    """Seconds that a loader worker may take for a batch; a subclass, or the owner of an object, may set another one."""

    def __init__(
        self,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        prefetch_factor: int = 2,
        pin_memory: bool | None = None,
    ) -> None:
        super().__init__()
        _check_at_least(1, batch_size=batch_size, eval_batch_size=eval_batch_size, prefetch_factor=prefetch_factor)
        _check_at_least(0, num_workers=num_workers)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.prefetch_factor = prefetch_factor
        self.pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
        self._train_loader: ResumableLoader | None = None
        self._saved_position: dict[str, Any] | None = None
        self._save_plain_hyperparameters()

    @property
    def replica(self) -> Replica:
        """The share of the data that this process reads; strategies with several processes per share are respected."""
        kwargs = self.trainer.distributed_sampler_kwargs if self.trainer else None
        return Replica(kwargs["rank"], kwargs["num_replicas"]) if kwargs else Replica(rank(), world_size())

    @abstractmethod
    def fit_images(self, count: int) -> Tensor:
        """Return pictures of the training set, for targets that are fitted before training.

        Needs no other process, depends on the seed alone and disturbs no loader.

        Args:
            count: How many; fewer come back when the set is smaller.

        Returns:
            (M, 3, H, W) float32, normalised, as training sees them in its first epoch.
        """

    def setup(self, stage: str) -> None:
        """Forget the training loader of an earlier run, so that every ``fit`` begins at the beginning.

        Args:
            stage: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.
        """
        if stage == "fit":
            self._train_loader = self._saved_position = None

    def state_dict(self) -> dict[str, Any]:
        """Return where the training loader stands, of all processes; every process has to call it.

        Lightning saves the state of loaders, too, but restores it only if nobody asked for the number of steps before,
        as every schedule that ends with the last step does.
        """
        return {} if self._train_loader is None else {"train_loader": self._train_loader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep where the training loader stood until it is made.

        Args:
            state_dict: As :meth:`state_dict` returned it.
        """
        self._saved_position = state_dict.get("train_loader")
        # strategies that restore after the model is set up (FSDP) come late: the schedule asked for the loader's length
        if self._train_loader is not None and self._saved_position is not None:
            self._train_loader.load_state_dict(self._saved_position)

    def train_loader(self, dataset: EpochDataset, collate: Callable[[list[Any]], Any]) -> ResumableLoader:
        """Return the training loader of a map-style set: shuffled by key, equal on every process, resumable.

        Args:
            dataset: The samples.
            collate: Makes a batch of a list of samples.
        """
        return self.stream_loader(
            lambda replica: ShuffledBatches(dataset, collate, self.batch_size, self.seed, replica)
        )

    def stream_loader(self, make_source: Callable[[Replica], BatchSource]) -> ResumableLoader:
        """Return the training loader of any source of batches; the same loader throughout a ``fit``.

        Args:
            make_source: Makes the source of this process.
        """
        if self._train_loader is None:
            replica = self.replica
            self._train_loader = ResumableLoader(
                make_source(replica),
                replica,
                num_workers=self.num_workers,
                pin_memory=self.pin_memory,
                prefetch_factor=self.prefetch_factor,
                timeout=self.worker_timeout,
                repeat=bool(getattr(self.trainer, "overfit_batches", 0)),
            )
            if self._saved_position is not None:
                self._train_loader.load_state_dict(self._saved_position)
        return self._train_loader

    def eval_loader(self, dataset: EpochDataset, collate: Callable[[list[Any]], Any]) -> DataLoader[Any]:
        """Return an evaluation loader: in order, equally many batches on every process, repeats marked ``valid`` False.

        Args:
            dataset: The samples, dicts.
            collate: Makes a batch of a list of samples.
        """
        return DataLoader(
            PaddedView(dataset),
            batch_size=self.eval_batch_size,
            sampler=PaddedSampler(len(dataset), self.replica),
            collate_fn=collate,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            generator=torch.Generator().manual_seed(0),  # leaves the global generator alone
        )

    def sample_images(self, dataset: EpochDataset, count: int) -> Tensor:
        """Return the ``image`` of samples drawn without replacement by the seed: :meth:`fit_images` of a map-style set.

        Args:
            dataset: The training samples, dicts.
            count: How many; capped by the size of the set.

        Returns:
            (M, 3, H, W) float32.
        """
        order = torch.randperm(len(dataset), generator=keyed_generator(self.seed, "fit_images"))
        return torch.stack([dataset.sample(index, 0)["image"] for index in order[:count].tolist()])

    def _save_plain_hyperparameters(self) -> None:
        """Keep the constructor's arguments in the form that ``load_from_checkpoint`` and the CLI read."""
        config = self.to_config()
        marks = {"_class_path": config["class_path"], "_instantiator": "lightning.pytorch.cli.instantiate_module"}
        # logger=False: Lightning would merge them with the task's and refuse equal names with different values
        self.save_hyperparameters({**config["init_args"], **marks}, logger=False)


def _check_at_least(least: int, **values: int | None) -> None:
    """Refuse numbers below a bound; None stands for a default."""
    for name, value in values.items():
        if value is not None and value < least:
            raise ConfigError(f"{name} is {value}; it has to be at least {least}")
