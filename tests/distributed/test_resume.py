"""A killed and resumed run equals one never interrupted: keys, pixels, masks, losses, weights, drop counts."""

from __future__ import annotations

import copy
import random
from collections import Counter
from pathlib import Path

import pytest

from farl_lightning.callbacks.checkpoint_io import newest_intact
from farl_lightning.callbacks.safety_checkpoint import FILE_NAME
from farl_lightning.cli.consolidate import consolidate
from farl_lightning.testing.shards import FakeShards, write_fake_laion_face
from tests.distributed.resume_runs import Server

FAULTS = {"not_an_image": 2, "empty_caption": 1, "duplicate_key": 1, "shard_truncated": 1, "shard_missing": 1}


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def fake(tmp_path_factory) -> FakeShards:
    return write_fake_laion_face(tmp_path_factory.mktemp("shards"), shards=3, samples=12, faults=FAULTS, size=36)


@pytest.fixture(scope="module")
def whole(server, fake, tmp_path_factory):
    """Uninterrupted runs, each trained once."""
    runs: dict[tuple, list[list[dict]]] = {}

    def run(**job) -> list[list[dict]]:
        key = tuple(sorted((name, value) for name, value in job.items() if name not in ("shards", "every")))
        if key not in runs:
            runs[key] = server.run(tmp_path_factory.mktemp("whole") / "run", **job)
        return copy.deepcopy(runs[key])  # tests take rows apart

    return run


def kill_and_resume(server: Server, whole, fake: FakeShards, tmp_path: Path, **job):
    """Return the rows of an uninterrupted run after the last checkpoint, and those of an ended and resumed run."""
    job["shards"] = [str(shard) for shard in fake.shards]
    rows = whole(**{name: value for name, value in job.items() if name not in ("kill_at", "signal_at")})
    killed = server.run(tmp_path / "killed", **job)
    saved = newest_intact((tmp_path / "killed" / "checkpoints").glob("*.ckpt"))
    step = len(killed[0]) if saved.name == FILE_NAME else int(saved.stem.removeprefix("step="))
    assert 0 < step <= len(killed[0])
    assert killed == [own[: len(seen)] for own, seen in zip(rows, killed, strict=True)]
    resumed = server.run(tmp_path / "resumed", **{**job, "ckpt": str(saved), "seed": 99, "kill_at": 0, "signal_at": 0})
    expected = [own[step:] for own in rows]
    assert all(len(own) > len(killed[0]) - step + 1 for own in expected)
    return expected, resumed


CELLS = {"one": {"world": 1}, "ddp": {"world": 2}, "fsdp2": {"world": 2, "strategy": "fsdp2"}}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_killed_at_a_random_moment_resumes_bit_for_bit(server, whole, fake, tmp_path, cell, workers):
    # 42 samples an epoch: 10 steps on one process, 5 on two; killed before the last step of the second epoch
    kill_at = random.uniform(3, 16 if cell == "one" else 8)
    print("killed at", kill_at)
    job = {"kind": "shards", "workers": workers, "kill_at": kill_at, **CELLS[cell]}
    expected, resumed = kill_and_resume(server, whole, fake, tmp_path, **job)
    # of a checkpoint at the end of an epoch, Lightning does not make up for the samples of validation
    for rows in (*expected, *resumed):
        rows[-1].pop("samples")
    assert resumed == expected


def test_resumed_at_the_end_of_an_epoch_and_again_in_the_next_one(server, whole, fake, tmp_path):
    job = {"kind": "shards", "shards": [str(shard) for shard in fake.shards], "workers": 0, "world": 1}
    (expected,) = whole(**job)
    saved = None
    for number, (kill_at, step) in enumerate([(10.9, 10), (14.9, 14)]):  # an epoch has ten steps
        server.run(tmp_path / f"{number}", **job, kill_at=kill_at, ckpt=saved and str(saved))
        saved = newest_intact((tmp_path / f"{number}" / "checkpoints").glob("*.ckpt"))
        assert step - 2 <= int(saved.stem.removeprefix("step=")) <= step
    begin = int(saved.stem.removeprefix("step="))
    assert begin > 10
    (resumed,) = server.run(tmp_path / "last", **job, ckpt=str(saved), seed=99)
    expected = expected[begin:]
    for rows in (expected, resumed):
        rows[-1].pop("samples")
    assert resumed == expected


def test_a_signal_to_one_process_ends_all_with_a_checkpoint(server, whole, fake, tmp_path):
    job = {"kind": "shards", "workers": 2, "signal_at": 3, "world": 2, "every": 100}
    expected, resumed = kill_and_resume(server, whole, fake, tmp_path, **job)
    assert (tmp_path / "killed" / "checkpoints" / FILE_NAME).is_file()
    assert resumed == expected


def seen(rows: list[list[dict]]) -> list[tuple[str, str]]:
    """Every sample that was trained on: its key, and its pixels, which differ from pass to pass."""
    return [pair for own in rows for row in own if "seen" in row for pair in zip(row["keys"], row["seen"], strict=True)]


@pytest.mark.parametrize(("kind", "strategy"), [("shards", "ddp"), ("synthetic", "fsdp2")])
def test_a_run_of_two_processes_goes_on_alone_and_repeats_and_loses_nothing(
    server, whole, fake, tmp_path, kind, strategy
):
    job = {"kind": kind, "shards": [str(shard) for shard in fake.shards], "workers": 0}
    alone = seen(whole(**job, world=1))
    first_pass = {key: (key, pixels) for key, pixels in reversed(alone)}
    ended = server.run(tmp_path / "two", **job, world=2, strategy=strategy, every=100, signal_at=2)
    saved = tmp_path / "two" / "checkpoints" / FILE_NAME
    assert saved.is_dir() == (strategy == "fsdp2")
    assert len(seen(ended)) == 2 * 2 * 4
    if saved.is_dir():
        saved = consolidate(saved, tmp_path / "one.ckpt")
    (rest,) = server.run(tmp_path / "one", **job, world=1, ckpt=str(saved), seed=99)
    # a batch counts as one, however many processes there are: an epoch of one process has 10, or 6 of 25 samples
    assert [row["step"] for row in rest[:-1]] == [*range(3, 2 * (10 if kind == "shards" else 6) + 1)]
    together = Counter([*seen(ended), *seen([rest])])
    assert set(together.values()) == {1}
    if kind == "shards":
        assert set(first_pass.values()) <= together.keys()  # all of it, though two began it and one ended it
        assert first_pass.keys() == set(fake.keys)
    else:
        keys = [key for key, _ in [*seen(ended), *seen([rest])]]
        assert len(set(keys[:24])) == len(set(keys[24:48])) == 24  # a pass: 24 of 25 fill batches


def test_a_killed_map_style_run_resumes_bit_for_bit(server, whole, fake, tmp_path):
    expected, resumed = kill_and_resume(server, whole, fake, tmp_path, kind="synthetic", kill_at=9, workers=2)
    assert resumed == expected


def test_a_checkpoint_at_the_end_of_an_epoch_resumes_with_the_next_one(server, whole, fake, tmp_path):
    expected, resumed = kill_and_resume(server, whole, fake, tmp_path, kind="shards", world=1, kill_at=11, every=10)
    # Lightning does not make up for the validation that followed the checkpoint, so its samples are not counted
    assert [row.pop("samples") for rows in (*expected, *resumed) for row in rows[-1:]] == [90, 85]
    assert resumed == expected


def test_every_fault_is_reported_once_per_pass(whole, fake):
    job = {"kind": "shards", "world": 1, "workers": 0}
    ((*rows, end),) = whole(shards=[str(shard) for shard in fake.shards], **job)
    assert end["samples"] == 2 * (40 + 5)
    missing, counts = set(fake.keys), {}
    for row in rows:
        for _, reason in row["dropped"]:
            counts[reason] = counts.get(reason, 0) + 1
        missing -= set(row["keys"])
        if not missing:
            break
    assert counts.keys() == FAULTS.keys()
    assert all(FAULTS[reason] <= count <= 2 * FAULTS[reason] for reason, count in counts.items())
