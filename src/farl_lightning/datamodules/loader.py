"""The training loader: it can stop after any batch and go on from there, in any number of processes and workers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from farl_lightning.datasets.source import BatchSource, Delivery, Entry, Replica
from farl_lightning.errors import CheckpointError, DataError
from farl_lightning.functional.distributed import world_size

STATE_VERSION = 1


class ResumableLoader:
    """Iterates over the batches of an epoch and knows, for every process, where it stands.

    Each batch brings the position of the stream that made it (a ``Delivery`` of a ``BatchSource``); the
    state is the positions of the batches that were really handed out, whatever workers have prefetched. torchdata's
    StatefulDataLoader is not used: it restores only into the same number of workers, and one process at a time.

    How Lightning meets it: it has a length (without one, Lightning fetches a batch ahead and the saved position is one
    too far); ``sampler.set_epoch`` is called before every epoch, but *after* the first ``iter()``, so an iteration
    decides only at its first batch where it begins; ``state_dict`` is called by every process while rank 0 saves, and
    returns the states of all of them.

    Args:
        source: Makes the batches of this process.
        replica: The share of this process.
        num_workers: Worker processes; 0 works in the main process.
        pin_memory: Copy batches to page-locked memory.
        prefetch_factor: Batches that each worker keeps ready.
        timeout: Seconds after which a worker that delivers nothing ends the run; 0 waits for ever.
        repeat: Deliver the very same batches in every epoch, for ``Trainer(overfit_batches=...)``.
    """

    def __init__(
        self,
        source: BatchSource,
        replica: Replica = Replica(),  # noqa: B008  -- an immutable tuple
        num_workers: int = 0,
        pin_memory: bool = False,
        prefetch_factor: int = 2,
        timeout: float = 0.0,
        repeat: bool = False,
    ) -> None:
        self.source = source
        self.sampler = _EpochSetter(self)
        self.num_workers = num_workers
        self._replica = replica
        self._options: dict[str, Any] = {"pin_memory": pin_memory}
        if num_workers:
            self._options |= {"prefetch_factor": prefetch_factor, "timeout": timeout}
        self._repeat = repeat
        self._epoch = 0
        self._position_epoch = 0
        self._delivered = 0
        self._positions: list[dict[str, Any]] = []
        self._resume = False

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch on every process."""
        return self.source.batches_per_epoch

    def __iter__(self) -> Iterator[Any]:
        """Iterate over an epoch, or over the rest of it after :meth:`load_state_dict`.

        The first batch, not this call, decides which epoch it is.

        Raises:
            DataError: If a worker delivers nothing in time; names the process, the batch and the shard.
        """
        deliveries = self._start()
        while (delivery := self._next(deliveries)) is not None:
            self._positions[delivery.slot] = delivery.position
            self._delivered += 1
            yield delivery.batch

    def _next(self, deliveries: Iterator[Delivery]) -> Delivery | None:
        """Return the next delivery; None at the end."""
        try:
            return next(deliveries, None)
        except RuntimeError as error:
            if "timed out" not in str(error):
                raise
            slot = self._delivered % max(self.num_workers, 1)
            raise DataError(
                f"rank {self._replica.rank}: worker {slot} of the loader delivered nothing for "
                f"{self._options['timeout']:.0f} s; it was to make batch {self._delivered} of epoch "
                f"{self._position_epoch}, {self.source.describe(self._positions[slot])}. Is the file system or the "
                "server of the shards still there? Resume from the last checkpoint when it is."
            ) from error

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration.

        Args:
            epoch: Counted from 0.
        """
        self._epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Return the positions of all processes as plain data; every process has to call it."""
        own = {
            "rank": self._replica.rank,
            "epoch": self._position_epoch,
            "delivered": self._delivered,
            "positions": list(self._positions),
        }
        return {"version": STATE_VERSION, "source": self.source.fingerprint, "processes": _gather(own)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take this process's part of a saved state, or its share if there were more or fewer processes or workers.

        Data that are not the same any more cannot be entered where they were left: a warning says so, and training goes
        on at the beginning of a fresh pass.

        Args:
            state: As :meth:`state_dict` returned it.

        Raises:
            CheckpointError: If a newer version of this package wrote the state.
        """
        if state.get("version") != STATE_VERSION:
            raise CheckpointError(
                f"the checkpoint's data position has version {state.get('version')}, this package reads "
                f"{STATE_VERSION}; resume with the version that wrote it"
            )
        processes = sorted({entry["rank"]: entry for entry in state["processes"]}.values(), key=_rank)
        own = processes[self._replica.rank % len(processes)]
        self._epoch = self._position_epoch = own["epoch"]
        self._delivered, self._resume = own["delivered"], True
        self._positions = self._restored([entry["positions"] for entry in processes], state["source"])

    def _restored(self, processes: list[list[dict[str, Any]]], fingerprint: str) -> list[dict[str, Any]]:
        """Return this process's positions, or fresh ones when the saved ones are of no use."""
        if fingerprint != self.source.fingerprint:
            warnings.warn(
                f"the training data changed since the checkpoint was written ({fingerprint} then, "
                f"{self.source.fingerprint} now): training goes on with a fresh pass over the new data",
                stacklevel=3,
            )
        elif all(processes):
            return self.source.restore(processes)
        return self.source.first_positions(self._epoch)

    def _start(self) -> Iterator[Delivery]:
        """Begin the epoch that was set: where it was left if it is the one that was restored, else at its start."""
        if not (self._resume and self._epoch == self._position_epoch):
            self._delivered = 0
        self._resume, self._position_epoch = False, self._epoch
        if self._repeat or not self._positions:
            self._positions = self.source.first_positions(0 if self._repeat else self._epoch)
        self.source.begin(Entry(self._delivered, list(self._positions)))
        # workers draw a seed nobody uses: from a generator of its own, to leave the global one untouched
        generator = torch.Generator().manual_seed(0)
        options = {"num_workers": self.num_workers, "generator": generator, **self._options}
        return iter(DataLoader(self.source, batch_size=None, collate_fn=_as_it_is, **options))


class _EpochSetter:
    """What Lightning takes for a sampler: it calls ``set_epoch`` on it."""

    def __init__(self, loader: ResumableLoader) -> None:
        self._loader = loader

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch on to the loader."""
        self._loader.set_epoch(epoch)


def _as_it_is(delivery: Any) -> Any:
    """Stand in for torch's default, which would walk through all that a batch holds."""
    return delivery


def _rank(entry: dict[str, Any]) -> int:
    """Return the rank of a saved process."""
    return int(entry["rank"])


def _gather(own: dict[str, Any]) -> list[dict[str, Any]]:
    """Collect one object per process; only the own one when there is a single process."""
    if world_size() == 1:
        return [own]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, own)
    return gathered
