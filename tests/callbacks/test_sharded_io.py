"""Sharded checkpoints are replaced as a whole or not at all, on all processes alike."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from lightning.pytorch.strategies import ModelParallelStrategy

from farl_lightning.callbacks import sharded_io
from farl_lightning.callbacks.checkpoint_io import AtomicCheckpointIO, check_intact, newest_intact
from farl_lightning.callbacks.sharded_io import write_folders_whole
from farl_lightning.cli import main
from farl_lightning.errors import CheckpointError
from farl_lightning.functional.distributed import rank
from farl_lightning.models.archive import read_file
from farl_lightning.testing.distributed import run_distributed


class Strategy(ModelParallelStrategy):
    """Writes as Lightning's class does, one number per process; fails where it is told to."""

    fails: tuple[int, str] | None = None

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=True)

    is_global_zero = property(lambda _: rank() == 0)
    root_device = property(lambda _: torch.device("cpu"))

    def broadcast(self, obj, src=0):
        return obj

    def save_checkpoint(self, checkpoint, filepath, storage_options=None):
        folder = Path(filepath)
        folder.mkdir(exist_ok=True)
        if self.fails == (rank(), "before"):
            raise OSError(28, "No space left on device")
        dcp.save({f"x{rank()}": torch.tensor(checkpoint["value"])}, storage_writer=dcp.FileSystemWriter(folder))
        if rank() == 0:
            if self.fails == (0, "meta"):
                raise OSError(28, "No space left on device")
            torch.save({"loops": {}, "value": checkpoint["value"]}, folder / "meta.pt")


def value(folder: Path) -> float:
    check_intact(folder)
    return torch.load(folder / "meta.pt", weights_only=True)["value"]


def save_thrice(folder: str, fails: tuple[int, str]) -> tuple[float, str, float, list[str]]:
    """Save, fail to save, save again."""
    strategy, place = Strategy(), Path(folder) / "runs" / "last.ckpt"
    write_folders_whole(strategy)
    write_folders_whole(strategy)  # harmless
    strategy.save_checkpoint({"value": 1.0}, place)
    strategy.fails, message = fails, ""
    try:
        strategy.save_checkpoint({"value": 2.0}, place)
    except CheckpointError as error:
        message = str(error)
    dist.barrier()
    first = value(place)
    strategy.fails = None
    dist.barrier()
    strategy.save_checkpoint({"value": 3.0}, place)
    dist.barrier()
    return first, message, value(place), sorted(os.listdir(place.parent))


def test_one_process_that_cannot_write_leaves_the_one_before_on_all(tmp_path):
    found = run_distributed(save_thrice, 2, str(tmp_path), (0, "meta"))
    for first, message, last, names in found:
        assert first == 1.0
        assert last == 3.0
        assert names == ["last.ckpt"]
        assert "last.ckpt' could not be written" in message
    assert "No space left on device" in found[0][1]
    assert "is still the one before" in found[0][1]
    assert "another process failed" in found[1][1]


def whole(folder: Path, number: float) -> Path:
    """A sharded checkpoint of one process."""
    folder.mkdir()
    dcp.save({"x": torch.tensor(number)}, storage_writer=dcp.FileSystemWriter(folder), no_dist=True)
    torch.save({"loops": {}, "value": number}, folder / "meta.pt")
    return folder


@pytest.mark.parametrize("moment", [1, 2])
def test_a_kill_between_two_names_leaves_a_usable_one(tmp_path, monkeypatch, moment):
    place, new = whole(tmp_path / "last.ckpt", 1.0), whole(tmp_path / ".last.ckpt.partial", 2.0)
    calls, replace = [], os.replace

    def killed(source, target):
        calls.append(source)
        if len(calls) == moment:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(sharded_io.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        sharded_io._replace(new, place)
    assert value(newest_intact(tmp_path.glob("*.ckpt"))) == 1.0
    monkeypatch.undo()
    sharded_io._replace(new, place)  # the next save
    assert value(place) == 2.0
    assert [path for path in tmp_path.glob("*.ckpt") if value(path) == 2.0] == [place]


def test_a_file_gives_way_to_a_folder(tmp_path):
    (tmp_path / "last.ckpt").write_bytes(b"from a run on one device")
    sharded_io._replace(whole(tmp_path / "new", 1.0), tmp_path / "last.ckpt")
    assert os.listdir(tmp_path) == ["last.ckpt"]
    assert value(tmp_path / "last.ckpt") == 1.0


def test_whoever_reads_one_file_says_how_to_make_it(tmp_path, capsys):
    place = whole(tmp_path / "last.ckpt", 1.0)
    advice = f"farl-lightning consolidate {place} --output {tmp_path / 'last-whole.ckpt'}"
    for read in (AtomicCheckpointIO().load_checkpoint, read_file):
        with pytest.raises(CheckpointError, match=re.escape(advice)):
            read(place)
    assert main(["merge", "--ckpt_path", str(place), "--output", str(tmp_path / "merged.ckpt")]) == 1
    assert advice in capsys.readouterr().err
