"""What attributes, classes and age share: one answer per face, learned and judged where its label is known."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from typing_extensions import override

from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.functional.distributed import global_mean
from farl_lightning.losses.reduce import LabelLoss, mean_known
from farl_lightning.metrics import Baseline
from farl_lightning.models.attributes import GlobalNetwork
from farl_lightning.models.config import GlobalConfig
from farl_lightning.tasks.downstream import DownstreamTask, PaperResult, Tuning, counted, labels_of
from farl_lightning.tasks.optim import OptimConfig
from farl_lightning.types import FaceBatch, FacePrediction, FaceSpec


class Scores(Protocol):
    """A metric of labels of whole faces."""

    baseline: Baseline
    rows: list[dict[str, Any]]

    def compute(self) -> dict[str, Tensor]:
        """Return results over all processes."""

    def reset(self) -> None:
        """Forget all faces."""


class GlobalTask(DownstreamTask):
    """Base of tasks with one answer per face.

    Losses average over the labels that are known, of all processes together; metrics count each face once. How many
    labels were unknown is logged as ``unknown_labels``.

    Args:
        network: Encoder and head; None is FaRL-B/16 at 224 pixels with facer's learned mixture.
        num_outputs: Number of outputs, or None.
        weights: See :class:`~farl_lightning.tasks.downstream.DownstreamTask`, as all that follow.
        tuning: What is trained.
        lora_rank: Rank of the adapters.
        tta_scales: Test only: further magnifications. Answers are averaged over all views.
        tta_flip: Test only: look at the mirrored crops, too.
        reference: Published results by metric key without stage.
        optim: Optimiser and schedule; ``group_lrs`` with the keys ``encoder`` and ``head``.
        seed: Seed of the randomness inside the network.
    """

    judged_by: str
    """The metric that stands beside its baseline."""
    table_name: str
    """Name of the table of the metric's rows."""
    column: str
    """Name of the label that is learned."""
    model: GlobalNetwork
    network: GlobalConfig
    metric: Scores

    def __init__(
        self,
        network: GlobalConfig | None = None,
        num_outputs: int | None = None,
        weights: str | None = None,
        tuning: Tuning = "finetune",
        lora_rank: int = 8,
        tta_scales: Sequence[float] = (),
        tta_flip: bool = False,
        reference: Mapping[str, PaperResult] | None = None,
        optim: OptimConfig | None = None,
        seed: int = 0,
    ) -> None:
        network = network or GlobalConfig()
        super().__init__(network, num_outputs, weights, tuning, lora_rank, tta_scales, tta_flip, reference, optim, seed)

    @abstractmethod
    def label_loss(self, outputs: Tensor, labels: Tensor) -> LabelLoss:
        """Return the losses of a batch.

        Args:
            outputs: (B, num_outputs) of the network.
            labels: Of the batch, in the task's column.
        """

    @abstractmethod
    def judge(self, answers: Tensor, batch: FaceBatch, valid: Tensor) -> None:
        """Add a batch to the metric.

        Args:
            answers: Of :meth:`answer`.
            batch: The batch.
            valid: (B,) bool, which faces count.
        """

    @abstractmethod
    def judge_each(self, answers: Tensor, batch: FaceBatch) -> Tensor:
        """Return what became of each face: (B,) in the unit of the metric ``outcome_name``, nan where it is not known.

        Args:
            answers: Of :meth:`answer`.
            batch: The batch.
        """

    @abstractmethod
    def answer(self, outputs: Tensor) -> Tensor:
        """Turn outputs into answers that may be averaged over views: probabilities, or years.

        Args:
            outputs: (B, num_outputs).
        """

    @abstractmethod
    def named(self, answers: Tensor) -> dict[str, Tensor]:
        """Return (B,) answers by name.

        Args:
            answers: Of :meth:`answer`.
        """

    @override
    def forward(self, images: Tensor) -> Tensor:
        """Return the answers for crops: probabilities, or years.

        Args:
            images: (B, 3, S, S), normalised as the task's ``spec`` says.
        """
        return self.answer(self.model(images))

    def labels(self, batch: FaceBatch) -> Tensor:
        """Return the labels of the task's column.

        Args:
            batch: With ``labels``.

        Raises:
            ConfigError: If there is no such column.
        """
        return labels_of(batch, self.column)

    @override
    def _step(self, batch: FaceBatch, batch_idx: int, stage: str) -> Tensor | None:
        """Train on the labels that are known; judge every face once."""
        if stage == "train":
            outputs = self.model(batch["image"])
            loss = self.label_loss(outputs, self.labels(batch))
            total = loss.values.where(loss.known, loss.values.new_zeros(())).sum()
            mean = global_mean(total, loss.known.sum())
            self.log_loss(stage, mean, _parts(loss, loss.known), len(batch["image"]))
            return mean
        valid = counted(batch)
        _, outputs = self.look(batch["image"], stage)
        loss = self.label_loss(outputs[0], self.labels(batch))
        known = loss.known & valid.view(-1, *[1] * (loss.known.ndim - 1))
        self.log_loss(stage, mean_known(loss.values, known), _parts(loss, known), int(known.sum()))
        answers = torch.stack([self.answer(o) for o in outputs]).mean(0)
        self.judge(answers, batch, valid)
        self.outcomes = self.judge_each(answers, batch) if self.wants_outcomes else None
        return None

    @override
    def finish(self, stage: str) -> None:
        """Log the metric over all processes beside its baseline, and keep its rows."""
        values = dict(self.metric.compute())
        baseline, rows = self.metric.baseline, self.metric.rows
        self.metric.reset()
        self.tables = {self.table_name: rows}
        key = f"{stage}/{self.judged_by}"
        own = {"baseline": baseline.value, "kind": baseline.kind, "low": baseline.low, "high": baseline.high}
        self.references[key] = {**self.references.get(key, {}), **own}  # type: ignore[typeddict-item]
        if unknown := int(values["unknown_labels"]):
            rank_zero_info(f"{stage}: {unknown} labels '{self.column}' are unknown and do not count")
        self.log_values(stage, {name: value for name, value in values.items() if self.is_logged(name)})

    def is_logged(self, name: str) -> bool:
        """Whether a result goes to loggers, besides the table.

        Args:
            name: Key of the metric.
        """
        del name
        return True

    @override
    def predict_step(self, batch: FaceBatch, batch_idx: int = 0, dataloader_idx: int = 0) -> FacePrediction:
        """Return the answers for each face.

        Args:
            batch: With ``image`` and ``key``.
            batch_idx: Its number.
            dataloader_idx: Number of its loader.
        """
        del batch_idx, dataloader_idx
        _, outputs = self.look(batch["image"], "predict")
        answers = torch.stack([self.answer(o) for o in outputs]).mean(0).float()
        found: FacePrediction = {"key": batch["key"], "answers": self.named(answers)}
        if "valid" in batch:
            found["valid"] = batch["valid"]
        return found

    def names_of(self, column: str, spec: FaceSpec) -> tuple[str, ...]:
        """Return the names of a column's classes; none for a number.

        Args:
            column: Name of the label.
            spec: The data's.

        Raises:
            ConfigError: If labels are described and this one is not among them.
        """
        if spec.label_names and column not in spec.label_names:
            raise ConfigError(f"the data has no labels '{column}'. {did_you_mean(column, spec.label_names)}")
        return spec.label_names.get(column, ())


def shared_head(network: GlobalConfig | None, shared: bool) -> GlobalConfig:
    """Return settings of a network whose outputs share their weights, or not.

    Args:
        network: Settings, or None for the defaults.
        shared: Whether they share them.
    """
    return dataclasses.replace(network or GlobalConfig(), shared=shared)


def _parts(loss: LabelLoss, known: Tensor) -> dict[str, Tensor]:
    """Return the mean of each part of a loss over what counts here."""
    return {name: mean_known(value, known) for name, value in loss.parts.items()}
