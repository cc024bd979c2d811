"""What a training loader reads from: an endless, keyed sequence of batches that can be entered at any position."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch.utils.data import IterableDataset, get_worker_info


class Replica(NamedTuple):
    """Which share of the data a process reads: number ``rank`` of ``world_size`` data-parallel processes."""

    rank: int = 0
    world_size: int = 1


class Delivery(NamedTuple):
    """A batch, and where the stream that made it stands now."""

    batch: Any
    slot: int
    """Which entry of the list of positions this batch moves on."""
    position: dict[str, Any]
    """Plain data: the stream's position right after this batch."""


class Entry(NamedTuple):
    """Where an iteration begins: so many batches of the epoch are behind us, the streams stand there."""

    delivered: int
    positions: list[dict[str, Any]]


class BatchSource(IterableDataset[Delivery], ABC):
    """Makes the batches of one process; the position travels with every batch, so nothing else has to be saved.

    Batch number j of an epoch is made by worker ``(j - first) % num_workers``, where ``first`` is the batch at which
    the iteration began: the order in which torch's DataLoader asks its workers.

    Attributes:
        batches_per_epoch: Length of an epoch on every process.
        fingerprint: Changes whenever old positions stop making sense, as with other data or another seed.
    """

    batches_per_epoch: int
    fingerprint: str

    @abstractmethod
    def first_positions(self, epoch: int) -> list[dict[str, Any]]:
        """Return the positions of a process that starts at this epoch without any history.

        Args:
            epoch: Counted from 0.
        """

    @abstractmethod
    def restore(self, processes: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """Return this process's positions, given those of every process when the checkpoint was written.

        The number of processes and workers may be another one now.

        Args:
            processes: One list of positions per process, in the order of the ranks.
        """

    @abstractmethod
    def batches(self, worker: int, num_workers: int, entry: Entry) -> Iterator[Delivery]:
        """Yield this worker's batches up to the end of the epoch.

        Args:
            worker: Number of this worker.
            num_workers: How many workers there are, at least 1.
            entry: Where the iteration begins.
        """

    def describe(self, position: dict[str, Any]) -> str:
        """Say where a position lies, for messages; a source that knows files names them.

        Args:
            position: Plain data, of one stream.
        """
        return str(position)

    def begin(self, entry: Entry) -> None:
        """Set where the next iteration begins; takes effect in workers that start afterwards.

        Args:
            entry: Where the iteration begins.
        """
        self._entry = entry

    def __iter__(self) -> Iterator[Delivery]:
        """Iterate over the rest of the epoch, in a worker or in the main process."""
        info = get_worker_info()
        worker, num_workers = (info.id, info.num_workers) if info else (0, 1)
        yield from self.batches(worker, num_workers, self._entry)
