"""Who reads what, and in which order: the arithmetic behind the stream. No file is touched here.

A shard, or a part of one, is a *unit*. Units are numbered without end: number q is place ``q % U`` of pass
``q // U``, where U is the number of units and every pass has its own permutation, keyed by (seed, pass). S streams
(processes times workers) deal these numbers out: stream s reads s, s + S, s + 2S, ... Nothing overlaps within a pass,
nobody is idle, and a stream that gets ahead of the others simply begins the next pass. Epochs are stretches of this
sequence.

A *segment* is a run of such numbers with how far it has been read. A stream's position is a list of segments of which
the last has no end; there is more than one only after training went on with other numbers of processes or workers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch

from farl_lightning.functional.random import keyed_generator


@dataclasses.dataclass
class Segment:
    """Unit numbers ``unit, unit + step, ...`` below ``stop``, and how far they have been read.

    Attributes:
        unit: Unit in which the current block of the shuffle begins.
        step: Distance to the next unit.
        stop: Where the segment ends (exclusive); None has no end.
        offset: Number, within its shard, of the first sample of the current block.
        emitted: Samples of the current block that were used already.
        face: Faces of the next sample that were used already.
        last: Unit in which the current block ends; only meaningful when something of it was used.
    """

    unit: int
    step: int
    stop: int | None = None
    offset: int = 0
    emitted: int = 0
    face: int = 0
    last: int = -1

    @property
    def touched(self) -> bool:
        """Whether any of it was used."""
        return self.offset > 0 or self.emitted > 0 or self.face > 0

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return dataclasses.asdict(self)


class UnitOrder:
    """The endless sequence of units.

    Args:
        num_shards: Number of shards.
        parts: Into how many parts each shard is divided, by the remainder of the sample's number.
        seed: Key of the permutations.
    """

    def __init__(self, num_shards: int, parts: int, seed: int) -> None:
        self.parts = parts
        self.size = num_shards * parts
        self._seed = seed
        self._pass = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def __getitem__(self, unit: int) -> tuple[int, int]:
        """Return the shard and the part that a unit number stands for."""
        number, place = divmod(unit, self.size)
        if number != self._pass:
            self._order = torch.randperm(self.size, generator=keyed_generator(self._seed, "units", number))
            self._pass = number
        return divmod(int(self._order[place]), self.parts)


def choose_parts(num_shards: int, num_streams: int) -> int:
    """Choose into how many parts each shard is divided: 1 if there is a shard for every stream, else just enough.

    Up to twice the least number is considered, and the most even deal taken; every part costs one more reading of the
    shard's headers.

    Args:
        num_shards: Number of shards.
        num_streams: Processes times workers.
    """
    if num_shards >= num_streams:
        return 1
    least = math.ceil(num_streams / num_shards)
    return min(range(least, 2 * least + 1), key=lambda parts: (_idle_share(num_shards * parts, num_streams), parts))


def first_position(stream: int, num_streams: int, parts: int, start: int = 0) -> dict[str, Any]:
    """Return the position of a stream that has read nothing.

    Args:
        stream: Number of the stream.
        num_streams: Number of all streams.
        parts: Parts of each shard.
        start: Unit number at which the streams begin together.
    """
    return {"parts": parts, "segments": [Segment(start + stream, num_streams).to_dict()]}


def segments_of(position: dict[str, Any]) -> list[Segment]:
    """Return the segments of a position.

    Args:
        position: Plain data, as :func:`first_position` and :func:`redistribute` return it.
    """
    return [Segment(**segment) for segment in position["segments"]]


def redistribute(positions: Sequence[dict[str, Any]], num_streams: int) -> list[dict[str, Any]]:
    """Hand the work of some streams over to another number of streams; nothing is lost and nothing read twice.

    First come the stretches that were begun (each goes on where it was left), then single units that a faster stream
    would have left behind, in their order; they are dealt out in turn. From the first number that no stream has
    reached, all go on together. With equal numbers everybody keeps what he has.

    Args:
        positions: One per old stream, in their order.
        num_streams: Number of new streams.

    Returns:
        One position per new stream.
    """
    if len(positions) == num_streams:
        return list(positions)
    begun: list[Segment] = []
    tails: list[Segment] = []
    for position in positions:
        *queued, tail = segments_of(position)
        begun += queued
        if tail.touched:
            last = max(tail.unit, tail.last)
            begun.append(dataclasses.replace(tail, stop=last + 1))
            tail = Segment(last + tail.step, tail.step)
        tails.append(tail)
    # everything above the last number that was reached is still to be read, and by one stream each
    front = max(tail.unit - tail.step for tail in tails) + 1
    behind = sorted(unit for tail in tails for unit in range(tail.unit, front, tail.step))
    work = [*begun, *(Segment(unit, 1, unit + 1) for unit in behind)]
    return [
        {
            "parts": positions[0]["parts"],
            "segments": [segment.to_dict() for segment in [*work[s::num_streams], Segment(front + s, num_streams)]],
        }
        for s in range(num_streams)
    ]


def _idle_share(units: int, streams: int) -> float:
    """Return the share of a pass by which some streams run ahead of the others."""
    return -units % streams / units
