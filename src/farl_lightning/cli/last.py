"""``--ckpt_path last``: continue the run where there is a checkpoint of it, else start it.

Lightning knows the word too, but looks in the folder of the run that is about to begin. Loggers number their runs, so
that folder is a new one each time and a run that was restarted would silently begin anew. Here the word is replaced by
a path before anything is built: all checkpoints where this config writes them are looked at, and the newest that can
be read is taken. The settings inside it are compared with those given, as with any other path.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch.distributed as dist
from typing_extensions import override

from farl_lightning.callbacks.checkpoint_io import check_intact
from farl_lightning.cli.arguments import Raw, Settings
from farl_lightning.cli.checkpoint import can_continue
from farl_lightning.errors import CheckpointError, ConfigError
from farl_lightning.functional.distributed import world_size

WORDS = ("last", "hpc")
"""Words for ``--ckpt_path`` that stand for a file: the newest checkpoint, and the newest that SLURM's signal wrote."""


def resolve_word(settings: Settings) -> bool:
    """Replace a word given as ``ckpt_path`` by the path of a checkpoint.

    Args:
        settings: The user's settings. ``last`` becomes the newest checkpoint that can be read, or nothing for ``fit``
            when there is none yet; ``hpc`` becomes the newest one that Lightning wrote on SLURM's signal.

    Returns:
        Whether ``last`` was given: then every process looked for itself, and :class:`SameStart` must compare.

    Raises:
        CheckpointError: If there is no checkpoint and the verb needs one.
        ConfigError: If the word is ``best``: which one is best, only the trainer that wrote them knows.
    """
    word = str(settings.tree.get("ckpt_path"))
    if word == "best":
        raise ConfigError(
            "--ckpt_path best: a new process does not know which checkpoint was best; give the file, or 'last'"
        )
    if word not in WORDS:
        return False
    folders = checkpoint_folders(settings.tree) if word == "last" else []
    found = newest([*_files(folders), *_hpc_files(settings.tree)])
    if found is None:
        _nothing_found(settings.verb, word, [*folders, _root(settings.tree)])
    path = "null" if found is None else str(found)
    settings.tree["ckpt_path"] = Raw(path)
    settings.argv.append(f"--ckpt_path={path}")
    return word == "last"


def _nothing_found(verb: str, word: str, folders: list[Path]) -> None:
    """Say that a run starts, or that there is nothing to evaluate."""
    places = ", ".join(dict.fromkeys(f"'{folder}'" for folder in folders))
    if word != "last" or verb != "fit":
        raise CheckpointError(f"--ckpt_path {word}: there is no checkpoint in {places}; give the path of one")
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"--ckpt_path last: no checkpoint in {places} yet, so a new run begins", file=sys.stderr)


def newest(files: list[Path]) -> Path | None:
    """Return the checkpoint that was written last and is whole; each newer one that is not is reported.

    Weights alone are passed over: no run can continue from them.

    Args:
        files: Checkpoint files, or folders of sharded ones.
    """
    return next(filter(_is_usable, sorted(files, key=_written, reverse=True)), None)


def _is_usable(path: Path) -> bool:
    """Whether a run can continue from a checkpoint; says why not if it is damaged."""
    try:
        if can_continue(path):
            check_intact(path)
            return True
    except CheckpointError as error:
        print(f"WARNING: --ckpt_path last: {error}; the one before it is looked for", file=sys.stderr)
    return False


def checkpoint_folders(tree: dict[str, Any]) -> list[Path]:
    """Return where the runs of a config keep checkpoints, as patterns with ``*`` for a run's number.

    Args:
        tree: The user's settings: the loggers, the callbacks with a folder of their own, the root folder.
    """
    trainer = tree.get("trainer") or {}
    given = [
        Path(str(arguments["dirpath"])).expanduser()
        for arguments in map(_arguments, _as_list(trainer.get("callbacks")))
        if arguments.get("dirpath")
    ]
    loggers = _as_list(trainer.get("logger", True))
    first = next((logger for logger in loggers if _plain(logger) is not None), False)
    return list(dict.fromkeys([*given, _run_folders(tree, first) / "checkpoints"]))


def _run_folders(tree: dict[str, Any], logger: Any) -> Path:
    """Return the pattern of the folders of runs; Lightning takes them from the first logger."""
    root = _root(tree)
    if _plain(logger) is False:
        return root
    arguments = _arguments(logger)
    version = _plain(arguments.get("version"))
    name = str(_plain(arguments.get("name", "lightning_logs")) or "")
    run = "*" if version is None else f"version_{version}" if isinstance(version, int) else version
    return Path(str(arguments.get("save_dir") or root)).expanduser() / name / run


def _root(tree: dict[str, Any]) -> Path:
    """Return the folder of files that no logger has a folder for."""
    root = _plain((tree.get("trainer") or {}).get("default_root_dir"))
    return Path(str(root)).expanduser() if root else Path()


def _arguments(node: Any) -> dict[str, Any]:
    """Return the arguments of a ``{class_path, init_args}`` node."""
    return (node.get("init_args") or {}) if isinstance(node, dict) else {}


def _as_list(node: Any) -> list[Any]:
    """Return one or several nodes as a list."""
    return node if isinstance(node, list) else [node]


def _plain(value: Any) -> Any:
    """Return a value as YAML reads it: flags are text until their type is known."""
    return value.load() if isinstance(value, Raw) else value


def _files(folders: list[Path]) -> Iterator[Path]:
    """Yield every checkpoint in folders."""
    for folder in folders:
        parts = Path(folder, "*.ckpt")
        start = Path(parts.anchor)
        yield from start.glob(str(parts.relative_to(parts.anchor)))


def _hpc_files(tree: dict[str, Any]) -> list[Path]:
    """Return the checkpoints that Lightning wrote on SLURM's signal."""
    return list(_root(tree).glob("hpc_ckpt_*.ckpt"))


def _written(path: Path) -> int:
    """Return when a checkpoint was written, in ns; 0 if it has just been replaced."""
    file = path / "meta.pt" if path.is_dir() else path
    return file.stat().st_mtime_ns if file.exists() else 0


class SameStart(L.Callback):
    """Stops a run whose processes would not continue from the same checkpoint, such as when folders are not shared.

    Args:
        path: The checkpoint that this process found; None begins anew.
    """

    def __init__(self, path: str | None) -> None:
        self.path = path

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Compare what the processes found, before anything is restored.

        Args:
            trainer: With its processes connected.
            pl_module: The task.
            stage: ``"fit"``.

        Raises:
            CheckpointError: On every process, if two found different ones.
        """
        if world_size() == 1:
            return
        found: list[Any] = [None] * world_size()
        dist.all_gather_object(found, (self.path, socket.gethostname()))
        if len({path for path, _ in found}) > 1:
            lines = [f"  rank {rank} on {host}: {path or 'none'}" for rank, (path, host) in enumerate(found)]
            raise CheckpointError(
                "\n".join(
                    [
                        "--ckpt_path last: the processes found different checkpoints and cannot continue together:",
                        *lines,
                        "Keep the run's folder on a file system that every machine sees (save_dir of the logger).",
                    ]
                )
            )
