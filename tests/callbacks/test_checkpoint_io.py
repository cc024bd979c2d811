"""A kill or a full disk while writing leaves the checkpoint before it; a damaged last one falls back, loudly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from lightning.pytorch.callbacks import ModelCheckpoint

from farl_lightning.callbacks.checkpoint_io import AtomicCheckpointIO, check_intact, newest_intact, write_atomically
from farl_lightning.errors import CheckpointError
from tests.tasks import tiny

IO = AtomicCheckpointIO()


def state(value: float, size: int = 100_000) -> dict:
    return {"state_dict": {"weight": torch.full((size,), value)}, "global_step": int(value)}


def value(path: Path) -> float:
    return float(IO.load_checkpoint(path, weights_only=True)["state_dict"]["weight"][0])


KILLED_WRITER = """
import os, signal, sys
import torch
from farl_lightning.callbacks.checkpoint_io import AtomicCheckpointIO

setattr(os, sys.argv[2], lambda *_: os.kill(os.getpid(), signal.SIGKILL))
AtomicCheckpointIO().save_checkpoint({"state_dict": {"weight": torch.full((100_000,), 2.0)}}, sys.argv[1])
"""
LIMITED_WRITER = """
import resource, signal, sys
import torch
from farl_lightning.callbacks.checkpoint_io import AtomicCheckpointIO
from farl_lightning.errors import CheckpointError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
try:
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"weight": torch.full((100_000,), 2.0)}}, sys.argv[1])
except CheckpointError as error:
    print(error)
    sys.exit(7)
"""


def in_child(source: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own: a fork of this one, whose threads others started, could wait forever."""
    command = [sys.executable, "-c", source, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_round_trip_in_a_new_folder(tmp_path):
    path = tmp_path / "new" / "last.ckpt"
    IO.save_checkpoint(state(1), path)
    IO.save_checkpoint(state(2), path)
    assert value(path) == 2
    assert os.listdir(path.parent) == ["last.ckpt"]
    content = path.read_bytes()
    IO.save_checkpoint(state(2), path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_kill_while_writing_leaves_the_one_before(tmp_path, moment):
    path = tmp_path / "last.ckpt"
    IO.save_checkpoint(state(1), path)
    killed = in_child(KILLED_WRITER, path, moment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert value(path) == 1
    assert len(os.listdir(tmp_path)) == 2  # with what the killed process left
    assert list(tmp_path.glob("*.ckpt")) == [path]
    IO.save_checkpoint(state(3), path)
    assert value(path) == 3
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_a_full_disk_leaves_the_one_before(tmp_path):
    """Without rights to mount anything: a limit on the size of files, which a write meets as it would a full disk."""
    path = tmp_path / "last.ckpt"
    IO.save_checkpoint(state(1), path)
    limited = in_child(LIMITED_WRITER, path)
    assert limited.returncode == 7, limited.stderr
    assert "last.ckpt' could not be written" in limited.stdout
    assert "the one before" in limited.stdout
    assert value(path) == 1
    assert os.listdir(tmp_path) == ["last.ckpt"]


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
        mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("no rights to mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_tmpfs_leaves_the_one_before(tiny_disk):
    path = tiny_disk / "last.ckpt"
    IO.save_checkpoint(state(1), path)
    with pytest.raises(CheckpointError, match=r"could not be written .* MiB are free there; .* still the one before"):
        IO.save_checkpoint(state(2, 200_000), path)
    assert value(path) == 1
    assert os.listdir(tiny_disk) == ["last.ckpt"]


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "flipped":  # torch.load would read it without a word
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(b"")


@pytest.mark.parametrize("how", ["cut", "flipped", "empty"])
def test_a_damaged_last_checkpoint_falls_back_loudly(tmp_path, how):
    for step in (1, 2, 3):
        IO.save_checkpoint(state(step), tmp_path / f"step{step}.ckpt")
        time.sleep(0.01)
    IO.save_checkpoint(state(4), tmp_path / "last.ckpt")
    damage(tmp_path / "last.ckpt", how)
    damage(tmp_path / "step3.ckpt", how)
    os.utime(tmp_path / "step3.ckpt")
    with pytest.warns(UserWarning, match=r"last.ckpt' is damaged .*goes on from '.*step2.ckpt' instead"):
        assert value(tmp_path / "last.ckpt") == 2
    with (
        pytest.warns(UserWarning, match="looking for the one before"),
        pytest.raises(CheckpointError, match=r"step3.ckpt' is damaged .*newest whole one beside it is '.*step2.ckpt'"),
    ):
        value(tmp_path / "step3.ckpt")


def test_without_another_one_there_is_an_error(tmp_path):
    IO.save_checkpoint(state(1), tmp_path / "last.ckpt")
    damage(tmp_path / "last.ckpt", "cut")
    with pytest.raises(CheckpointError, match="There is no other one in"):
        value(tmp_path / "last.ckpt")
    with pytest.raises(FileNotFoundError):
        value(tmp_path / "nothing.ckpt")


@pytest.mark.filterwarnings("ignore:torch.distributed is unavailable")
def test_a_sharded_checkpoint_that_lacks_a_part_is_damaged(tmp_path):
    older, newer = tmp_path / "a.ckpt", tmp_path / "b.ckpt"
    for folder in (older, newer):
        dcp.save({"weight": torch.arange(1000.0)}, checkpoint_id=folder)
        with pytest.raises(CheckpointError, match=r"'meta\.pt', which is written last, is not there"):
            check_intact(folder)
        torch.save({"global_step": 1}, folder / "meta.pt")
        check_intact(folder)
    os.utime(older, (1, 1))
    assert newest_intact([older, newer]) == newer
    part = next(newer.glob("*.distcp"))
    part.write_bytes(part.read_bytes()[:500])
    with pytest.warns(UserWarning, match=r"b.ckpt' is damaged .*has 500 of \d+ bytes"):
        assert newest_intact([older, newer]) == older


def test_a_run_resumes_from_last_although_its_file_is_damaged(tmp_path):
    def trainer(steps: int):
        saving = ModelCheckpoint(
            tmp_path, "step{step}", every_n_train_steps=2, save_last=True, auto_insert_metric_name=False
        )
        settings = {"enable_checkpointing": True, "limit_val_batches": 0}
        run = tiny.trainer(tmp_path, max_steps=steps, callbacks=[saving], **settings)
        write_atomically(run)
        return run

    trainer(4).fit(tiny.task(), datamodule=tiny.TinyData())
    damage(tmp_path / "last.ckpt", "flipped")
    run = trainer(6)
    with pytest.warns(UserWarning, match=r"goes on from '.*step4.ckpt'"):
        run.fit(tiny.task(), datamodule=tiny.TinyData(), ckpt_path="last")
    assert run.global_step == 6
