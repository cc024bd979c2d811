"""What a checkpoint says of the run that wrote it, and where the user's settings differ from it."""

from __future__ import annotations

import dataclasses
import importlib
import pickle
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace

from farl_lightning.cli.arguments import Key
from farl_lightning.errors import CheckpointError, did_you_mean
from farl_lightning.types import to_plain

_KEYWORDS = ("best", "last", "hpc", "registry")  # no paths
_INTERNAL = ("_class_path", "_instantiator", "_")


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """The settings inside a checkpoint.

    Attributes:
        path: The checkpoint.
        model: ``{"class_path", "init_args"}`` of the task; None if it was not recorded.
        data: The same of the datamodule.
        face_spec: What its network expects of faces, as plain data; None if it does not say.
    """

    path: Path
    model: dict[str, Any] | None
    data: dict[str, Any] | None
    face_spec: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Difference:
    """One setting on which checkpoint and user disagree.

    Attributes:
        key: The setting.
        saved: The checkpoint's value.
        given: The user's value.
    """

    key: Key
    saved: Any
    given: Any


MISSING = type("Missing", (), {"__repr__": lambda _: "absent"})()
"""Stands for an entry that only one side has."""


def read_run(path: str | None) -> SavedRun | None:
    """Read the settings inside a checkpoint; the weights stay on disk.

    Args:
        path: The checkpoint file, or the folder of a sharded one. Words that Lightning resolves itself, such as
            ``last``, are left to it.

    Returns:
        The settings, or None when there is nothing to read.

    Raises:
        CheckpointError: If the file is missing, unreadable, or no checkpoint of a run.
    """
    if path is None or path.split(":")[0] in _KEYWORDS or "://" in path:
        return None
    file = Path(path).expanduser()
    if file.is_dir():
        file = file / "meta.pt"
        if not file.is_file():
            return None
    if not file.is_file():
        raise CheckpointError(f"checkpoint '{path}' does not exist. {_nearest(Path(path))}".strip())
    saved = _load(file)
    if "pytorch-lightning_version" not in saved:
        raise CheckpointError(
            f"'{path}' is no checkpoint of a run, so it cannot be resumed or evaluated; "
            "to start from its weights, give it as --model.weights"
        )
    return SavedRun(
        Path(path),
        _node(saved, "hyper_parameters"),
        _node(saved, "datamodule_hyper_parameters"),
        saved.get("face_spec"),
    )


def can_continue(path: Path) -> bool:
    """Whether a run can continue from a checkpoint; weights alone are no state of a run.

    Args:
        path: The checkpoint file, or the folder of a sharded one.

    Raises:
        CheckpointError: If it cannot be read.
    """
    file = path / "meta.pt" if path.is_dir() else path
    return "loops" in _load(file)


def _load(file: Path) -> dict[str, Any]:
    """Load a checkpoint without executing anything from it and without reading its tensors."""
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(f"checkpoint '{file}' cannot be read (cut off, or no checkpoint): {reason}") from error
    return saved if isinstance(saved, dict) else {}


def _node(saved: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Turn saved hyper-parameters into ``{"class_path", "init_args"}``; None if the class was not recorded."""
    hparams = saved.get(name) or {}
    if "_class_path" not in hparams:
        return None
    arguments = {key: value for key, value in hparams.items() if key not in _INTERNAL}
    return {"class_path": hparams["_class_path"], "init_args": arguments}


def _nearest(path: Path) -> str:
    """Name the nearest checkpoint in the same folder, or the newest one of the runs here."""
    here = sorted(str(other) for other in path.parent.glob("*.ckpt")) if path.parent.is_dir() else []
    if here:
        return did_you_mean(str(path), here)
    runs = (
        sorted(Path("runs").rglob("*.ckpt"), key=lambda other: other.stat().st_mtime) if Path("runs").is_dir() else []
    )
    return f"The newest one here is '{runs[-1]}'." if runs else ""


def differences(saved: Any, given: Any, key: Key = ()) -> list[Difference]:
    """Compare saved settings with parsed ones.

    Settings that the checkpoint does not know (a newer version's) are no difference; entries of a mapping with free
    names, such as objectives, are.

    Args:
        saved: Plain data from the checkpoint.
        given: The parsed settings.
        key: Where both lie.
    """
    if not isinstance(saved, dict) or not isinstance(given, dict | Namespace):
        given = _plain(given)
        equal = same_class(saved, given) if key[-1:] == ("class_path",) else saved == given
        return [] if equal else [Difference(key, saved, given)]
    pairs = vars(given) if isinstance(given, Namespace) else given
    found: list[Difference] = []
    for name, value in saved.items():
        if name in pairs:
            found += differences(value, pairs[name], (*key, name))
        elif isinstance(given, dict):
            found.append(Difference((*key, name), _short(value), MISSING))
    if isinstance(given, dict):
        found += [Difference((*key, name), MISSING, _short(pairs[name])) for name in pairs if name not in saved]
    return found


def same_class(one: str, other: str) -> bool:
    """Whether two full names mean the same class: packages offer theirs under shorter names too.

    Args:
        one: Such as ``"farl_lightning.objectives.contrastive.Contrastive"``.
        other: Such as ``"farl_lightning.Contrastive"``.
    """
    return one == other or (_class(one) is not None and _class(one) is _class(other))


def _class(name: str) -> Any:
    """Import a class; None if there is no such class."""
    module, _, short = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), short, None)
    except (ImportError, ValueError):
        return None


def _plain(value: Any) -> Any:
    """Turn a parsed value into plain data."""
    if isinstance(value, Namespace):
        return {name: _plain(item) for name, item in vars(value).items()}
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else to_plain(str(value))


def _short(value: Any) -> Any:
    """Show an object by its class alone."""
    value = _plain(value)
    return value["class_path"].rsplit(".", 1)[-1] if isinstance(value, dict) and "class_path" in value else value
