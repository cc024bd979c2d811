"""Fairness: any test split by subgroups, as tables, a picture and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from typing_extensions import override

from farl_lightning.callbacks.gather import gather_json
from farl_lightning.callbacks.pair_groups import LIST, PictureGroups
from farl_lightning.callbacks.reference_table import aligned, write_csv
from farl_lightning.callbacks.run import announce, is_trial, run_folder
from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.metrics import SubgroupScores, SubgroupTable
from farl_lightning.metrics.subgroups import CROSS
from farl_lightning.text import bin_name
from farl_lightning.types import ATTRIBUTES, FaceSpec
from farl_lightning.visualization import save_png, subgroup_picture


class SubgroupResults(L.Callback):
    """Split the results of ``test`` (or ``validate``) by subgroups, as Casual Conversations does.

    For every column and task: the mean over the faces of each group with its 95 % interval and size, the worst and the
    best group, and the gap between them with its interval and the gap that chance alone would make. Single faces are
    judged by accuracy, mean absolute error, NME, or F1 of their own pixels, as the task has it; the mean F1 over
    pictures is not that of the whole dataset. Verification judges pairs: a pair belongs to a group when both its faces
    do, and ``faces`` counts pairs.

    Written are ``<stage>_subgroups.csv`` (a row per group), ``<stage>_gaps.csv`` (a row per column) and
    ``<stage>_subgroups.png``; logged are ``<outcome>_worst_<column>`` and ``<outcome>_gap_<column>``. Counted once per
    face under any number of processes; a trial (``fast_dev_run``) writes nothing.

    Args:
        columns: What to split by: columns of subgroups of the data, labels (of classes, of numbers in ``bins``) or
            attributes; ``"gender x age_group"`` takes the combinations of two; ``"list"`` parts lists of pairs. None
            takes all subgroups of the data, and the lists where there are several.
        bins: Limits that divide a label that is a number: ``{"age": [18, 30, 60]}``.
        min_faces: Groups of fewer faces are listed, but are neither worst nor best.

    Raises:
        ConfigError: If a setting cannot work, and in the run, if the task judges no single faces or the data lack a
            column.
    """

    def __init__(
        self, columns: list[str] | None = None, bins: dict[str, list[float]] | None = None, min_faces: int = 10
    ) -> None:
        if columns is not None and (not columns or len(set(columns)) < len(columns)):
            raise ConfigError(f"SubgroupResults(columns={columns}): name columns, each once, or null for all of them")
        if min_faces < 1:
            raise ConfigError(f"SubgroupResults(min_faces={min_faces}): give a number of 1 or more")
        for name, limits in (bins or {}).items():
            if not limits or sorted(set(limits)) != list(limits):
                raise ConfigError(f"SubgroupResults: bins of '{name}' must be rising limits, got {limits}")
        self.columns, self.bins, self.min_faces = columns, bins or {}, min_faces
        self._scores: SubgroupScores | None = None
        self._pictures: PictureGroups | None = None
        self._tables: dict[str, SubgroupTable] = {}
        self._folder = Path()

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the folder of the run."""
        self._folder = run_folder(trainer)

    @override
    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Ask the task to judge every face."""
        self._begin(pl_module)

    @override
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Ask the task to judge every face, when validation is all there is."""
        if trainer.state.fn == "validate":
            self._begin(pl_module)

    @override
    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a batch."""
        self._add(pl_module, batch, dataloader_idx)

    @override
    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a batch, when validation is all there is."""
        if trainer.state.fn == "validate":
            self._add(pl_module, batch, dataloader_idx)

    @override
    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare the groups."""
        self._compare(pl_module, "test")

    @override
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare the groups, when validation is all there is."""
        if trainer.state.fn == "validate":
            self._compare(pl_module, "val")

    @override
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write and print."""
        self._write(trainer, pl_module, "test")

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write and print, when validation is all there is."""
        if trainer.state.fn == "validate":
            self._write(trainer, pl_module, "validate")

    def _begin(self, pl_module: Any) -> None:
        """Start anew."""
        if not getattr(pl_module, "outcome_name", ""):
            raise ConfigError(
                f"SubgroupResults: {type(pl_module).__name__} judges no single faces; remove the callback"
            )
        pl_module.wants_outcomes = True
        self._scores, self._tables = None, {}
        self._pictures = PictureGroups(self.columns) if pl_module.judges_pairs else None

    def _add(self, pl_module: Any, batch: Mapping[str, Any], loader: int) -> None:
        """Add the outcomes of a batch, or the groups of its pictures where pairs are judged."""
        spec = pl_module.spec or FaceSpec()
        if self._pictures is not None:
            columns = [name for name in self.columns or list(batch.get("groups", {})) if name != LIST]
            self._pictures.add(loader, batch["key"], batch_groups(batch, columns, self.bins, spec))
            return
        outcomes: Tensor | None = pl_module.outcomes
        if outcomes is None:
            raise ConfigError(f"SubgroupResults: {type(pl_module).__name__} judged no face of this data")
        columns = self.columns or list(batch.get("groups", {}))
        if self._scores is None:
            self._scores = self._new_scores(pl_module, columns)
        self._scores.update(outcomes, batch_groups(batch, columns, self.bins, spec), batch.get("valid"))

    def _add_pairs(self, pl_module: Any, pictures: PictureGroups) -> None:
        """Add the outcomes of all pairs, which every process knows, on one process."""
        outcomes, groups = pictures.of_pairs(pl_module.judged_pairs(), pl_module.device)
        scores = self._new_scores(pl_module, list(groups))
        if pl_module.global_rank == 0:
            scores.update(outcomes, groups)
        self._scores, self._pictures = scores, None

    def _new_scores(self, pl_module: Any, columns: list[str]) -> SubgroupScores:
        if not columns:
            raise ConfigError("SubgroupResults: the data have no subgroups; name labels or attributes as columns")
        better = pl_module.mode == "max"
        return SubgroupScores(columns, higher_is_better=better, min_faces=self.min_faces).to(pl_module.device)

    def _compare(self, pl_module: Any, stage: str) -> None:
        """Compare the groups over all processes, and log; every process calls it, with or without a batch."""
        if self._pictures is not None:
            self._add_pairs(pl_module, self._pictures)
        own = [] if self._scores is None else [list(self._scores.columns)]
        columns = gather_json(own, pl_module.device)
        pl_module.wants_outcomes = False
        if not columns:
            return
        scores = self._scores or self._new_scores(pl_module, columns[0])
        scores.compute()
        self._tables, self._scores = scores.tables, None
        for column, table in self._tables.items():
            if table.worst:
                log_gap(pl_module, f"{stage}/{pl_module.outcome_name}", column.replace(CROSS, "_x_"), table)

    def _write(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Write tables and picture, and print the gaps."""
        if not trainer.is_global_zero or not self._tables:
            return
        lines = [gap_table(self._tables, pl_module.outcome_name)]
        if not is_trial(trainer):
            lines += ["", *write_tables(self._folder, stage, pl_module.outcome_name, self._tables)]
        announce(trainer, pl_module, "\n".join(["", *lines]))


def batch_groups(
    batch: Mapping[str, Any], columns: Sequence[str], bins: Mapping[str, Sequence[float]], spec: FaceSpec
) -> dict[str, list[str]]:
    """Return the subgroup of each face of a batch, for every column and every part of a combined one.

    Args:
        batch: With ``groups``, ``labels`` or both.
        columns: See :class:`SubgroupResults`.
        bins: Limits of labels that are numbers.
        spec: Names of classes and attributes.

    Raises:
        ConfigError: If there is no such column, or a number has no limits.
    """
    groups: dict[str, list[str]] = dict(batch.get("groups", {}))
    single = [name for column in columns for name in ([column] if column in groups else column.split(CROSS))]
    for name in dict.fromkeys(single):
        if name not in groups or name in bins:
            groups[name] = _label_groups(batch, name, bins, spec)
    return groups


def _label_groups(
    batch: Mapping[str, Any], name: str, bins: Mapping[str, Sequence[float]], spec: FaceSpec
) -> list[str]:
    """Turn a label, or an attribute, into names of groups."""
    labels = batch.get("labels", {})
    labels = labels if isinstance(labels, Mapping) else {ATTRIBUTES: labels}
    if name in labels and name in bins:
        return [bin_name(value, bins[name]) for value in labels[name].tolist()]
    if name in labels and spec.label_names.get(name):
        names = spec.label_names[name]
        return [names[label] if label >= 0 else "" for label in labels[name].tolist()]
    if name in spec.attributes and ATTRIBUTES in labels:
        sides = (f"not {name}", name, "")  # -1 is the last
        return [sides[label] for label in labels[ATTRIBUTES][:, spec.attributes.index(name)].tolist()]
    if name in labels and name != ATTRIBUTES:
        raise ConfigError(f"SubgroupResults: '{name}' is a number; give bins, such as {{{name}: [18, 30, 60]}}")
    known = [*batch.get("groups", {}), *(set(labels) - {ATTRIBUTES}), *spec.attributes]
    raise ConfigError(f"SubgroupResults: the data have no column '{name}'. {did_you_mean(name, known)}")


def log_gap(pl_module: Any, prefix: str, column: str, table: SubgroupTable) -> None:
    """Log worst group and gap of a column, and keep what to read the gap against.

    Args:
        pl_module: The task.
        prefix: Stage and outcome.
        column: Name of the column in keys.
        table: Its groups.
    """
    worst = next(row["mean"] for row in table.rows if row["note"] == "worst")
    gap = table.gap
    for key, value in ((f"{prefix}_worst_{column}", worst), (f"{prefix}_gap_{column}", gap.value)):
        same = torch.tensor(value, dtype=torch.float32, device=pl_module.device)
        pl_module.log(key, same, sync_dist=True, reduce_fx="max")  # equal on all processes, which Lightning must hear
    pl_module.references[f"{prefix}_gap_{column}"] = {
        "baseline": gap.chance,
        "kind": "chance",
        "low": gap.low - gap.chance,
        "high": gap.high - gap.chance,
    }


def gap_table(tables: Mapping[str, SubgroupTable], outcome: str) -> str:
    """Return a text: for each column worst and best group, the gap, its interval, and the gap of chance.

    Args:
        tables: By column.
        outcome: What single faces were judged by.
    """
    rows = [("split by", f"worst {outcome}", f"best {outcome}", "gap", "95 % interval", "by chance", "faces")]
    for column, table in tables.items():
        ends = [
            f"{row['group']} {row['mean']:.2f} ({row['faces']})" if row else "too few faces"
            for note in ("worst", "best")
            for row in [next((row for row in table.rows if row["note"] == note), None)]
        ]
        gap = table.gap
        numbers = (f"{gap.value:.2f}", f"{gap.low:.2f} .. {gap.high:.2f}", f"{gap.chance:.2f}")
        rows.append((column, *ends, *(numbers if table.worst else ("n/a", "", "")), str(table.faces)))  # type: ignore[arg-type]
    return aligned(rows)


def write_tables(folder: Path, stage: str, outcome: str, tables: Mapping[str, SubgroupTable]) -> list[str]:
    """Write a row per group, a row per column, and a picture.

    Args:
        folder: Where.
        stage: Beginning of the names of the files.
        outcome: What single faces were judged by.
        tables: By column.

    Returns:
        Lines that say where they are.
    """
    paths = [folder / f"{stage}_{name}" for name in ("subgroups.csv", "gaps.csv", "subgroups.png")]
    write_csv(paths[0], [{"column": name, **row} for name, table in tables.items() for row in table.rows])
    write_csv(paths[1], [{"column": name, **table.summary()} for name, table in tables.items()])
    save_png(subgroup_picture({name: table.rows for name, table in tables.items()}, outcome=outcome), paths[2])
    return [f"{'subgroups' if number == 0 else '':<11} {path}" for number, path in enumerate(paths)]
