"""Age in years, by any of five methods."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from farl_lightning.errors import ConfigError
from farl_lightning.losses import AgeExpectation, AgeMethod
from farl_lightning.losses.reduce import LabelLoss
from farl_lightning.metrics import AgeErrors
from farl_lightning.models.attributes import FaceAge
from farl_lightning.models.config import GlobalConfig
from farl_lightning.tasks.downstream import PaperResult, Tuning
from farl_lightning.tasks.global_faces import GlobalTask, shared_head
from farl_lightning.tasks.optim import OptimConfig
from farl_lightning.types import FaceBatch, FaceSpec


class AgeTask(GlobalTask):
    """Train and judge a network that tells ages.

    Unknown ages (nan) do not count and are reported. The mean absolute error (MAE) stands beside that of answering the
    median age.

    Args:
        method: How an age is learned and read off; None is classification into years 0 to 100 with the expectation
            (:class:`~farl_lightning.losses.AgeExpectation`). Others: ``AgeOrdinal``, ``AgeDistribution``,
            ``AgeMeanVariance``, ``AgeRegression``.
        column: Name of the label in years.
        spread_column: Name of the label with the annotators' standard deviation in years, for the epsilon-error.
        thetas: Thresholds of the cumulative score CS, in years.
        network: Encoder and head; None is FaRL-B/16 at 224 pixels with facer's learned mixture.
        weights: File, or name of known weights, to start from: a pretrained encoder or a whole network for ages.
        tuning: What is trained: ``"finetune"``, ``"frozen"``, ``"linear"`` or ``"lora"``, see
            :class:`~farl_lightning.tasks.downstream.DownstreamTask`.
        lora_rank: Rank of the adapters.
        tta_scales: Test only: further magnifications, such as ``[0.9, 1.1]``; ages are averaged.
        tta_flip: Test only: look at the mirrored crops, too.
        reference: Published results by metric key without stage, such as ``mae``.
        optim: Optimiser and schedule.
        seed: Seed of the randomness inside the network.

    Attributes:
        tables: ``per_decade`` with MAE and number of faces of each decade of true age.
    """

    monitor = "val/mae"
    mode = "min"
    judged_by = outcome_name = "mae"
    table_name = "per_decade"
    model: FaceAge
    metric: AgeErrors

    def __init__(
        self,
        method: AgeMethod | None = None,
        column: str = "age",
        spread_column: str = "age_std",
        thetas: list[float] | None = None,
        network: GlobalConfig | None = None,
        weights: str | None = None,
        tuning: Tuning = "finetune",
        lora_rank: int = 8,
        tta_scales: list[float] | None = None,
        tta_flip: bool = False,
        reference: dict[str, PaperResult] | None = None,
        optim: OptimConfig | None = None,
        seed: int = 0,
    ) -> None:
        chosen = method or AgeExpectation()
        super().__init__(
            shared_head(network, chosen.shared),
            chosen.num_outputs,
            weights,
            tuning,
            lora_rank,
            tta_scales or (),
            tta_flip,
            reference,
            optim,
            seed,
        )
        self.method = chosen
        self.column, self.spread_column = column, spread_column
        self.thetas = tuple(thetas or (5,))
        self.start()

    @override
    def build_model(self) -> FaceAge:
        """Build encoder and head, and freeze what the tuning leaves alone."""
        model = FaceAge(self.network, self.method.num_outputs).set_tuning(self.tuning, rank=self.lora_rank)
        if (bias := self.method.start_bias()) is not None:
            with torch.no_grad():
                cast(nn.Linear, model.head.classify).bias.copy_(bias)
        return model

    @override
    def count_outputs(self, spec: FaceSpec) -> int:
        """Return the number that the method asks for, whatever the data; see that the column is a number.

        Raises:
            ConfigError: If it holds classes.
        """
        if names := self.names_of(self.column, spec):
            raise ConfigError(
                f"labels '{self.column}' are classes ({', '.join(names)}), not years: use ClassificationTask"
            )
        return self.method.num_outputs

    @override
    def configure_metrics(self) -> None:
        """Create the metric."""
        self.metric = AgeErrors(self.thetas)

    @override
    def label_loss(self, outputs: Tensor, labels: Tensor) -> LabelLoss:
        """Return the loss of each face."""
        return self.method.loss(outputs, labels)

    @override
    def answer(self, outputs: Tensor) -> Tensor:
        """Return (B,) years."""
        return self.method.decode(outputs)

    @override
    def named(self, answers: Tensor) -> dict[str, Tensor]:
        """Return the ages under the name of the column."""
        return {self.column: answers}

    @override
    def judge(self, answers: Tensor, batch: FaceBatch, valid: Tensor) -> None:
        """Add a batch."""
        spread = batch["labels"].get(self.spread_column)
        self.metric.update(answers, self.labels(batch), spread, valid)

    @override
    def judge_each(self, answers: Tensor, batch: FaceBatch) -> Tensor:
        """Return the error of each age in years."""
        return (answers - self.labels(batch)).abs()
