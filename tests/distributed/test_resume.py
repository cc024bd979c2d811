"""A killed and resumed run equals one never interrupted: keys, pixels, masks, losses, weights, drop counts."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from farl_lightning.callbacks.checkpoint_io import newest_intact
from farl_lightning.callbacks.safety_checkpoint import FILE_NAME
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
        return runs[key]

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


def test_a_signal_to_one_process_ends_all_with_a_checkpoint(server, whole, fake, tmp_path):
    job = {"kind": "shards", "workers": 2, "signal_at": 3, "world": 2, "every": 100}
    expected, resumed = kill_and_resume(server, whole, fake, tmp_path, **job)
    assert (tmp_path / "killed" / "checkpoints" / FILE_NAME).is_file()
    assert resumed == expected


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
