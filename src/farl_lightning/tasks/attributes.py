"""Facial attributes: a yes or no for each of many questions."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from farl_lightning.losses import AttributeLoss
from farl_lightning.losses.reduce import LabelLoss
from farl_lightning.metrics import AttributeScores
from farl_lightning.models.attributes import FaceAttributes
from farl_lightning.models.config import GlobalConfig
from farl_lightning.tasks.downstream import PaperResult, Tuning
from farl_lightning.tasks.global_faces import GlobalTask
from farl_lightning.tasks.optim import OptimConfig
from farl_lightning.types import FaceBatch, FaceSpec


class AttributeTask(GlobalTask):
    """Train and judge a network for binary attributes, such as CelebA's 40, as FaRL (https://arxiv.org/abs/2112.03109).

    Labels are the data's ``attributes``: 1 yes, 0 no, -1 unknown. Unknown ones do not count and are reported. The mean
    accuracy over attributes (mAcc) stands beside that of answering each attribute's majority; where one side is rare,
    balanced accuracy tells more.

    Args:
        network: Encoder and head; None is FaRL-B/16 at 224 pixels with facer's learned mixture of mean, maximum and
            class token. ``head: linear`` is a plain linear layer.
        num_attributes: Number of attributes; None takes those of the data.
        weights: File, or name of known weights, to start from: a pretrained encoder or a whole attribute network.
        tuning: What is trained: ``"finetune"``, ``"frozen"``, ``"linear"`` or ``"lora"``, see
            :class:`~farl_lightning.tasks.downstream.DownstreamTask`.
        lora_rank: Rank of the adapters.
        loss: Binary cross entropy, with options.
        tta_scales: Test only: further magnifications, such as ``[0.9, 1.1]``; probabilities are averaged.
        tta_flip: Test only: look at the mirrored crops, too.
        reference: Published results by metric key without stage, such as ``accuracy_mean``.
        optim: Optimiser and schedule.
        seed: Seed of the randomness inside the network.

    Attributes:
        tables: ``per_attribute`` with name, accuracy, balanced accuracy and how many faces are known to be without and
            with it.
    """

    monitor = "val/accuracy_mean"
    mode = "max"
    outputs_name = "attributes"
    judged_by = outcome_name = "accuracy_mean"
    table_name = "per_attribute"
    column = "attributes"
    model: FaceAttributes
    metric: AttributeScores

    def __init__(
        self,
        network: GlobalConfig | None = None,
        num_attributes: int | None = None,
        weights: str | None = None,
        tuning: Tuning = "finetune",
        lora_rank: int = 8,
        loss: AttributeLoss | None = None,
        tta_scales: list[float] | None = None,
        tta_flip: bool = False,
        reference: dict[str, PaperResult] | None = None,
        optim: OptimConfig | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            network, num_attributes, weights, tuning, lora_rank, tta_scales or (), tta_flip, reference, optim, seed
        )
        self.loss = loss or AttributeLoss()
        self.start()

    @override
    def build_model(self) -> FaceAttributes:
        """Build encoder and head, and freeze what the tuning leaves alone."""
        return FaceAttributes(self.network, self.num_outputs or 0).set_tuning(self.tuning, rank=self.lora_rank)

    @override
    def count_outputs(self, spec: FaceSpec) -> int:
        """Return the number of attributes."""
        return len(spec.attributes)

    @override
    def configure_metrics(self) -> None:
        """Create the metric, with the names of the attributes."""
        numbers = tuple(f"attribute_{index}" for index in range(self.num_outputs or 0))
        self.metric = AttributeScores(self.face.attributes or numbers)

    @override
    def label_loss(self, outputs: Tensor, labels: Tensor) -> LabelLoss:
        """Return the cross entropy of each attribute of each face."""
        loss: LabelLoss = self.loss(outputs, labels)
        return loss

    @override
    def answer(self, outputs: Tensor) -> Tensor:
        """Return (B, A) probabilities."""
        return outputs.float().sigmoid()

    @override
    def named(self, answers: Tensor) -> dict[str, Tensor]:
        """Return the probability of each attribute."""
        return dict(zip(self.metric.names, answers.unbind(1), strict=True))

    @override
    def judge(self, answers: Tensor, batch: FaceBatch, valid: Tensor) -> None:
        """Add a batch; a probability above a half is a yes."""
        self.metric.update(answers - 0.5, self.labels(batch), valid)

    @override
    def judge_each(self, answers: Tensor, batch: FaceBatch) -> Tensor:
        """Return the share of each face's known attributes that are right, in percent."""
        labels = self.labels(batch)
        known = labels >= 0
        return 100 * ((answers > 0.5) == labels.bool()).logical_and(known).sum(1) / known.sum(1)

    @override
    def is_logged(self, name: str) -> bool:
        """Leave balanced accuracies of single attributes to the table."""
        return name == "balanced_mean" or not name.startswith("balanced_")
