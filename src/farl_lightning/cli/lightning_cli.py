"""The verbs with a model: ``fit validate test predict check preview``."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any, Literal

import lightning as L
import torch
from jsonargparse import ArgumentError, Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_info

import farl_lightning
from farl_lightning.callbacks.checkpoint_io import write_atomically
from farl_lightning.callbacks.features import FeatureWriter
from farl_lightning.callbacks.prediction_writer import PredictionWriter
from farl_lightning.callbacks.results import ResultsWriter
from farl_lightning.cli.arguments import Problem, Settings, UsageError
from farl_lightning.cli.checkpoint import Difference, SavedRun, differences
from farl_lightning.cli.inspection import size_line
from farl_lightning.cli.last import SameStart
from farl_lightning.cli.preflight import HANDED_OVER, NO_MODEL, prepare
from farl_lightning.cli.progress import progress_bar
from farl_lightning.cli.schema import dotted, parameters
from farl_lightning.cli.trainer import CHECK_TRAINER, FarlTrainer, headline
from farl_lightning.types import FaceSpec

_EVALUATION = ("validate", "test", "predict")


def run(settings: Settings) -> None:
    """Run a verb.

    Args:
        settings: The user's settings.

    Raises:
        UsageError: With everything that is wrong with them.
    """
    FarlCLI(settings, prepare(settings))


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
        base = self.settings.below
        return [f"--config={json.dumps(base)}"] if base else []

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the verb at hand alone: building the parser of a verb takes half a second."""
        given = {parameter.name for parameter in parameters(getattr(FarlTrainer, self.settings.verb))}
        return {self.settings.verb: set(HANDED_OVER & given)}

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add trainer, model and data; none is required here, since a checkpoint may bring them."""
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({"trainer.enable_model_summary": False})  # ours is printed instead: sizes by part
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
            given = self._section("model").get("init_args")
            found = differences(self.saved.model["init_args"], given, ("model", "init_args"))
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
        if self.settings.verb in NO_MODEL:
            config.model = None
        if self.settings.verb in ("check", "preview"):
            _shrink(config.data.init_args, 2 if self.settings.verb == "check" else config.count)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Build the trainer.

        ``check`` and ``preview`` take one process and write no run folder; evaluation writes its results (``predict``
        features, or masks and landmarks), into the folder of the checkpoint's run unless a logger makes another.

        Args:
            **kwargs: Arguments of the trainer that win over the config.
        """
        if self.settings.verb in ("check", "preview"):
            return super().instantiate_trainer(**{**CHECK_TRAINER, **kwargs, "callbacks": []})
        given = self.config_init[self.settings.verb]
        callbacks = given.trainer.callbacks if isinstance(given.trainer.callbacks, list) else [given.trainer.callbacks]
        added: list[L.Callback] = [*progress_bar(given.trainer.enable_progress_bar, callbacks)]
        if self.settings.found_last:
            added.append(SameStart(given.ckpt_path and str(given.ckpt_path)))
        if self.settings.verb in ("validate", "test"):
            added += [] if any(isinstance(callback, ResultsWriter) for callback in callbacks) else [ResultsWriter()]
            given["verbose"] = False  # the table of results says it, with baselines
        if self.settings.verb == "predict":
            writers = (FeatureWriter, PredictionWriter)
            writer = PredictionWriter if getattr(self.model, "predicts", "") == "faces" else FeatureWriter
            added += [] if any(isinstance(callback, writers) for callback in callbacks) else [writer()]
            given["return_predictions"] = False  # nobody takes them; they would pile up
        if given.trainer.default_root_dir is None:
            kwargs = {"default_root_dir": self._root_folder(bool(given.trainer.fast_dev_run)), **kwargs}
        self.trainer_defaults["callbacks"] = added
        trainer = super().instantiate_trainer(**kwargs)
        write_atomically(trainer)
        return trainer

    def _root_folder(self, trial: bool) -> str | None:
        """Return where files go that no logger has a folder for; None is the current folder."""
        if trial:  # fast_dev_run has no loggers, yet Lightning writes a last checkpoint: none of it is to stay
            self._scratch = tempfile.TemporaryDirectory(prefix="farl-lightning-", ignore_cleanup_errors=True)
            return self._scratch.name
        return _run_folder(self.saved) if self.settings.verb in _EVALUATION else None

    def after_instantiate_classes(self) -> None:
        """Tell data without labels what the checkpoint expects, and a network without outputs which labels there are.

        Then say what runs where, and how large it is.
        """
        if self.saved is not None and self.saved.face_spec and hasattr(self.datamodule, "take_spec"):
            self.datamodule.take_spec(FaceSpec.from_dict(self.saved.face_spec))
        spec = getattr(self.datamodule, "spec", None)
        if spec is not None and not getattr(self.model, "is_built", True):
            self.model.set_spec(spec)
        rank_zero_info(headline(self.trainer, self.settings.verb, self._section("seed_everything")))
        if self.settings.verb == "fit":
            rank_zero_info(size_line(self.model))


def _run_folder(saved: SavedRun | None) -> str | None:
    """Return the folder of the run that wrote a checkpoint; None (here) if it cannot be written to."""
    if saved is None:
        return None
    folder = saved.path.parent
    folder = folder.parent if folder.name == "checkpoints" else folder
    return str(folder) if os.access(folder, os.W_OK) else None


def _shrink(arguments: Namespace, samples: int) -> None:
    """Reduce the data to a few samples, loaded in this process and none ahead of time."""
    samples = max(1, min(samples, arguments.get("batch_size") or samples))
    small = {"batch_size": samples, "num_workers": 0, "cache": False}
    for name, value in small.items():
        if name in arguments:
            arguments[name] = value


def _shorten(message: str) -> str:
    """Keep what a person needs of a message of jsonargparse."""
    lines = [line.rstrip() for line in message.splitlines() if line.strip()]
    noise = ("Given value type", "Problem with given class_path")
    keep = [line for line in lines if not line.lstrip().startswith(noise)]
    return "\n  ".join(keep[:6])
