"""How the cells of a benchmark are measured: configs of ``fit`` trained and tested here, probes on shared features."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.callbacks import Timer

from farl_lightning.benchmark.cells import Cell
from farl_lightning.benchmark.config import Benchmark, Encoder, Pretraining
from farl_lightning.benchmark.runner import LOG, Measurement
from farl_lightning.benchmark.store import digest
from farl_lightning.cli.arguments import read_settings, read_yaml
from farl_lightning.cli.lightning_cli import FarlCLI
from farl_lightning.cli.preflight import prepare
from farl_lightning.cli.probe_cells import FeatureFolder, measure_probe
from farl_lightning.cli.quiet import log_to
from farl_lightning.cli.shipped import find_config
from farl_lightning.datamodules.faces import DenseDataModule
from farl_lightning.errors import ConfigError, did_you_mean

_HERE: dict[str, Any] = {
    "devices": 1,
    "num_nodes": 1,
    "strategy": "auto",
    "enable_progress_bar": False,
}
"""Settings of the trainer of every cell: this process alone, and nothing on the screen."""


class FitWorker:
    """Measures the cells of a benchmark in this process, one after the other.

    Faces that cells share are opened (or drawn) once.

    Args:
        benchmark: Whose cells are measured.
    """

    def __init__(self, benchmark: Benchmark) -> None:
        self.benchmark = benchmark
        self._faces: dict[str, DenseDataModule] = {}
        self._features = FeatureFolder(Path(benchmark.output).expanduser() / "features")
        self._bases: dict[str, dict[str, Any]] = {}
        self._probed: dict[str, BuiltCLI] = {}

    def describe_encoder(self, encoder: Encoder) -> Any:
        """Return all that an encoder depends on, as plain data.

        Args:
            encoder: One of the benchmark.

        Raises:
            ConfigError: If its config is missing.
        """
        if encoder.pretrain is not None:
            return self.pretraining(encoder, encoder.pretrain)
        own = [_identity(encoder.weights), self._image(encoder)]
        return own if encoder.backbone is None else [*own, encoder.backbone]

    def describe(self, cell: Cell) -> Any:
        """Return all that a cell depends on besides its encoder, as plain data.

        Args:
            cell: One of the benchmark.

        Raises:
            ConfigError: If its config is missing.
        """
        return [self.settings(cell), cell.method, cell.labels, cell.task.column, cell.task.metric]

    def _base(self, name: str) -> dict[str, Any]:
        """Return the settings of a config."""
        if name not in self._bases:
            self._bases[name] = read_yaml(find_config(name))[0]
        return self._bases[name]

    def _image(self, encoder: Encoder) -> dict[str, Any]:
        """Return the settings of an encoder's image tower."""
        return {**self.benchmark.image, **encoder.image}

    def pretraining(self, encoder: Encoder, how: Pretraining) -> dict[str, Any]:
        """Return the settings of an encoder's pretraining.

        Args:
            encoder: Whose image tower it is.
            how: Its config, and what is laid over it.

        Raises:
            ConfigError: If the config is missing.
        """
        image = self._image(encoder)
        tower = {"model": {"init_args": {"clip": {"image": image}}}} if image else {}
        layers = [tower, self.benchmark.pretrain_settings, how.settings, {"trainer": _HERE}]
        return merged(self._base(how.config), *layers)

    def settings(self, cell: Cell) -> dict[str, Any]:
        """Return the settings of a cell, but for the weights.

        Args:
            cell: One of the benchmark.

        Raises:
            ConfigError: If the config of its task is missing.
        """
        image = self._image(cell.encoder)
        tower = {"model": {"init_args": {"network": {"image": image}}}} if image else {}
        tuning = {} if cell.probed else {"tuning": cell.method}
        # probes take their share of the features of all faces
        share = {} if cell.probed or cell.labels == 1 else {"train_fraction": cell.labels}
        own = {
            "seed_everything": cell.seed,
            "trainer": _HERE,
            "model": {"init_args": {"seed": cell.seed, **tuning}},
            "data": {"init_args": {"seed": cell.seed, **share}},
        }
        tree = merged(self._base(cell.task.config), tower, self.benchmark.settings, cell.task.settings, own)
        return tree if _saver(tree) else merged(tree, {"trainer": {"enable_checkpointing": False}})

    def pretrain(self, encoder: Encoder, folder: Path) -> tuple[str, dict[str, Any]]:
        """Train an encoder, or go on from the last checkpoint of an earlier attempt with the same settings.

        Args:
            encoder: With ``pretrain``.
            folder: For its run.

        Returns:
            The file of weights; steps and seconds of training.

        Raises:
            ConfigError: If the encoder is not to be pretrained.
            FarlError: Whatever stops the run.
        """
        if encoder.pretrain is None:
            raise ConfigError(f"encoder {encoder.name} has no 'pretrain'")
        run = folder / digest(self.describe_encoder(encoder))  # a run of other settings is never continued
        run.mkdir(exist_ok=True)
        found = sorted(run.rglob("last.ckpt"), key=lambda path: path.stat().st_mtime)
        resume = str(found[-1]) if found else None
        with log_to(folder / LOG):
            built = build(self.pretraining(encoder, encoder.pretrain), run, resume)
            timer = Timer()
            built.trainer.callbacks.append(timer)  # type: ignore[attr-defined]  # set by a connector
            built.trainer.fit(built.model, datamodule=built.datamodule, ckpt_path=resume)
            weights = run / "encoder.ckpt"
            built.trainer.save_checkpoint(weights, weights_only=True)
        return str(weights), {"steps": built.trainer.global_step, "seconds": round(timer.time_elapsed("train"), 1)}

    def measure(self, cell: Cell, weights: str | None, folder: Path) -> Measurement:
        """Measure a cell.

        Args:
            cell: The cell.
            weights: Of its encoder; None for random ones.
            folder: For its config and its log.

        Raises:
            ConfigError: If the metric is not among those of the task.
            FarlError: Whatever stops it.
        """
        (folder / LOG).unlink(missing_ok=True)
        with log_to(folder / LOG):
            if cell.probed:
                return measure_probe(cell, weights, self._build_probed(cell, folder), self._features)
            source = {"model": {"init_args": {"weights": weights}}}
            built = build(merged(self.settings(cell), source), folder)
            self._share_faces(built)
            return _train(cell, built, folder)

    def _build_probed(self, cell: Cell, folder: Path) -> BuiltCLI:
        """Build what probes read: faces and sizes, the same for all seeds, shares and weights."""
        name = digest([cell.task.name, self._image(cell.encoder)])
        if name not in self._probed:
            self._probed[name] = build(self.settings(cell), folder)
            self._share_faces(self._probed[name])
        return self._probed[name]

    def _share_faces(self, built: BuiltCLI) -> None:
        """Let a cell read the faces that an earlier one opened."""
        data = built.datamodule
        if not isinstance(data, DenseDataModule):
            return
        settings = {name: value for name, value in data.hparams.items() if name not in ("seed", "train_fraction")}
        data.share_faces(self._faces.setdefault(digest(settings), data))


class BuiltCLI(FarlCLI):
    """Builds task, data and trainer of a command line, and leaves it to others to run them."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Run nothing (in Lightning: the subcommand)."""


def build(tree: Mapping[str, Any], folder: Path, resume: str | None = None) -> BuiltCLI:
    """Build what settings of ``fit`` describe; they are kept in ``fit.yaml``.

    Args:
        tree: All settings.
        folder: For all that the run writes.
        resume: Checkpoint that the run goes on from.

    Raises:
        UsageError: With everything that is wrong with the settings.
        CheckpointError: If the checkpoint cannot be read.
    """
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": str(folder), "name": "", "version": "log"}}
    tree = merged(tree, {"trainer": {"logger=": logger, "default_root_dir": str(folder)}})
    file = folder / "fit.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), encoding="utf-8")
    words = ["--config", str(file), *([f"--ckpt_path={resume}"] if resume else [])]
    settings = read_settings("fit", words)
    return BuiltCLI(settings, prepare(settings))


def _train(cell: Cell, built: BuiltCLI, folder: Path) -> Measurement:
    """Train and test a cell; its checkpoints are not kept."""
    trainer = built.trainer
    trainer.fit(built.model, datamodule=built.datamodule)
    saver = trainer.checkpoint_callback
    # without a metric to monitor, the newest file is the "best", which may be older than the last step
    best = getattr(saver, "best_model_path", "") or None if getattr(saver, "monitor", None) else None
    trainer.test(built.model, datamodule=built.datamodule, ckpt_path=best, verbose=False)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("test/")}
    shutil.rmtree(folder / "log" / "checkpoints", ignore_errors=True)
    trained = sum(parameter.numel() for parameter in built.model.parameters() if parameter.requires_grad)
    selected = f"best {getattr(saver, 'monitor', '')}" if best else "last step"
    details = {"steps": trainer.global_step, "trainable_parameters": trained, "selected": selected}
    return Measurement(pick(cell.task.metric, metrics), metrics, details)


def _saver(tree: Mapping[str, Any]) -> bool:
    """Whether settings name a callback that saves checkpoints."""
    callbacks = (tree.get("trainer") or {}).get("callbacks") or []
    listed = callbacks if isinstance(callbacks, list) else [callbacks]
    names = [node.get("class_path", "") if isinstance(node, Mapping) else str(node) for node in listed]
    return any(name.endswith("ModelCheckpoint") for name in names)


def pick(metric: str, metrics: Mapping[str, float]) -> float:
    """Return one metric.

    Args:
        metric: Its key.
        metrics: What was measured, by key.

    Raises:
        ConfigError: If it is not among them, with the nearest match.
    """
    if metric not in metrics:
        hint = did_you_mean(metric, metrics)
        raise ConfigError(f"there is no metric '{metric}' among the results. {hint}")
    return metrics[metric]


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Lay settings over each other: mappings merge, other values replace; a new class replaces all of the old one.

    A name that ends in ``=`` replaces a mapping as a whole, one that ends in ``+`` appends to a list.

    Args:
        *layers: From the lowest to the highest; none is changed.

    Example:
        >>> merged({"a": {"b": 1}, "c": {"d": 2}}, {"a": {"e": 3}, "c=": {"f": 4}})
        {'a': {'b': 1, 'e': 3}, 'c': {'f': 4}}
    """
    result: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            bare = name.rstrip("=+")
            old = result.get(bare)
            if name.endswith("+") and isinstance(value, list):
                result[bare] = [*(old or []), *value]
            elif isinstance(value, Mapping):
                base = old if isinstance(old, Mapping) and name == bare and not _other_class(old, value) else {}
                result[bare] = merged(base, value) if base else merged(value)
            else:
                result[bare] = value
    return result


def _other_class(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether both name a class, and not the same one."""
    return "class_path" in old and "class_path" in new and old["class_path"] != new["class_path"]


def _identity(weights: str | None) -> Any:
    """Return what tells a file of weights from others; names stand for themselves."""
    path = Path(weights).expanduser() if weights is not None else None
    if path is None or not path.is_file():
        return weights
    found = path.stat()
    return [path.name, found.st_size, found.st_mtime_ns]
