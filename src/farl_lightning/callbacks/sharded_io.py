"""Folders of sharded checkpoints, replaced as a whole: a kill or a full disk leaves the one before usable."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.checkpoint.api import CheckpointException

from farl_lightning.callbacks.checkpoint_io import PARTIAL, not_written, to_disk
from farl_lightning.errors import CheckpointError
from farl_lightning.functional.distributed import global_sum

BEFORE = "-before.ckpt"
"""End of the name that the folder before has while the new one takes its place; ``--ckpt_path last`` finds it too."""


def write_folders_whole(strategy: ModelParallelStrategy) -> None:
    """Let a strategy write each sharded checkpoint beside its place, and move it there when all parts are on the disk.

    Lightning writes the parts straight into the folder, over those of the checkpoint before, if it has the same name
    (``last.ckpt``, ``last-safety.ckpt``): a run that is killed meanwhile would leave neither. Here the folder before is
    renamed to ``*-before.ckpt`` when the new one is complete, and removed when that is in its place. If any process
    cannot write its part, all raise.

    Args:
        strategy: Before its run; changed in place. Calling this twice is harmless.
    """
    save = strategy.save_checkpoint
    if hasattr(save, "__wrapped__"):
        return

    @functools.wraps(save)
    def save_whole(checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None) -> None:
        """Do what Lightning does, beside the place of the folder."""
        if storage_options is not None or not strategy._save_distributed_checkpoint:
            save(checkpoint, filepath, storage_options)
            return
        place = Path(strategy.broadcast(filepath))
        partial = place.with_name(f".{place.name}{PARTIAL}")
        _together(strategy, place, lambda: _make_room(partial))
        _together(strategy, place, lambda: save(checkpoint, partial), everywhere=True)
        _together(strategy, place, lambda: _replace(partial, place))

    strategy.save_checkpoint = save_whole  # type: ignore[method-assign]


def _together(strategy: ModelParallelStrategy, place: Path, action: Any, everywhere: bool = False) -> None:
    """Run something on the first process, or on all; a failure of one is one of all, so that none waits for it."""
    failure: BaseException | None = None
    if everywhere or strategy.is_global_zero:
        try:
            action()
        except (OSError, RuntimeError, CheckpointException) as error:
            failure = error
    failed = global_sum(torch.tensor(int(failure is not None), device=strategy.root_device))
    if failure is not None:
        raise CheckpointError(not_written(place, _cause(failure))) from failure
    if int(failed):
        raise CheckpointError(f"checkpoint '{place}' could not be written: another process failed, see its message")


def _cause(error: BaseException) -> BaseException:
    """Return what a part's writer met, from the collection that torch makes of the errors of all processes."""
    failures = list(error.failures.values()) if isinstance(error, CheckpointException) else []
    return failures[0][0] if failures else error


def _make_room(partial: Path) -> None:
    """Remove what a killed run left half-written."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    _remove(partial)


def _replace(partial: Path, place: Path) -> None:
    """Put the new folder into its place; at every moment one of the two has a name that is looked for."""
    to_disk(partial / "meta.pt")
    to_disk(partial)
    before = place.with_name(f"{place.stem}{BEFORE}")
    if place.exists():
        _remove(before)
        os.replace(place, before)
    os.replace(partial, place)
    to_disk(place.parent)
    _remove(before)


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
