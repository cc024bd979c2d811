"""Checkpoints that are whole or not there: written beside their place, moved when on disk, checked when read."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from farl_lightning.errors import CheckpointError
from farl_lightning.models.archive import sharded_advice

PARTIAL = ".partial"
"""End of the name of a checkpoint that is being written; no such file is ever taken for a checkpoint."""

_UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, pickle.UnpicklingError)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint completely or not at all, and reads none that is damaged.

    A file is written under another name in the same folder, brought to the disk (``fsync``) and then renamed, so that a
    kill, a crash or a full disk leaves the checkpoint before it as it was; the half-written file of a killed run is
    replaced by the next save. Lightning's own writer collects the file in memory, and copies it to its place where
    the temporary folder is on another file system. Reading checks the sum of every part of the file. When a checkpoint
    called ``last*`` is damaged, the newest whole one of its folder is taken instead, with a warning; any other name is
    an error that says which one to take.

    The command line sets this by itself; elsewhere: ``Trainer(plugins=[AtomicCheckpointIO()])``. Addresses of remote
    stores (``s3://...``) are left to Lightning. Sharded checkpoints (folders) are not written through this class: see
    :func:`~farl_lightning.callbacks.sharded_io.write_folders_whole`.
    """

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: State of model and training.
            path: Its place; folders are made.
            storage_options: Not used, as in Lightning's class.

        Raises:
            CheckpointError: If it cannot be written; what was at its place is still there.
        """
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f".{place.name}{PARTIAL}")  # one process alone writes; a killed one's is replaced
        try:
            torch.save(checkpoint, partial)
            to_disk(partial)
            os.replace(partial, place)
            to_disk(place.parent)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(not_written(place, error)) from error
        finally:
            partial.unlink(missing_ok=True)

    @override
    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, _: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint, or the one before if it is the last one and damaged.

        Args:
            path: The file.
            map_location: As for ``torch.load``.
            weights_only: As for ``torch.load``.

        Raises:
            CheckpointError: If it is damaged, and it is not the last one or there is none before it; or if it is the
                folder of a sharded checkpoint, which another strategy wrote.
            FileNotFoundError: If it is not there.
        """
        place = Path(path)
        if advice := sharded_advice(place):
            raise CheckpointError(advice)
        if "://" not in str(path) and place.is_file():
            place = _intact_or_before(place)
        return super().load_checkpoint(path if "://" in str(path) else place, map_location, weights_only)


def write_atomically(trainer: L.Trainer) -> None:
    """Let a trainer write its checkpoints through :class:`AtomicCheckpointIO`, unless it was given a writer.

    Folders of sharded checkpoints are replaced as a whole, too.

    Args:
        trainer: Before its run.
    """
    from farl_lightning.callbacks.sharded_io import write_folders_whole

    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
    if isinstance(trainer.strategy, ModelParallelStrategy):
        write_folders_whole(trainer.strategy)


def check_intact(path: Path) -> None:
    """Read a checkpoint through and compare the sums of its parts with those written beside them.

    Of a sharded checkpoint (a folder), sizes are compared: its list of parts is written last of all.

    Args:
        path: A file, or the folder of a sharded checkpoint.

    Raises:
        CheckpointError: If it is cut off, damaged, or no checkpoint.
    """
    try:
        reason = _fault_of_folder(path) if path.is_dir() else _fault_of_file(path)
    except (*_UNREADABLE, zipfile.BadZipFile) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
    if reason:
        raise CheckpointError(f"checkpoint '{path}' is damaged or was not written to its end: {reason}")


def newest_intact(paths: Iterable[Path]) -> Path | None:
    """Return the checkpoint that was written last and is whole; each newer one that is not is reported.

    Args:
        paths: Files, or folders of sharded checkpoints.
    """
    for path in sorted(paths, key=lambda found: found.stat().st_mtime_ns, reverse=True):
        try:
            check_intact(path)
        except CheckpointError as error:
            rank_zero_warn(f"{error}; looking for the one before")
            continue
        return path
    return None


def _intact_or_before(path: Path) -> Path:
    """Return a checkpoint if it is whole, else the newest whole one beside it, if that is what its name asks for."""
    try:
        check_intact(path)
    except CheckpointError as error:
        other = newest_intact(found for found in path.parent.glob("*.ckpt") if found != path)
        if other is None:
            raise CheckpointError(f"{error}. There is no other one in '{path.parent}'.") from error
        if not path.name.startswith("last"):
            raise CheckpointError(f"{error}. The newest whole one beside it is '{other}'.") from error
        rank_zero_warn(f"{error}. Training goes on from '{other}' instead: the steps after it are done again.")
        return other
    return path


def _fault_of_file(path: Path) -> str | None:
    """Say what is wrong with the file; None if nothing is."""
    with zipfile.ZipFile(path) as archive:
        part = archive.testzip()
        if part is None and not any(name.endswith("/data.pkl") for name in archive.namelist()):
            return "it is not a file of torch.save"
    return f"'{part}' does not have the sum it was written with" if part else None


def _fault_of_folder(path: Path) -> str | None:
    """Say what is missing of a sharded checkpoint; None if nothing is."""
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    if not (path / "meta.pt").is_file():
        return "'meta.pt', which is written last, is not there"
    if fault := _fault_of_file(path / "meta.pt"):
        return fault
    needed: dict[str, int] = {}
    for part in FileSystemReader(path).read_metadata().storage_data.values():
        end = part.offset + part.length
        needed[part.relative_path] = max(end, needed.get(part.relative_path, 0))
    for name, size in needed.items():
        there = (path / name).stat().st_size if (path / name).is_file() else 0
        if there < size:
            return f"'{name}' has {there} of {size} bytes"
    return None


def to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk.

    Args:
        path: The file or folder.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def not_written(place: Path, error: BaseException) -> str:
    """Say why a checkpoint could not be written, and what is left.

    Args:
        place: Where it was to be; its folder exists.
        error: What went wrong.
    """
    free = shutil.disk_usage(place.parent).free / 2**20
    before = f"'{place}' is still the one before" if place.exists() else "earlier checkpoints are untouched"
    reason = str(error).strip().split("\n")[0]
    return f"checkpoint '{place}' could not be written ({reason}); {free:.0f} MiB are free there; {before}"
