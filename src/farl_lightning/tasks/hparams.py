"""Hyper-parameters of a task as plain data, the same whether Python or the command line built it."""

from __future__ import annotations

import inspect
from contextlib import redirect_stderr
from io import StringIO
from typing import Any

from lightning.pytorch.core.mixins.hparams_mixin import HyperparametersMixin

from farl_lightning.errors import ConfigError
from farl_lightning.types import Configurable, to_plain

# the only function that Lightning lets a checkpoint name; it builds nested {"class_path", "init_args"}
INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"


def plain_hyperparameters(task: Configurable) -> dict[str, Any]:
    """Return the constructor arguments of a task as str, number, bool, None, list and dict.

    Objects stand as ``{"class_path", "init_args"}``, dataclasses as dicts. ``_class_path`` and ``_instantiator`` tell
    ``load_from_checkpoint`` and the command line which class to build, and how.

    Args:
        task: A task whose constructor has been entered.

    Raises:
        ConfigError: If an argument cannot be written as plain data; names the argument.
    """
    kind = type(task)
    arguments = {name: _plain(kind, name, value) for name, value in task.init_args.items()}
    if _takes_more(kind):
        arguments = {**_inherited_defaults(kind), **arguments}
    return {"_class_path": f"{kind.__module__}.{kind.__qualname__}", "_instantiator": INSTANTIATOR, **arguments}


def _plain(kind: type, name: str, value: Any) -> Any:
    """Turn one argument into plain data; an object that cannot tell stands as the command line wrote it."""
    try:
        return to_plain(value)
    except ConfigError as error:
        given = _given_by_cli()
        if name in given:
            return given[name]
        raise ConfigError(f"{kind.__name__}({name}=...): {error}") from error


def _given_by_cli() -> dict[str, Any]:
    """Return the plain arguments that LightningCLI is building an object from; nothing when Python builds it."""
    probe = HyperparametersMixin()
    probe.save_hyperparameters()  # takes what the command line gave, and only that carries an instantiator
    return dict(probe.hparams) if "_instantiator" in probe.hparams else {}


def _takes_more(kind: type) -> bool:
    """Whether the constructor hands ``**kwargs`` on to its parents."""
    parameters = inspect.signature(kind).parameters.values()
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)


def _inherited_defaults(kind: type) -> dict[str, Any]:
    """Return the defaults of all arguments, those behind ``**kwargs`` included, as the command line sees them."""
    import yaml
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    with redirect_stderr(StringIO()):
        parser.add_class_arguments(kind, "task", fail_untyped=False)
    dumped = yaml.safe_load(parser.dump(parser.get_defaults(), skip_none=False, skip_validation=True))
    return dict(dumped.get("task", {}))
