"""The verbs with a model: ``fit validate test predict check preview``."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
from importlib.metadata import entry_points
from typing import Any, Literal

import lightning as L
import torch
from jsonargparse import ArgumentError, Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_info

import farl_lightning
from farl_lightning.cli.arguments import Problem, Settings, UsageError
from farl_lightning.cli.checkpoint import Difference, SavedRun, differences, read_run
from farl_lightning.cli.schema import check_settings, dotted, parameters, resolve_class
from farl_lightning.cli.trainer import CHECK_TRAINER, FarlTrainer

_ROOMS = ("tasks", "objectives", "models", "datamodules", "callbacks")
_HANDED_OVER = {"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders"}
_EVALUATION = ("validate", "test", "predict")
_NO_MODEL = ("preview",)


def run(settings: Settings) -> None:
    """Run a verb.

    Args:
        settings: The user's settings.

    Raises:
        UsageError: With everything that is wrong with them.
    """
    import_classes()
    saved = None if settings.informs else read_run(_text(settings.tree.get("ckpt_path")))
    if not settings.informs:
        if problems := [
            *check_settings(settings, _hints(settings.verb), FarlTrainer, _choices()),
            *_missing(settings, saved),
        ]:
            raise UsageError(problems)
        _check_same_class(settings, saved)
    FarlCLI(settings, saved)


def import_classes() -> None:
    """Import everything that a config may name: our rooms, the plugins, and make the user's folder importable."""
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # last: files there cannot stand in for installed packages
    for room in _ROOMS:
        package = importlib.import_module(f"farl_lightning.{room}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    for plugin in entry_points(group="farl_lightning.plugins"):
        try:
            plugin.load()
        except Exception as error:  # a broken package of someone else must not stop this one
            print(
                f"plugin '{plugin.name}' ({plugin.value}) is left out: {type(error).__name__}: {error}", file=sys.stderr
            )


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
    skipped = {"self", *_HANDED_OVER}
    own = {name: hint for name, hint in own.items() if name not in skipped}
    return {**fixed, **own}


def _choices() -> dict[tuple[str | int, ...], list[str]]:
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
    for name, known in (("model", saved and saved.model), ("data", saved and saved.data)):
        if known or _names_class(settings.tree.get(name)) or (name == "model" and settings.verb in _NO_MODEL):
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


def _names_class(node: Any) -> bool:
    """Whether a section names its class."""
    return bool(node.get("class_path")) if isinstance(node, dict) else bool(_text(node))


def _check_same_class(settings: Settings, saved: SavedRun | None) -> None:
    """Refuse a checkpoint of another task: it can be neither resumed nor evaluated with this config."""
    node = settings.tree.get("model")
    if saved is None or saved.model is None or not _names_class(node):
        return
    name = str(node["class_path"] if isinstance(node, dict) else node)
    kind = resolve_class(name, [L.LightningModule])
    theirs = saved.model["class_path"]
    if f"{kind.__module__}.{kind.__qualname__}" != theirs:
        place = settings.place(("model", "class_path"))
        raise UsageError(
            [
                Problem("", f"--ckpt_path continues or evaluates one task, and two are named:"),
                Problem(f"  {saved.path}", f"model is {theirs}"),
                Problem(f"  {place}", f"model is {name}"),
                Problem("", f"To start a {name} from these weights, give --model.weights {saved.path} instead."),
            ]
        )


class SaveRunConfig(SaveConfigCallback):
    """Saves the merged config in the run's folder; without a logger there is none, and nothing is written."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Save the config when a run starts.

        Args:
            trainer: The trainer, whose first logger makes the folder.
            pl_module: The task.
            stage: ``"fit"``.
        """
        if trainer.loggers:
            super().setup(trainer, pl_module, stage)


class FarlCLI(LightningCLI):
    """LightningCLI with settings that know their origin, and checkpoints that never override them silently.

    Settings inside a checkpoint are laid *below* the user's: whatever differs afterwards was given by the user, and
    is refused (or, with ``--ckpt_override``, announced). Lightning lays them above, without a word.

    Args:
        settings: The user's settings.
        saved: The settings inside the checkpoint, if one is given.
    """

    def __init__(self, settings: Settings, saved: SavedRun | None = None) -> None:
        self.settings = settings
        self.saved = saved
        header = [
            f"farl-lightning {farl_lightning.__version__}, lightning {L.__version__}, torch {torch.__version__}",
            f"repeat with: farl-lightning {settings.verb} --config THIS_FILE",
        ]
        common = {"dump_header": header, "allow_abbrev": False, "exit_on_error": False}
        super().__init__(
            L.LightningModule,
            L.LightningDataModule,
            save_config_callback=SaveRunConfig if settings.verb == "fit" else None,
            save_config_kwargs={"overwrite": True},
            trainer_class=FarlTrainer,
            seed_everything_default=0,
            parser_kwargs={"prog": "farl-lightning", **common, settings.verb: dict(common)},
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            args=[settings.verb, *self._base(), *settings.argv],
        )

    def _base(self) -> list[str]:
        """Return the checkpoint's settings as the first config."""
        base: dict[str, Any] = {}
        if self.saved is not None and self.saved.model is not None:
            base["model"] = self.saved.model
        if self.saved is not None and self.saved.data is not None and not _names_class(self.settings.tree.get("data")):
            base["data"] = self.saved.data
        return [f"--config={json.dumps(base)}"] if base else []

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the verb at hand alone: building the parser of a verb takes half a second."""
        return {
            self.settings.verb: _HANDED_OVER & {p.name for p in parameters(getattr(FarlTrainer, self.settings.verb))}
        }

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add trainer, model and data; none is required here, since a checkpoint may bring them."""
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        if self.settings.verb in _EVALUATION:
            parser.set_defaults({"trainer.logger": False})
        parser.add_lightning_class_args(L.LightningModule, "model", subclass_mode=True, required=False)
        parser.add_lightning_class_args(L.LightningDataModule, "data", subclass_mode=True, required=False)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what Lightning lacks."""
        parser.add_argument(
            "--float32_matmul_precision",
            type=Literal["highest", "high", "medium"],
            default="highest",
            help="Precision of float32 matrix products on a GPU: 'high' uses TensorFloat-32, which is much faster.",
        )
        parser.add_argument(
            "--ckpt_override",
            action="store_true",
            help="Let settings given here win over those inside the checkpoint; each one is printed.",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and report what the check before did not find in a few lines."""
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            raise UsageError([Problem("", _shorten(str(error)))]) from error

    def _parse_ckpt_path(self) -> None:
        """Compare the parsed settings with those inside the checkpoint (in Lightning: override them)."""
        if self.saved is None:
            return
        found = []
        if self.saved.model is not None and self._section("model") is not None:
            found = differences(
                self.saved.model["init_args"], self._section("model").get("init_args"), ("model", "init_args")
            )
        if found and not self.config[self.settings.verb].get("ckpt_override"):
            raise UsageError([*map(self._conflict, found), Problem("", self._way_out())])
        for difference in found:
            rank_zero_info(f"--ckpt_override: {self._conflict(difference)}; the latter is used")

    def _conflict(self, difference: Difference) -> Problem:
        """Write a difference with both values and where each comes from."""
        place = self.settings.place(difference.key) or "the config"
        path = self.saved.path if self.saved else ""
        name = dotted(difference.key)
        return Problem("", f"{name}: {difference.saved!r} in {path}, {difference.given!r} in {place}")

    def _way_out(self) -> str:
        """Say what to do about conflicts."""
        verb = "continue" if self.settings.verb == "fit" else "evaluate"
        return f"To {verb} with the values given here, add --ckpt_override; else leave them out."

    def _section(self, name: str) -> Any:
        """Return a section of the parsed config."""
        return self.config[self.settings.verb].get(name)

    def before_instantiate_classes(self) -> None:
        """Set what must be set before anything is built."""
        config = self.config[self.settings.verb]
        torch.set_float32_matmul_precision(config.float32_matmul_precision)
        if self.settings.verb in _NO_MODEL:
            config.model = None
        if self.settings.verb in ("check", "preview"):
            _shrink(config.data.init_args, 2 if self.settings.verb == "check" else config.count)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Build the trainer; ``check`` and ``preview`` take one process and write no run folder."""
        if self.settings.verb in ("check", "preview"):
            kwargs = {**CHECK_TRAINER, **kwargs, "callbacks": []}
        return super().instantiate_trainer(**kwargs)

    def after_instantiate_classes(self) -> None:
        """Say in one line what runs where."""
        rank_zero_info(self.trainer.headline(self.settings.verb, self._section("seed_everything")))


def _shrink(arguments: Namespace, samples: int) -> None:
    """Reduce the data to a few samples, loaded in this process and none ahead of time."""
    small = {
        "batch_size": max(1, min(samples, arguments.get("batch_size") or samples)),
        "num_workers": 0,
        "cache": False,
    }
    for name, value in small.items():
        if name in arguments:
            arguments[name] = value


def _shorten(message: str) -> str:
    """Keep what a person needs of a message of jsonargparse."""
    lines = [line.rstrip() for line in message.splitlines() if line.strip()]
    keep = [
        line for line in lines if not line.lstrip().startswith(("Given value type", "Problem with given class_path"))
    ]
    return "\n  ".join(keep[:6])
