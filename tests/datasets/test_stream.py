"""The stream: every sample once a pass, exact positions, any number of processes and workers, bad data listed."""

from __future__ import annotations

import time
import tracemalloc
from collections import Counter
from typing import NamedTuple

import pytest
import torch
from torch.utils.data import DataLoader

from farl_lightning.datasets.bad_sample import NOT_AN_IMAGE, SHARD_MISSING, BadSample
from farl_lightning.datasets.plan import UnitOrder, choose_parts, first_position, redistribute, segments_of
from farl_lightning.datasets.shard_list import list_shards
from farl_lightning.datasets.source import Entry, Replica
from farl_lightning.datasets.stream import ShardStream
from farl_lightning.errors import ConfigError, DataError
from farl_lightning.testing.shards import SHARD_FAULTS, write_fake_laion_face


class Face(NamedTuple):
    key: str
    data: bytes


class Bare:
    """Samples are their keys with the pass they belong to; each picture has as many faces as told."""

    def __init__(self, faces: int = 1) -> None:
        self.faces = faces

    def pictures(self, raw, shard):
        return [Face(f"{shard}/{raw.key}{f'#{n}' if n else ''}", raw.files["jpg"]) for n in range(self.faces)]

    def make(self, picture, epoch):
        if not picture.data.startswith(b"\xff\xd8"):
            raise BadSample(NOT_AN_IMAGE)
        return picture.key, epoch


def collate(samples):
    return {"key": samples}


def stream(shards, rank=0, world=1, workers=0, batch_size=3, samples=10**6, buffer=5, seed=0, maker=None, **kwargs):
    return ShardStream(
        [str(shard) for shard in shards],
        maker or Bare(),
        collate,
        batch_size=batch_size,
        samples_per_epoch=samples,
        num_workers=workers,
        shuffle_buffer=buffer,
        seed=seed,
        replica=Replica(rank, world),
        **kwargs,
    )


def take(source, entry, count):
    """The next batches of a process whose workers take turns, with the position after the last one."""
    workers = max(source._workers, 1)
    iterators = [source.batches(worker, workers, entry) for worker in range(workers)]
    positions, got, drops = list(entry.positions), [], []
    for number in range(count):
        delivery = next(iterators[number % workers])
        positions[delivery.slot] = delivery.position
        got.append(delivery.batch["key"])
        drops += delivery.batch["dropped"]
    return got, drops, Entry(entry.delivered + count, positions)


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    return write_fake_laion_face(tmp_path_factory.mktemp("fake"), shards=5, samples=12)


def test_one_stream_sees_every_sample_once_a_pass_in_new_orders(fake):
    source = stream(fake.shards, batch_size=10)
    batches, drops, _ = take(source, Entry(0, source.first_positions(0)), 12)
    keys = [key for batch in batches for key, _ in batch]
    assert drops == []
    assert sorted(keys[:60]) == sorted(keys[60:]) == sorted(fake.keys)
    assert keys[:60] != keys[60:] != fake.keys
    assert [epoch for batch in batches for _, epoch in batch] == [0] * 60 + [1] * 60


def test_the_order_depends_on_seed_and_epoch_only(fake):
    def keys(seed, epoch):
        source = stream(fake.shards, seed=seed)
        return take(source, Entry(0, source.first_positions(epoch)), 10)[0]

    assert keys(0, 0) == keys(0, 0)
    assert len({str(keys(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_buffer_of_one_keeps_the_order_inside_a_shard(fake):
    source = stream(fake.shards[:1], buffer=1, batch_size=12)
    batches, _, _ = take(source, Entry(0, source.first_positions(0)), 1)
    assert [key for key, _ in batches[0]] == fake.keys[:12]


@pytest.mark.parametrize(("world", "workers"), [(1, 2), (2, 1), (2, 2), (3, 1), (2, 5)])
def test_streams_share_a_pass_without_overlap(fake, world, workers):
    seen = Counter()
    for rank in range(world):
        source = stream(fake.shards, rank, world, workers, batch_size=1)
        batches, _, _ = take(source, Entry(0, source.first_positions(0)), 80)  # one stream has 3 of the 5 shards
        seen.update(sample for batch in batches for sample in batch)
    assert set(seen.values()) == {1}
    assert {key for key, epoch in seen if epoch == 0} == set(fake.keys)


@pytest.mark.parametrize("batches", [1, 4, 7, 19])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("faces", [1, 3])
def test_a_position_continues_exactly(fake, batches, workers, faces):
    source = stream(fake.shards, workers=workers, maker=Bare(faces))
    start = Entry(0, source.first_positions(0))
    whole, _, _ = take(source, start, 30)
    _, _, entry = take(source, start, batches)
    again, _, _ = take(stream(fake.shards, workers=workers, maker=Bare(faces)), entry, 30 - batches)
    assert again == whole[batches:]


def test_a_position_is_small_and_plain(fake):
    source = stream(fake.shards)
    _, _, entry = take(source, Entry(0, source.first_positions(0)), 33)
    assert len(str(entry.positions)) < 200
    values = [value for segment in entry.positions[0]["segments"] for value in segment.values()]
    assert all(value is None or type(value) is int for value in values)


GEOMETRIES = [
    ((1, 1), (2, 1)),
    ((2, 1), (1, 1)),
    ((1, 3), (2, 2)),
    ((2, 2), (1, 3)),
    ((2, 3), (1, 1)),
    ((1, 2), (4, 1)),
]


@pytest.mark.parametrize(("old", "new"), GEOMETRIES)
@pytest.mark.parametrize("steps", [1, 5, 8])
def test_other_numbers_of_processes_and_workers_lose_and_repeat_nothing(fake, old, new, steps):
    seen, positions = Counter(), []
    for rank in range(old[0]):
        source = stream(fake.shards, rank, *old, batch_size=2)
        batches, _, entry = take(source, Entry(0, source.first_positions(0)), steps + rank)  # not even in step
        seen.update(sample for batch in batches for sample in batch)
        positions.append(entry.positions)
    for rank in range(new[0]):
        source = stream(fake.shards, rank, *new, batch_size=2)
        batches, _, _ = take(source, Entry(steps, source.restore(positions)), 60)
        seen.update(sample for batch in batches for sample in batch)
    assert set(seen.values()) == {1}
    assert {key for key, epoch in seen if epoch == 0} == set(fake.keys)


def test_two_changes_of_numbers_in_a_row(fake):
    seen, positions = Counter(), None
    for world, workers, steps in ((2, 2, 3), (3, 1, 2), (1, 1, 70)):
        after = []
        for rank in range(world):
            source = stream(fake.shards, rank, world, workers, batch_size=1)
            begin = source.first_positions(0) if positions is None else source.restore(positions)
            batches, _, entry = take(source, Entry(0, begin), steps)
            seen.update(sample for batch in batches for sample in batch)
            after.append(entry.positions)
        positions = after
    assert set(seen.values()) == {1}
    assert {key for key, epoch in seen if epoch == 0} == set(fake.keys)


def test_redistribute_by_hand():
    # streams 0 and 1 of 2: the first is in the middle of unit 4, the second has not begun unit 1
    first = {"parts": 1, "segments": [{"unit": 4, "step": 2, "offset": 3, "emitted": 2, "last": 6}]}
    positions = [first, first_position(1, 2, 1)]
    (only,) = redistribute(positions, 1)
    begun, *behind, tail = segments_of(only)
    assert (begun.unit, begun.step, begun.stop, begun.offset, begun.emitted) == (4, 2, 7, 3, 2)
    assert [segment.unit for segment in behind] == [1, 3, 5]  # 6 is the last number that was reached
    assert (tail.unit, tail.step, tail.stop) == (7, 1, None)
    assert redistribute(positions, 2) == positions


def test_processes_that_swap_for_workers_keep_their_positions(fake):
    positions = []
    for rank in range(2):
        source = stream(fake.shards, rank, 2, 1)
        positions.append(take(source, Entry(0, source.first_positions(0)), 2)[2].positions)
    assert stream(fake.shards, 0, 1, 2).restore(positions) == [*positions[0], *positions[1]]


@pytest.mark.parametrize(
    ("shards", "streams", "parts"), [(8, 4, 1), (5, 4, 1), (1, 4, 4), (2, 4, 2), (3, 4, 4), (100, 256, 5), (1, 1, 1)]
)
def test_shards_are_divided_only_when_there_are_too_few(shards, streams, parts):
    assert choose_parts(shards, streams) == parts


def test_workers_of_a_real_loader_deliver_what_the_arithmetic_says(fake):
    source = stream(fake.shards, workers=2, samples=30)
    expected, _, _ = take(source, Entry(0, source.first_positions(0)), 10)
    source.begin(Entry(0, source.first_positions(0)))
    deliveries = list(DataLoader(source, batch_size=None, num_workers=2, collate_fn=lambda delivery: delivery))
    assert [delivery.batch["key"] for delivery in deliveries] == expected
    assert [delivery.slot for delivery in deliveries] == [0, 1] * 5


def test_faults_are_listed_once_a_pass_and_once_across_a_resume(tmp_path):
    faults = {NOT_AN_IMAGE: 2, "duplicate_key": 1, "oversized_file": 0, **dict.fromkeys(SHARD_FAULTS, 1)}
    fake = write_fake_laion_face(tmp_path, shards=3, samples=6, faults=faults)
    source = stream(fake.shards, batch_size=len(fake.keys))
    start = Entry(0, source.first_positions(0))
    _, drops, _ = take(source, start, 3)
    counts = Counter(drop["reason"] for drop in drops)
    assert set(counts) == {reason for reason, count in faults.items() if count}
    assert all(2 * faults[reason] <= count <= 3 * faults[reason] for reason, count in counts.items())
    small = stream(fake.shards, batch_size=1)
    _, whole, _ = take(small, start, 50)
    for cut in range(1, 50, 7):
        _, before, entry = take(small, start, cut)
        _, after, _ = take(small, entry, 50 - cut)
        assert before + after == whole


def test_parts_of_a_shard_list_its_faults_once(tmp_path):
    fake = write_fake_laion_face(tmp_path, shards=0, samples=0, faults={"shard_truncated": 1})
    drops = Counter()
    for rank in range(2):
        source = stream(fake.shards, rank, 2, batch_size=1)
        drops.update(d["reason"] for d in take(source, Entry(0, source.first_positions(0)), 4)[1])
    passes = 4
    assert 1 <= drops["shard_truncated"] <= passes + 1


def test_nothing_but_bad_samples_ends_with_the_reasons(tmp_path):
    fake = write_fake_laion_face(tmp_path, shards=1, samples=0, faults={NOT_AN_IMAGE: 6})
    source = stream(fake.shards)
    with pytest.raises(DataError, match=r"no usable sample in a whole pass.*not_an_image.*split_00000/00000/"):
        take(source, Entry(0, source.first_positions(0)), 1)


@pytest.mark.parametrize("fault", sorted(SHARD_FAULTS.keys() - {"shard_truncated", "shard_unreadable"}))
def test_nothing_but_broken_shards_ends_with_the_reason(tmp_path, fault):
    fake = write_fake_laion_face(tmp_path, shards=0, samples=0, faults={fault: 2})
    source = stream(fake.shards)
    with pytest.raises(DataError, match=rf"no usable sample in a whole pass.*{fault}"):
        take(source, Entry(0, source.first_positions(0)), 1)


def test_a_shard_that_vanishes_during_training_is_counted(tmp_path):
    fake = write_fake_laion_face(tmp_path, shards=3, samples=6)
    source = stream(fake.shards, batch_size=6, buffer=1)
    _, _, entry = take(source, Entry(0, source.first_positions(0)), 3)
    fake.shards[1].unlink()
    batches, drops, _ = take(source, entry, 4)
    assert {(drop["key"], drop["reason"]) for drop in drops} == {("split_00000/00001", SHARD_MISSING)}
    assert 2 <= len(drops) <= 3  # two passes and the beginning of a third
    assert not any("/00001/" in key for batch in batches for key, _ in batch)


def test_settings_that_cannot_work_are_refused(fake):
    with pytest.raises(ConfigError, match="samples_per_epoch 5 does not fill one batch of 3 on 2"):
        stream(fake.shards, world=2, samples=5)
    with pytest.raises(ConfigError, match="shuffle_buffer is 0"):
        stream(fake.shards, buffer=0)


def test_fingerprints_tell_data_and_order_apart(fake):
    prints = {
        stream(fake.shards).fingerprint,
        stream(fake.shards[:4]).fingerprint,
        stream(fake.shards, seed=1).fingerprint,
        stream(fake.shards, buffer=6).fingerprint,
    }
    assert len(prints) == 4
    assert stream(fake.shards, workers=3, batch_size=7).fingerprint in prints


def test_40000_shards_start_within_a_second_and_100_mb(tmp_path):
    folder = tmp_path / "split_00000"
    folder.mkdir()
    (folder / "00000.tar").touch()

    def start():
        shards = list_shards(f"{tmp_path}/split_{{00000..00031}}/{{00000..01249}}.tar")
        source = stream(shards, workers=8)
        source.begin(Entry(0, source.first_positions(0)))
        assert len(source.shards) == 40_000
        assert UnitOrder(40_000, 1, 0)[0] != UnitOrder(40_000, 1, 0)[1]
        return source

    begin = time.process_time()
    start()
    assert time.process_time() - begin < 1
    tracemalloc.start()
    kept = start()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert kept.shards
    assert peak < 100e6


def test_positions_do_not_disturb_the_global_generator(fake):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    source = stream(fake.shards)
    take(source, Entry(0, source.first_positions(0)), 5)
    assert torch.rand(1) == expected
