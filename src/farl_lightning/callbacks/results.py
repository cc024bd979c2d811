"""The outcome of a run: one file for programs, one short table for people."""

from __future__ import annotations

import importlib.metadata
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from typing_extensions import override

from farl_lightning.callbacks.reference_table import aligned, reference_table, write_csv
from farl_lightning.callbacks.run import announce, is_trial, run_folder
from farl_lightning.text import natural

_PACKAGES = ("farl-lightning", "torch", "lightning", "timm", "transformers")


class ResultsWriter(L.Callback):
    """Write ``results.json`` into the run's folder and print a table when fit, validate or test ends.

    The file has one section per stage (``fit``, ``validate``, ``test``) with ``metrics`` (value; where the task
    knows it, baseline, its kind, difference and the 95 % bootstrap interval of the difference; published value, how it
    was selected and the difference to it), ``epochs``, ``steps``, ``seconds`` (earlier parts of a resumed run
    included), ``checkpoint``, ``pictures``, ``settings`` (the task's and the datamodule's) and ``versions``.

    A second table sets published values beside one's own, where the task has any. What a task keeps in ``tables``
    (scores per class or subset) is written as ``<stage>_<name>.csv`` by validate and test. A trial (``fast_dev_run``)
    prints the tables alone.
    """

    def __init__(self) -> None:
        self._folder = Path()
        self._began = time.monotonic()
        self._before = 0.0

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the folder of the run, and start the clock."""
        self._folder = run_folder(trainer)
        self._began, self._before = time.monotonic(), 0.0

    @override
    def state_dict(self) -> dict[str, Any]:
        """Return the time spent so far."""
        return {"seconds": self._seconds()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Add the time that was spent before."""
        self._before = float(state_dict["seconds"])

    @override
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write and print."""
        self._finish(trainer, pl_module, "fit")

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write and print, when validation is all there is."""
        if trainer.state.fn == "validate":
            self._finish(trainer, pl_module, "validate")

    @override
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write and print."""
        self._finish(trainer, pl_module, "test")

    def _seconds(self) -> float:
        return self._before + time.monotonic() - self._began

    def _finish(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Collect everything on the first process, write the file, print the table."""
        if not trainer.is_global_zero:
            return
        section = self._section(trainer, pl_module)
        path = self._folder / "results.json"
        places = {"checkpoint": section["checkpoint"], "pictures": section["pictures"], "results": path}
        if is_trial(trainer):
            lines = ["a trial (fast_dev_run): these numbers are not kept"]
        else:
            merge_section(path, stage, section)
            places |= self._write_tables(pl_module, stage)
            lines = [f"{label:<11} {place}" for label, place in places.items() if place]
        tables = [table(section["metrics"]), self._published(trainer, pl_module, stage)]
        announce(trainer, pl_module, "\n".join(["", *(f"{text}\n" for text in tables if text), *lines]))

    def _write_tables(self, pl_module: L.LightningModule, stage: str) -> dict[str, Path]:
        """Write what the task keeps per class or subset; return the files by name."""
        if stage == "fit":
            return {}
        files = {}
        for name, rows in getattr(pl_module, "tables", {}).items():
            files[name.replace("_", " ")] = self._folder / f"{stage}_{name}.csv"
            write_csv(files[name.replace("_", " ")], rows)
        return files

    def _published(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> str:
        """Set published values beside those of this stage."""
        prefix = "test/" if stage == "test" else "val/"
        references = getattr(pl_module, "references", {})
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        return reference_table(metrics, {k: entry for k, entry in references.items() if k.startswith(prefix)})

    def _section(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Return what one stage leaves behind, as plain data."""
        metrics = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        references = getattr(pl_module, "references", {})
        pictures = self._folder / "pictures"
        return {
            "metrics": {name: with_reference(value, references.get(name, {})) for name, value in metrics.items()},
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "seconds": round(self._seconds(), 1),
            "checkpoint": _checkpoint(trainer),
            "pictures": str(pictures) if pictures.is_dir() else None,
            "settings": {"model": _settings(pl_module), "data": _settings(getattr(trainer, "datamodule", None))},
            "versions": versions(),
        }


def with_reference(value: float, reference: Mapping[str, Any]) -> dict[str, Any]:
    """Put a metric beside its baseline.

    Args:
        value: The metric; a number that is not finite is written as None.
        reference: ``baseline``, ``kind``, ``low``, ``high``, ``paper`` and ``selection``, as far as they are known.

    Example:
        >>> with_reference(0.5, {"baseline": 0.25, "kind": "chance"})
        {'value': 0.5, 'baseline': 0.25, 'kind': 'chance', 'difference': 0.25}
    """
    result: dict[str, Any] = {"value": value, **reference}
    if "baseline" in reference:
        result["difference"] = value - reference["baseline"]
    if "paper" in reference:
        result["difference_to_paper"] = value - reference["paper"]
    return {key: None if isinstance(item, float) and not math.isfinite(item) else item for key, item in result.items()}


def table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Return metrics as an aligned table: name, value and, as far as any has them, baseline, difference and interval.

    Args:
        metrics: By name, as :func:`with_reference` returns them. Shown are those of validation and test that are
            not only another's baseline, in natural order.
    """
    rows = [("metric", "value", "baseline", "difference", "95 % interval")]
    for name, entry in sorted(metrics.items(), key=lambda item: natural(item[0])):
        if not name.startswith(("val/", "test/")) or name.endswith(("_majority", "_majority_share", "_balanced")):
            continue
        baseline = f"{_number(entry.get('baseline'))} {entry.get('kind', '')}" if "baseline" in entry else ""
        interval = f"{_number(entry['low'], True)} .. {_number(entry['high'], True)}" if "low" in entry else ""
        difference = _number(entry["difference"], True) if "difference" in entry else ""
        rows.append((name, _number(entry.get("value")), baseline, difference, interval))
    if len(rows) == 1:
        return "no validation or test metrics were logged"
    used = [column for column in range(len(rows[0])) if any(row[column] for row in rows[1:])]
    return aligned([[row[column] for column in used] for row in rows])


def merge_section(path: Path, stage: str, section: dict[str, Any]) -> None:
    """Write one stage's section into a results file, keeping those of other stages.

    Args:
        path: The file; made with its folder when it does not exist.
        stage: Name of the section.
        section: Plain data.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    content[stage] = section
    scratch = path.with_suffix(".tmp")  # a reader never meets half a file
    scratch.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    scratch.replace(path)


def _number(value: float | None, signed: bool = False) -> str:
    """Format a number of a table; ``n/a`` for what could not be computed."""
    return "n/a" if value is None else f"{value:+.4f}" if signed else f"{value:.4f}"


def _checkpoint(trainer: L.Trainer) -> str | None:
    """Return the checkpoint to go on with: the best of this run, else the last, else the one that was loaded."""
    callback = trainer.checkpoint_callback
    found = [getattr(callback, "best_model_path", ""), getattr(callback, "last_model_path", ""), trainer.ckpt_path]
    return next((str(path) for path in found if path), None)


def _settings(part: Any) -> Any:
    """Return the plain hyper-parameters of a task or datamodule."""
    hparams = dict(getattr(part, "hparams", {}) or {})
    hparams.pop("_instantiator", None)
    return json.loads(json.dumps(hparams, default=str))


def versions() -> dict[str, str | None]:
    """Return the versions of the packages that numbers depend on; None for those that are not installed."""
    return {name: _version(name) for name in _PACKAGES}


def _version(package: str) -> str | None:
    """Return the version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
