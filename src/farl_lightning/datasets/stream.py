"""The training stream over shards: shuffled in blocks, batched, resumable anywhere, and indifferent to bad data."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch

from farl_lightning.datasets.bad_sample import BadSample
from farl_lightning.datasets.plan import (
    Segment,
    UnitOrder,
    choose_parts,
    first_position,
    redistribute,
    segments_of,
)
from farl_lightning.datasets.shard_list import shard_names
from farl_lightning.datasets.source import BatchSource, Delivery, Entry, Replica
from farl_lightning.datasets.tar import MAX_FILE_BYTES, RawSample, read_shard
from farl_lightning.errors import ConfigError, DataError
from farl_lightning.functional.random import keyed_generator
from farl_lightning.types import Drop

HOPELESS = 100_000
"""So many bad samples in a row end a run even when the pass over all shards is not complete."""

_EMPTY_UNITS = 64  # so many units in a row without any file: not the luck of small shards that are divided in parts


class SampleMaker(Protocol):
    """Turns undecoded samples into training samples, in two steps: cheap ones first, so that a block can be re-read."""

    def pictures(self, raw: RawSample, shard: str) -> Sequence[Any]:
        """Return what is to be made of a sample: one entry, or one per face.

        Args:
            raw: The files.
            shard: Name of the shard.

        Raises:
            BadSample: If it cannot be used.
        """
        ...

    def make(self, picture: Any, epoch: int) -> Any:
        """Decode and augment one entry.

        Args:
            picture: One of :meth:`pictures`; has a ``key``.
            epoch: How often the whole set was read before.

        Raises:
            BadSample: If it cannot be used.
        """
        ...


class ShardStream(BatchSource):
    """Batches from tar shards for one process; see :mod:`farl_lightning.datasets.plan` for who reads what.

    Each stream reads blocks of ``shuffle_buffer`` undecoded samples in the order of its shards (less where a pass ends,
    so that no block holds a sample twice) and shuffles each block by key. While one block is used up the next one is
    read, sample by sample: at most ``shuffle_buffer`` samples are held, and reading never pauses. A position is
    therefore a few numbers: where the block begins, and how much of it is used.

    What cannot be used is skipped and listed in the ``dropped`` entry of the batch during which it was met, once.

    Args:
        shards: Paths and URLs.
        maker: Makes samples of a shard's files.
        collate: Makes a batch, a dict, of a list of samples.
        batch_size: Samples per batch and process.
        samples_per_epoch: Length of an epoch over all processes; rounded down to whole batches on every process.
        num_workers: Worker processes of this process's loader (0 or 1: one stream).
        shuffle_buffer: Undecoded samples per stream among which the order is drawn; 1 keeps the order of the shards.
        seed: Key of all orders.
        replica: The share of this process.
        max_file_bytes: Largest file that is read from a shard.

    Raises:
        ConfigError: If a number cannot work.
    """

    def __init__(
        self,
        shards: Sequence[str],
        maker: SampleMaker,
        collate: Callable[[list[Any]], Any],
        *,
        batch_size: int,
        samples_per_epoch: int,
        num_workers: int = 0,
        shuffle_buffer: int = 1000,
        seed: int = 0,
        replica: Replica = Replica(),  # noqa: B008  -- an immutable tuple
        max_file_bytes: int = MAX_FILE_BYTES,
    ) -> None:
        self.batches_per_epoch = samples_per_epoch // (batch_size * replica.world_size)
        if self.batches_per_epoch < 1:
            raise ConfigError(
                f"samples_per_epoch {samples_per_epoch} does not fill one batch of {batch_size} on "
                f"{replica.world_size} process(es)"
            )
        if shuffle_buffer < 1:
            raise ConfigError(f"shuffle_buffer is {shuffle_buffer}; it has to be at least 1 (which does not shuffle)")
        self.shards, self.names = list(shards), shard_names(shards)
        self.maker, self._collate = maker, collate
        self.seed, self.shuffle_buffer, self.max_file_bytes = seed, shuffle_buffer, max_file_bytes
        self._batch_size, self._replica = batch_size, replica
        self._workers = max(num_workers, 1)
        self._streams = self._workers * replica.world_size
        self._parts = choose_parts(len(self.shards), self._streams)
        digest = hashlib.blake2b("\n".join(self.names).encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
        self.fingerprint = f"stream/{len(self.shards)} shards/{digest}/{seed}/{shuffle_buffer}"

    def first_positions(self, epoch: int) -> list[dict[str, Any]]:
        """Return positions at the start of the pass whose number is the epoch's.

        Args:
            epoch: Counted from 0.
        """
        first, start = self._replica.rank * self._workers, epoch * len(self.shards) * self._parts
        return [first_position(first + w, self._streams, self._parts, start) for w in range(self._workers)]

    def restore(self, processes: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """Return this process's share of saved positions, by the rule of ``plan.redistribute``.

        Args:
            processes: One list of positions per process.
        """
        shares = redistribute([position for own in processes for position in own], self._streams)
        return shares[self._replica.rank * self._workers :][: self._workers]

    def describe(self, position: dict[str, Any]) -> str:
        """Name the shard that is read at a position.

        Args:
            position: Of one stream.
        """
        segment = segments_of(position)[0]
        shard, _ = UnitOrder(len(self.shards), position["parts"], self.seed)[segment.unit]
        return f"in or after shard '{self.shards[shard]}', sample {segment.offset + segment.emitted}"

    def batches(self, worker: int, num_workers: int, entry: Entry) -> Iterator[Delivery]:
        """Yield the batches of the stream whose turn it is when this worker is asked first.

        Args:
            worker: Number of this worker.
            num_workers: How many workers there are.
            entry: Where the iteration begins.

        Raises:
            DataError: If a whole pass has no usable sample.
        """
        slot = (entry.delivered + worker) % num_workers
        stream = _Stream(self, entry.positions[slot])
        for _ in range(entry.delivered + worker, self.batches_per_epoch, num_workers):
            dropped: list[Drop] = []
            samples = [stream.next_sample(dropped) for _ in range(self._batch_size)]
            yield Delivery({**self._collate(samples), "dropped": dropped}, slot, stream.position)


class _Held(NamedTuple):
    """An undecoded sample."""

    raw: RawSample
    shard: str
    """Name of its shard."""
    number: int
    """The pass it belongs to."""


class _Block:
    """Samples that are shuffled together."""

    def __init__(self, segment: int, unit: int, offset: int) -> None:
        self.segment, self.unit, self.offset = segment, unit, offset
        self.samples: list[_Held | None] = []
        """None once used."""
        self.drops: list[Drop] = []
        self.is_entry = False
        """Whether its segment begins here, and with it whatever was used of the block before."""
        self.last = unit
        self.units_before = 0
        """How many units had been opened when the block began."""
        self.end: tuple[int, int] | None = None
        """Unit and offset at which the next block of the segment begins; None when the segment ends here."""


class _Stream:
    """One stream at work.

    Args:
        source: The settings.
        position: Where to begin.
    """

    def __init__(self, source: ShardStream, position: dict[str, Any]) -> None:
        self._source, self._parts = source, position["parts"]
        self._order = UnitOrder(len(source.shards), self._parts, source.seed)
        self._segments = segments_of(position)
        self._patience = -(-self._order.size // self._segments[-1].step) + 1  # a pass, in units of this stream
        self._opened = self._opened_at_good = 0
        self._bad: Counter[str] = Counter()
        self._example: Drop | None = None
        self._fault: Drop | None = None
        self._blocks = self._read_blocks()
        self._ready: _Block | None = None
        self._block = _Block(0, self._segments[0].unit, self._segments[0].offset)
        self._shuffled: list[int] = []
        self._emitted, self._face = 0, 0
        self._started = False
        self._pictures: Sequence[Any] = ()

    @property
    def position(self) -> dict[str, Any]:
        """Where the stream stands now, as plain data."""
        block = self._block
        rest = self._segments[block.segment :]
        if not self._started:
            own = rest[0]
        elif self._emitted < len(block.samples):
            progress = {"emitted": self._emitted, "face": self._face, "last": block.last}
            own = Segment(block.unit, rest[0].step, rest[0].stop, block.offset, **progress)
        elif block.end is None:
            return {"parts": self._parts, "segments": [segment.to_dict() for segment in rest[1:]]}
        else:
            own = Segment(block.end[0], rest[0].step, rest[0].stop, block.end[1])
        return {"parts": self._parts, "segments": [segment.to_dict() for segment in [own, *rest[1:]]]}

    def next_sample(self, dropped: list[Drop]) -> Any:
        """Return the next usable sample and list what was skipped before it.

        Args:
            dropped: Is added to.
        """
        while True:
            picture, number = self._next_picture(dropped)
            try:
                sample = self._source.maker.make(picture, number)
            except BadSample as bad:
                self._drop(bad.to_drop(picture.key), dropped)
                continue
            self._opened_at_good = self._block.units_before
            self._bad.clear()
            return sample

    def _next_picture(self, dropped: list[Drop]) -> tuple[Any, int]:
        """Return the next entry, undecoded, and the number of its pass."""
        while True:
            held = self._current(dropped)
            if not self._pictures:
                self._read_ahead()
                self._pictures = self._open(held, dropped)
            faces, face = self._pictures, self._face
            self._face += 1
            if self._face >= len(faces):
                self._block.samples[self._shuffled[self._emitted]] = None
                self._emitted, self._face, self._pictures = self._emitted + 1, 0, ()
            if face < len(faces):
                return faces[face], held.number

    def _current(self, dropped: list[Drop]) -> _Held:
        """Return the sample whose turn it is."""
        while self._emitted >= len(self._block.samples):
            self._next_block(dropped)
        held = self._block.samples[self._shuffled[self._emitted]]
        assert held is not None  # noqa: S101  -- only used ones are None
        return held

    def _open(self, held: _Held, dropped: list[Drop]) -> Sequence[Any]:
        """Return the entries of a sample; none if it is a bad one."""
        raw, shard, _ = held
        try:
            if raw.fault is not None:
                raise raw.fault
            return self._source.maker.pictures(raw, shard)
        except BadSample as bad:
            self._drop(bad.to_drop(f"{shard}/{raw.key}"), dropped)
            return ()

    def _next_block(self, dropped: list[Drop]) -> None:
        """Take the next block, reading what is still missing of it."""
        while self._ready is None:
            self._ready = next(self._blocks)
        block, self._ready = self._ready, None
        key = keyed_generator(self._source.seed, "block", block.unit, block.offset)
        self._shuffled = torch.randperm(len(block.samples), generator=key).tolist()
        self._emitted = self._face = 0
        if block.is_entry:  # it may have been used in part before
            entry = self._segments[block.segment]
            self._emitted, self._face = min(entry.emitted, len(block.samples)), entry.face
            block.samples = self._without_used(block)
        if self._emitted == 0 and self._face == 0:  # else they were reported with the block's first sample
            for drop in block.drops:
                self._drop(drop, dropped)
        self._block, self._started = block, True

    def _read_ahead(self) -> None:
        """Read one more sample of the next block, in place of the one that is being used."""
        if self._ready is None:
            self._ready = next(self._blocks)

    def _without_used(self, block: _Block) -> list[_Held | None]:
        """Return the samples of a block, let go of those that were used before."""
        used = set(self._shuffled[: self._emitted])
        return [None if number in used else held for number, held in enumerate(block.samples)]

    def _read_blocks(self) -> Iterator[_Block | None]:
        """Read on, one sample a step; a step that completes a block yields it."""
        for index, segment in enumerate(self._segments):
            block = self._new_block(index, segment.unit, segment.offset)
            block.is_entry = True
            unit, first = segment.unit, segment.offset
            while segment.stop is None or unit < segment.stop:
                block.last = unit
                for held in self._read_unit(unit, first):
                    block.samples.append(held)
                    if len(block.samples) < self._source.shuffle_buffer:
                        yield None
                        continue
                    block.end = unit, held.raw.ordinal + 1
                    yield block
                    block = self._new_block(index, *block.end)
                self._close_unit(unit, block)
                unit, first = unit + segment.step, 0
                ends_pass = unit // self._order.size > block.last // self._order.size
                if ends_pass and block.samples and (segment.stop is None or unit < segment.stop):
                    block.end = unit, 0
                    yield block
                    block = self._new_block(index, unit, 0)
            yield block

    def _new_block(self, index: int, unit: int, offset: int) -> _Block:
        """Begin a block."""
        block = _Block(index, unit, offset)
        block.units_before = self._opened
        return block

    def _read_unit(self, unit: int, first: int) -> Iterator[_Held]:
        """Read the samples of one unit; what is wrong with the shard is kept for :meth:`_close_unit`."""
        source, (shard, part) = self._source, self._order[unit]
        name, number = source.names[shard], unit // self._order.size
        self._opened += 1
        try:
            for raw in read_shard(source.shards[shard], first, (part, self._parts), source.max_file_bytes):
                yield _Held(raw, name, number)
        except BadSample as bad:
            self._fault = bad.to_drop(name)

    def _close_unit(self, unit: int, block: _Block) -> None:
        """List what is wrong with a shard, once however many parts it has; give up if nothing can be read at all."""
        if self._fault is not None and self._order[unit][1] == 0:
            block.drops.append(self._fault)
        self._fault = None
        if not block.samples and self._opened - block.units_before > max(self._patience, _EMPTY_UNITS):
            raise self._hopeless(Counter(drop["reason"] for drop in block.drops), next(iter(block.drops), None))

    def _drop(self, drop: Drop, dropped: list[Drop]) -> None:
        """List a skipped sample, and give up when there is nothing else."""
        dropped.append(drop)
        if not self._bad:
            self._example = drop
        self._bad[drop["reason"]] += 1
        passed = self._block.units_before - self._opened_at_good
        if passed > self._patience or self._bad.total() > HOPELESS:
            raise self._hopeless(self._bad, self._example)

    def _hopeless(self, counts: Counter[str], example: Drop | None) -> DataError:
        """Say what was found instead of usable samples."""
        found = ", ".join(f"{count} x {reason}" for reason, count in counts.most_common()) or "empty shards"
        first = f"; for example {example['key']}: {example['reason']} {example['detail']}" if example else ""
        return DataError(
            f"no usable sample in a whole pass over this stream's part of {len(self._source.shards)} shards: {found}"
            f"{first}. Look at the data with: farl-lightning data check"
        )
