"""The plan of the stream at internet scale: 400 million samples, on lists of shards, without a byte of data."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from farl_lightning.datasets import stream as stream_module
from farl_lightning.datasets.plan import (
    Segment,
    UnitOrder,
    choose_parts,
    first_position,
    redistribute,
    segments_of,
)
from farl_lightning.datasets.source import Entry, Replica
from farl_lightning.datasets.stream import ShardStream
from farl_lightning.datasets.tar import RawSample

SHARDS, SAMPLES = 40_000, 10_000
NODES, RANKS, WORKERS = 64, 8, 6
STREAMS = NODES * RANKS * WORKERS
BLOCK = 2_000  # the shuffle buffer; whole blocks fit into a shard


class Cluster:
    """All streams of a run, each reading ``count`` samples at a time; keeps which samples of each unit were read."""

    def __init__(self, positions):
        self.queues = [segments_of(position) for position in positions]

    def advance(self, stream, count):
        """Read on, and return the (unit, first, last) stretches that were read."""
        read = []
        while count:
            head = self.queues[stream][0]
            here = min(count, SAMPLES - head.offset - head.emitted)
            first = head.offset + head.emitted
            read.append((head.unit, first, first + here))
            count -= here
            self._move(stream, head, first + here)
        return read

    def _move(self, stream, head, done):
        unit, offset = (head.unit + head.step, 0) if done == SAMPLES else (head.unit, done - done % BLOCK)
        if head.stop is not None and unit >= head.stop:
            self.queues[stream].pop(0)
            return
        emitted = 0 if done == SAMPLES else done % BLOCK
        self.queues[stream][0] = Segment(unit, head.step, head.stop, offset, emitted, last=unit if emitted else -1)

    def positions(self):
        return [{"parts": 1, "segments": [segment.to_dict() for segment in queue]} for queue in self.queues]


def advance_all(cluster, counts, seen, ends):
    """Let every stream read, and check that each unit is read in order: nothing twice, nothing left out."""
    for stream in range(len(cluster.queues)):
        for unit, first, last in cluster.advance(stream, counts[stream]):
            assert ends[unit] == first, (unit, first)
            ends[unit] = last
            seen[stream] += last - first


def start(streams=STREAMS):
    return Cluster([first_position(stream, streams, 1) for stream in range(streams)])


def test_one_pass_is_disjoint_complete_and_balanced_within_a_shard():
    began = time.perf_counter()
    assert choose_parts(SHARDS, STREAMS) == 1
    order, owners = UnitOrder(SHARDS, 1, seed=0), np.full(SHARDS, -1)
    shares = np.zeros(STREAMS, dtype=np.int64)
    for stream in range(STREAMS):
        (segment,) = segments_of(first_position(stream, STREAMS, 1))
        for unit in range(segment.unit, SHARDS, segment.step):
            shard, part = order[unit]
            assert (part, owners[shard]) == (0, -1)
            owners[shard] = stream
            shares[stream] += 1
    assert (owners >= 0).all()
    assert shares.max() - shares.min() == 1
    per_rank = shares.reshape(NODES * RANKS, WORKERS).sum(1)
    assert per_rank.max() - per_rank.min() <= WORKERS
    assert time.perf_counter() - began < 10


def test_passes_differ_and_streams_run_on_into_the_next_one():
    order = UnitOrder(SHARDS, 1, seed=0)
    first = [order[unit][0] for unit in range(SHARDS)]
    second = [order[SHARDS + unit][0] for unit in range(SHARDS)]
    assert sorted(first) == sorted(second) == list(range(SHARDS))
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 20
    segment = Segment(STREAMS - 1, STREAMS)
    units = [segment.unit + k * segment.step for k in range(15)]
    assert units[-1] > SHARDS  # no stream waits for the others at the end of a pass


def test_the_state_of_a_worker_stays_the_same_size():
    cluster, sizes = start(), []
    for count in (1, 9_999, 123_456, 10_000_000):
        cluster.advance(7, count)
        position = cluster.positions()[7]
        sizes.append(len(json.dumps(position)))
        assert len(position["segments"]) == 1
    assert max(sizes) < 200


@pytest.mark.parametrize("uneven", [False, True], ids=["in step", "some workers ahead"])
def test_losing_eight_nodes_and_getting_them_back_loses_and_repeats_nothing(uneven):
    """64 nodes read about a third of a pass, 56 of them another third, then 64 again until the pass is over."""
    began = time.perf_counter()
    ends = np.zeros(3 * SHARDS, dtype=np.int64)
    generator = np.random.default_rng(0)
    cluster = start()
    for nodes, share in ((NODES, 0.3), (NODES - 8, 0.35), (NODES, 0.6)):
        streams = nodes * RANKS * WORKERS
        cluster = Cluster(redistribute(cluster.positions(), streams))
        assert max(len(queue) for queue in cluster.queues) <= (6 if uneven else 3)
        count = int(share * SHARDS * SAMPLES / streams)
        spread = generator.integers(0, 2 * SAMPLES, streams) if uneven else np.zeros(streams, dtype=np.int64)
        seen = np.zeros(streams, dtype=np.int64)
        advance_all(cluster, spread + count, seen, ends)
        if not uneven:
            assert seen.max() == seen.min()
    assert (ends[:SHARDS] == SAMPLES).all()  # the first pass is complete; what lies behind has no hole in a shard
    assert ends.sum() >= SHARDS * SAMPLES
    assert time.perf_counter() - began < 20


def test_restarts_without_progress_do_not_pile_up_work():
    cluster = start()
    for stream in range(STREAMS):
        cluster.advance(stream, 12_345)
    for nodes in (56, 64, 55, 63, 64, 48, 64):
        cluster = Cluster(redistribute(cluster.positions(), nodes * RANKS * WORKERS))
    assert sum(len(queue) for queue in cluster.queues) == 2 * STREAMS  # each began one shard, and has a tail
    assert max(len(queue) for queue in cluster.queues) <= 3


class Count:
    """Makes a sample of the number of its place in the shard."""

    def pictures(self, raw, shard):
        return [(shard, raw.ordinal)]

    def make(self, picture, epoch):
        return picture


def collate(samples):
    return {"key": samples}


def _source(rank, nodes):
    names = [f"data/split_{shard // 1_250:05d}/{shard:05d}.tar" for shard in range(SHARDS)]
    replica = Replica(rank, nodes * RANKS)
    return ShardStream(
        names,
        Count(),
        collate,
        batch_size=500,
        samples_per_epoch=SHARDS * SAMPLES,
        num_workers=WORKERS,
        shuffle_buffer=BLOCK,
        replica=replica,
    )


def test_the_stream_itself_at_this_scale_reads_what_the_plan_says(monkeypatch):
    """Two workers of the real stream, shards without bytes, before and after the loss of eight nodes."""
    opened = []

    def read(shard, first, part, max_bytes):
        opened.append(shard)
        for ordinal in range(first, SAMPLES):
            yield RawSample(key=str(ordinal), files={}, ordinal=ordinal, fault=None)

    monkeypatch.setattr(stream_module, "read_shard", read)
    old = [[first_position(r * WORKERS + w, STREAMS, 1) for w in range(WORKERS)] for r in range(NODES * RANKS)]
    source = _source(3, NODES)
    own = source.first_positions(0)
    assert own == old[3]
    before = []
    worker = source.batches(0, WORKERS, Entry(0, own))
    for _ in range(9):
        delivery = next(worker)
        before += delivery.batch["key"]
    old[3][0] = delivery.position
    assert len(json.dumps(delivery.position)) < 200
    new = [_source(rank, NODES - 8).restore(old) for rank in range(2)]
    heir = next(p for positions in new for p in positions if p["segments"][0]["unit"] == 3 * WORKERS)
    resumed = _source(0, NODES - 8)
    after = []
    worker = resumed.batches(0, WORKERS, Entry(0, [heir, *new[0][1:]]))
    for _ in range(11):
        after += next(worker).batch["key"]
    name = before[0][0]
    assert {shard for shard, _ in before} == {name}
    assert sorted(before + after) == [(name, ordinal) for ordinal in range(SAMPLES)]
    assert len(set(opened)) <= 3
