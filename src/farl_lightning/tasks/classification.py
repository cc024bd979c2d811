"""One class of several for each face: expression, gender, race, or any other column."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from farl_lightning.losses import ClassificationLoss
from farl_lightning.losses.reduce import LabelLoss
from farl_lightning.metrics import ClassificationScores
from farl_lightning.models.attributes import FaceClassifier
from farl_lightning.models.config import GlobalConfig
from farl_lightning.tasks.downstream import PaperResult, Tuning
from farl_lightning.tasks.global_faces import GlobalTask
from farl_lightning.tasks.optim import OptimConfig
from farl_lightning.types import FaceBatch, FaceSpec


class ClassificationTask(GlobalTask):
    """Train and judge a network that tells the classes of one label apart.

    Unknown labels (-1) do not count and are reported. Accuracy stands beside that of answering the most frequent class.

    Args:
        column: Name of the label, such as ``expression``.
        network: Encoder and head; None is FaRL-B/16 at 224 pixels with facer's learned mixture.
        num_classes: Number of classes; None takes those of the data.
        weights: File, or name of known weights, to start from: a pretrained encoder or a whole classifier.
        tuning: What is trained: ``"finetune"``, ``"frozen"``, ``"linear"`` or ``"lora"``, see
            :class:`~farl_lightning.tasks.downstream.DownstreamTask`.
        lora_rank: Rank of the adapters.
        loss: Cross entropy, with options.
        tta_scales: Test only: further magnifications, such as ``[0.9, 1.1]``; probabilities are averaged.
        tta_flip: Test only: look at the mirrored crops, too.
        reference: Published results by metric key without stage, such as ``accuracy``.
        optim: Optimiser and schedule.
        seed: Seed of the randomness inside the network.

    Attributes:
        findings: ``confusion`` (C, C) int64, rows true classes, and ``classes``, their names.
        tables: ``per_class`` with name, F1, recall and number of faces of each class.
    """

    monitor = "val/accuracy"
    mode = "max"
    outputs_name = "classes"
    judged_by = outcome_name = "accuracy"
    table_name = "per_class"
    model: FaceClassifier
    metric: ClassificationScores

    def __init__(
        self,
        column: str,
        network: GlobalConfig | None = None,
        num_classes: int | None = None,
        weights: str | None = None,
        tuning: Tuning = "finetune",
        lora_rank: int = 8,
        loss: ClassificationLoss | None = None,
        tta_scales: list[float] | None = None,
        tta_flip: bool = False,
        reference: dict[str, PaperResult] | None = None,
        optim: OptimConfig | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            network, num_classes, weights, tuning, lora_rank, tta_scales or (), tta_flip, reference, optim, seed
        )
        self.column = column
        self.loss = loss or ClassificationLoss()
        self.start()

    @override
    def build_model(self) -> FaceClassifier:
        """Build encoder and head, and freeze what the tuning leaves alone."""
        return FaceClassifier(self.network, self.num_outputs or 0).set_tuning(self.tuning, rank=self.lora_rank)

    @override
    def count_outputs(self, spec: FaceSpec) -> int:
        """Return the number of classes of the column."""
        return len(self.names_of(self.column, spec))

    @override
    def configure_metrics(self) -> None:
        """Create the metric, with the names of the classes."""
        self.metric = ClassificationScores(self.num_outputs or 0, self.names_of(self.column, self.face))

    @override
    def label_loss(self, outputs: Tensor, labels: Tensor) -> LabelLoss:
        """Return the cross entropy of each face."""
        loss: LabelLoss = self.loss(outputs, labels)
        return loss

    @override
    def answer(self, outputs: Tensor) -> Tensor:
        """Return (B, C) probabilities."""
        return outputs.float().softmax(1)

    @override
    def named(self, answers: Tensor) -> dict[str, Tensor]:
        """Return the probability of each class, such as ``expression_happy``."""
        names = (f"{self.column}_{name}" for name in self.metric.names)
        return dict(zip(names, answers.unbind(1), strict=True))

    @override
    def judge(self, answers: Tensor, batch: FaceBatch, valid: Tensor) -> None:
        """Add a batch; the most probable class is the answer."""
        self.metric.update(answers, self.labels(batch), valid)

    @override
    def judge_each(self, answers: Tensor, batch: FaceBatch) -> Tensor:
        """Return 100 for each face whose class is right, else 0."""
        labels = self.labels(batch)
        return (100.0 * (answers.argmax(1) == labels)).masked_fill(labels < 0, torch.nan)

    @override
    def finish(self, stage: str) -> None:
        """Log the metric, and keep the confusion matrix."""
        super().finish(stage)
        self.findings = {"confusion": self.metric.table, "classes": self.metric.names}
