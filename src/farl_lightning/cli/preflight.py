"""What happens before a command is parsed: classes are imported, a checkpoint is read, every setting is checked."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

import lightning as L

from farl_lightning.cli.arguments import Key, Problem, Settings, UsageError
from farl_lightning.cli.checkpoint import SavedRun, read_run, same_class
from farl_lightning.cli.last import resolve_word
from farl_lightning.cli.schema import check_settings, parameters, resolve_class
from farl_lightning.cli.trainer import FarlTrainer
from farl_lightning.errors import ConfigError

HANDED_OVER = frozenset({"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders"})
"""Arguments of the Trainer's verbs that are objects, not settings."""

NO_MODEL = ("preview",)
"""Verbs that need data only."""

_ROOMS = ("tasks", "objectives", "models", "datamodules", "callbacks")


def prepare(settings: Settings) -> SavedRun | None:
    """Import what a config may name, read the checkpoint, and check every setting.

    Args:
        settings: The user's settings; those of the checkpoint are laid below them.

    Returns:
        The settings inside the checkpoint, if one is given.

    Raises:
        UsageError: With everything that is wrong.
        CheckpointError: If the checkpoint is missing or cannot be read.
        ConfigError: If ``ckpt_path`` is a word that means nothing to a new process.
    """
    import_classes()
    if settings.informs:
        return None
    settings.found_last = resolve_word(settings)
    saved = read_run(_text(settings.tree.get("ckpt_path")))
    if saved is not None:
        _lay_below(settings, saved)
    problems = check_settings(settings, _hints(settings.verb), FarlTrainer, _choices())
    if problems := [*problems, *_missing(settings, saved)]:
        raise UsageError(problems)
    return saved


def _lay_below(settings: Settings, saved: SavedRun) -> None:
    """Lay the settings of a checkpoint below the user's."""
    if saved.model is not None:
        _check_same_class(settings, saved)
        settings.lay_below("model", saved.model, str(saved.path))
    if saved.data is not None and not names_class(settings.tree.get("data")):
        settings.lay_below("data", saved.data, str(saved.path))


def import_classes() -> None:
    """Import everything that a config may name: our rooms, the plugins, and make the user's folder importable."""
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # last: files there cannot stand in for installed packages
    for room in _ROOMS:
        package = importlib.import_module(f"farl_lightning.{room}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    for plugin in entry_points(group="farl_lightning.plugins"):
        _load_plugin(plugin)


def _load_plugin(plugin: EntryPoint) -> None:
    """Import a user's package; a broken one must not stop this program."""
    try:
        plugin.load()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        print(f"plugin '{plugin.name}' ({plugin.value}) is left out: {reason}", file=sys.stderr)


def _text(value: Any) -> str | None:
    """Return a setting as text."""
    return None if value is None or str(value) in ("null", "") else str(value)


def _hints(verb: str) -> dict[str, Any]:
    """Return the type of every top-level setting of a verb."""
    own = {parameter.name: parameter.annotation for parameter in parameters(getattr(FarlTrainer, verb))}
    fixed = {
        "model": L.LightningModule | None,
        "data": L.LightningDataModule | None,
        "seed_everything": bool | int,
        "float32_matmul_precision": Literal["highest", "high", "medium"],
        "ckpt_override": bool,
    }
    skipped = {"self", *HANDED_OVER}
    own = {name: hint for name, hint in own.items() if name not in skipped}
    return {**fixed, **own}


def _choices() -> dict[Key, list[str]]:
    """Return the words allowed for strategy and accelerator, which Lightning annotates as ``str``."""
    from lightning.pytorch.accelerators import AcceleratorRegistry
    from lightning.pytorch.strategies import StrategyRegistry

    return {
        ("trainer", "strategy"): ["auto", *StrategyRegistry.available_strategies()],
        ("trainer", "accelerator"): ["auto", "gpu", *AcceleratorRegistry.available_accelerators()],
    }


def _missing(settings: Settings, saved: SavedRun | None) -> list[Problem]:
    """Report that no model or no data is named."""
    problems = []
    for name in ("model", "data"):
        if names_class(settings.tree.get(name)) or (name == "model" and settings.verb in NO_MODEL):
            continue
        if saved is not None:
            text = f"'{saved.path}' does not record its {name}; give --config, or --{name} CLASS"
        else:
            text = f"no {name} is named; give --config (farl-lightning configs lists them) or --{name} CLASS"
        problems.append(Problem("", text))
    if settings.verb == "fit" and saved is not None and "trainer" not in settings.tree:
        near = next(
            (folder / "config.yaml" for folder in saved.path.parents if (folder / "config.yaml").is_file()), None
        )
        problems.append(Problem("", f"to continue a run, give its config too: --config {near or 'CONFIG'}"))
    return problems


def names_class(node: Any) -> bool:
    """Whether a section names its class.

    Args:
        node: The section ``model`` or ``data``, or None.
    """
    return bool(node.get("class_path")) if isinstance(node, dict) else bool(_text(node))


def _check_same_class(settings: Settings, saved: SavedRun | None) -> None:
    """Refuse a checkpoint of another task: it can be neither resumed nor evaluated with this config."""
    node = settings.tree.get("model")
    if saved is None or saved.model is None or not names_class(node):
        return
    name = str(node["class_path"] if isinstance(node, dict) else node)
    try:
        kind = resolve_class(name, [L.LightningModule])
    except ConfigError:  # told with everything else that is wrong
        return
    theirs = saved.model["class_path"]
    if not same_class(theirs, f"{kind.__module__}.{kind.__qualname__}"):
        place = settings.place(("model", "class_path"))
        raise UsageError(
            [
                Problem("", "--ckpt_path continues or evaluates one task, and two are named:"),
                Problem(f"  {saved.path}", f"model is {theirs}"),
                Problem(f"  {place}", f"model is {name}"),
                Problem("", f"To start a {name} from these weights, give --model.weights {saved.path} instead."),
            ]
        )
