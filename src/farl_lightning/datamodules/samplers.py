"""Which samples of a map-style dataset a process sees, in training and in evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from farl_lightning.datasets.source import BatchSource, Delivery, Entry, Replica
from farl_lightning.errors import ConfigError
from farl_lightning.functional.random import keyed_generator


class EpochDataset(Protocol):
    """A dataset whose samples depend on the epoch, as augmented ones do."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def sample(self, index: int, epoch: int) -> Any:
        """Return one sample; the same arguments give the same sample, in any process.

        Args:
            index: From 0 to ``len(self) - 1``.
            epoch: How often the whole set was seen before; 0 in evaluation.
        """
        ...


class ShuffledBatches(BatchSource):
    """Shuffled batches of a map-style dataset: pass p runs through the permutation keyed by (seed, p).

    Every process takes its stride of the same permutation, so batches never overlap and every process has equally
    many. What does not fill a batch on every process is left out of that pass. A pass is an epoch, unless the number of
    processes changes on the way: then epochs keep their new length and passes run across their borders, so that still
    nothing is lost or repeated within a pass. The position is ``{"pass", "used"}``: samples of the pass already used
    by all processes together.

    Args:
        dataset: The samples.
        collate: Makes a batch of a list of samples.
        batch_size: Samples per batch and process.
        seed: Key of the permutations.
        replica: The share of this process.

    Raises:
        ConfigError: If the dataset is smaller than one batch on every process.
    """

    def __init__(
        self,
        dataset: EpochDataset,
        collate: Callable[[list[Any]], Any],
        batch_size: int,
        seed: int = 0,
        replica: Replica = Replica(),  # noqa: B008  -- an immutable tuple
    ) -> None:
        self._step = batch_size * replica.world_size
        if len(dataset) < self._step:
            raise ConfigError(
                f"{len(dataset)} training samples do not fill one batch of {batch_size} on "
                f"{replica.world_size} process(es); set batch_size to {len(dataset) // replica.world_size} or less"
            )
        self._dataset, self._collate = dataset, collate
        self._batch_size, self._seed, self._replica = batch_size, seed, replica
        self.batches_per_epoch = len(dataset) // self._step
        self.fingerprint = f"map/{len(dataset)}/{seed}{getattr(dataset, 'fingerprint', '')}"

    def first_positions(self, epoch: int) -> list[dict[str, Any]]:
        """Return the start of the pass that belongs to the epoch.

        Args:
            epoch: Counted from 0.
        """
        return [{"pass": epoch, "used": 0}]

    def restore(self, processes: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """Return the common position: it counts the samples of all processes, however many they were.

        Args:
            processes: One list of positions per process.
        """
        return processes[0]

    def batches(self, worker: int, num_workers: int, entry: Entry) -> Iterator[Delivery]:
        """Yield every ``num_workers``-th batch of the rest of the epoch.

        Args:
            worker: Number of this worker.
            num_workers: How many workers there are.
            entry: Where the iteration begins.
        """
        number, used = entry.positions[0]["pass"], entry.positions[0]["used"]
        order = self._permutation(number)
        for batch in range(self.batches_per_epoch - entry.delivered):
            if used + self._step > len(self._dataset):
                number, used = number + 1, 0
                order = self._permutation(number)
            used += self._step
            if batch % num_workers == worker:
                own = order[used - self._step : used][self._replica.rank :: self._replica.world_size]
                samples = [self._dataset.sample(index, number) for index in own.tolist()]
                yield Delivery(self._collate(samples), 0, {"pass": number, "used": used})

    def _permutation(self, number: int) -> torch.Tensor:
        """Return the order of one pass, (n,) int64."""
        return torch.randperm(len(self._dataset), generator=keyed_generator(self._seed, "shuffle", number))


class Padded(NamedTuple):
    """Number of a sample, and whether it counts or only fills up the last batch."""

    row: int
    valid: bool


class PaddedSampler(DistributedSampler[Any]):
    """Deals a dataset in its own order to all processes, equally many to each; the repeats that this takes are marked.

    It is a ``DistributedSampler`` so that Lightning leaves it alone.

    Args:
        length: Number of samples.
        replica: The share of this process.
    """

    def __init__(self, length: int, replica: Replica = Replica()) -> None:  # noqa: B008  -- an immutable tuple
        super().__init__(range(length), replica.world_size, replica.rank, shuffle=False)  # type: ignore[arg-type]
        self._length = length

    def __iter__(self) -> Iterator[Padded]:
        """Yield the ``Padded`` numbers of this process."""
        for position in range(self.rank, len(self) * self.num_replicas, self.num_replicas):
            yield Padded(position % self._length, position < self._length)


class PaddedView(Dataset[Any]):
    """An ``EpochDataset`` as :class:`PaddedSampler` asks for it: samples of epoch 0 with an entry ``valid``.

    Args:
        dataset: The samples: dicts.
    """

    def __init__(self, dataset: EpochDataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        """Return the number of samples without padding."""
        return len(self._dataset)

    def __getitem__(self, padded: Padded | int) -> dict[str, Any]:
        """Return a sample with ``valid`` as a bool tensor without axes; a repeat reports nothing a second time.

        A bare number is a sample that counts: ``Trainer(overfit_batches=...)`` brings a sampler of its own.
        """
        row, valid = (padded, True) if isinstance(padded, int) else padded
        sample = self._dataset.sample(row, 0)
        if not valid and "dropped" in sample:
            sample = {**sample, "dropped": []}
        return {**sample, "valid": torch.tensor(valid and sample.get("valid", True))}
