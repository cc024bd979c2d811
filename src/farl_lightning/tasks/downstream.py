"""What every task downstream of an encoder shares: how networks are built, tuned, initialised, looked at, judged."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from torch import Tensor, nn
from torchmetrics import MeanMetric
from typing_extensions import override

from farl_lightning.errors import CheckpointError, ConfigError, did_you_mean
from farl_lightning.functional.views import View, make_views, view_images
from farl_lightning.models.checkpoint import LoadReport, copy_weights
from farl_lightning.models.config import DenseConfig, GlobalConfig
from farl_lightning.models.dense_checkpoint import load_encoder, read_dense
from farl_lightning.models.tunable import TunableNetwork
from farl_lightning.tasks.base import BaseTask, MetricReference
from farl_lightning.tasks.optim import OptimConfig
from farl_lightning.types import FaceBatch, FaceSpec

_log = logging.getLogger(__name__)

Tuning = Literal["finetune", "frozen", "linear", "lora"]


@dataclass
class PaperResult:
    """A published number that a metric is compared with.

    Attributes:
        value: The number, in the metric's own unit.
        selection: How the epoch it stands for was chosen.
        mark: ``"confirmed"`` by a primary source (code, log, official table) or ``"recalled"``.
        source: Where it stands.
    """

    value: float
    selection: str = ""
    mark: Literal["confirmed", "recalled"] = "confirmed"
    source: str = ""

    def reference(self) -> MetricReference:
        """Return what stands beside a metric."""
        return {"paper": self.value, "selection": self.selection, "mark": self.mark, "source": self.source}


class DownstreamTask(BaseTask):
    """Base of tasks that put a head on an encoder of face crops.

    The network is built as soon as the number of its outputs is known: at once when it is given, else from the
    ``FaceSpec`` of the datamodule or of the checkpoint.

    Args:
        network: Encoder, neck and head, as the network's class takes them.
        num_outputs: Number of outputs, or None.
        weights: File, or name of known weights, to start from; read when a run starts that does not go on from a
            checkpoint.
        tuning: ``"finetune"`` trains everything, ``"frozen"`` neck and head, ``"linear"`` the last layer alone,
            ``"lora"`` neck, head and low-rank adapters in the encoder (extra ``lora``).
        lora_rank: Rank of the adapters.
        tta_scales: Test only: further magnifications at which each crop is looked at, such as ``[0.9, 1.1]``.
        tta_flip: Test only: look at the mirrored crops, too.
        reference: Published results by metric key without stage, such as ``f1_mean``.
        optim: Optimiser and schedule; ``group_lrs`` with the keys ``encoder``, ``neck`` and ``head``.
        seed: Seed of the randomness inside the network.

    Attributes:
        findings: What the last evaluation found beyond single numbers, for pictures; see the subclasses.
        tables: Tables of the last evaluation by name, as lists of rows, for CSV files.
    """

    outputs_name = "outputs"
    predicts = "faces"
    model: TunableNetwork

    def __init__(
        self,
        network: DenseConfig | GlobalConfig,
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
        super().__init__(optim, seed)
        self.network = network
        self.num_outputs = num_outputs
        self.weights = weights
        self.tuning: Tuning = tuning
        self.lora_rank = lora_rank
        self.views = make_views(tta_scales, tta_flip)
        self.findings: dict[str, Any] = {}
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.references = {f"test/{name}": row.reference() for name, row in (reference or {}).items()}
        self._untouched = True
        self._losses = nn.ModuleDict()

    def start(self) -> None:
        """Build the network if the number of its outputs is known; the last line of a subclass's constructor."""
        if self.num_outputs is not None:
            self.build()

    @abstractmethod
    def count_outputs(self, spec: FaceSpec) -> int:
        """Return how many outputs faces of a specification ask for.

        Args:
            spec: The datamodule's, or the checkpoint's.
        """

    def load(self, weights: str) -> LoadReport:
        """Load the encoder of any file; neck and head as well, where the file holds such a network for as many outputs.

        Args:
            weights: A file, or the name of known weights.

        Returns:
            What was missing, unexpected and resized.
        """
        report = load_encoder(self.model, weights)
        try:
            held = read_dense(weights)
        except CheckpointError:
            return report
        own = (self.model.kind, self.num_outputs, getattr(self.network, "head", None))
        if (held.kind, held.num_outputs, getattr(held.config, "head", None)) == own and self.tuning != "linear":
            rest = {name: value for name, value in held.state.items() if not name.startswith("encoder.")}
            copied = copy_weights(self.model, rest, weights)
            missing = tuple(name for name in copied.missing if not name.startswith("encoder."))
            return LoadReport(missing, copied.unexpected, report.resized)
        return report

    @property
    def is_built(self) -> bool:
        """Whether the network exists."""
        return "model" in self._modules

    @override
    def set_spec(self, spec: FaceSpec) -> None:
        """Take the labels: build the network for them, or check that it fits; name the metrics.

        Raises:
            ConfigError: If the network has another number of outputs.
        """
        super().set_spec(spec)
        count = self.count_outputs(spec)
        if self.num_outputs is None and count:
            self.num_outputs = count
        if not self.is_built and self.num_outputs is not None:
            self.build()
        elif count and count != self.num_outputs:
            raise ConfigError(
                f"the network has {self.num_outputs} {self.outputs_name}, the data {count}: remove "
                f"model.num_{self.outputs_name} (the data's number is taken), or give {count}"
            )
        elif self.is_built:
            self.configure_metrics()
        self.to(self.device)

    @override
    def setup(self, stage: str) -> None:
        """Take the face specification, and see that there is a network.

        Raises:
            ConfigError: If nothing tells the number of outputs.
        """
        super().setup(stage)
        if not self.is_built:
            raise ConfigError(
                f"{type(self).__name__} does not know its number of {self.outputs_name}: the data has no such labels. "
                f"Give model.num_{self.outputs_name}, or a checkpoint, or a datamodule with such labels"
            )

    @property
    def face(self) -> FaceSpec:
        """The face specification; defaults before any is known."""
        return self.spec or FaceSpec(image_size=self.network.image.image_size)

    @override
    def on_fit_start(self) -> None:
        """Load weights, unless the run goes on from a checkpoint."""
        super().on_fit_start()
        self.initialise()

    @override
    def on_validation_start(self) -> None:
        """Load weights, when validation is all there is."""
        self.initialise()

    @override
    def on_test_start(self) -> None:
        """Load weights, unless a checkpoint has been loaded."""
        self.initialise()

    @override
    def on_predict_start(self) -> None:
        """Load weights, unless a checkpoint has been loaded."""
        self.initialise()

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the face specification, and note that weights come from a checkpoint."""
        super().on_load_checkpoint(checkpoint)
        self._untouched = False

    @override
    def initialise(self) -> None:
        """Load ``weights`` once, into a network that nothing has changed yet."""
        if self.weights is not None and self._untouched:
            report = self.load(self.weights)
            rank_zero_only(_log.info)(f"initialised from '{self.weights}': {report}")
        elif self._untouched and self.tuning in ("frozen", "linear"):
            rank_zero_warn(
                f"tuning is '{self.tuning}', but model.weights is not given: a random encoder stays as it is"
            )
        self._untouched = False

    def look(self, images: Tensor, stage: str) -> tuple[list[View], list[Any]]:
        """Run the network on every view that a stage asks for.

        Args:
            images: (B, 3, S, S), normalised.
            stage: ``"train"``, ``"val"``, ``"test"`` or ``"predict"``; the first two take the plain view alone.

        Returns:
            The views, and what the network returned for each.
        """
        views = self.views if stage in ("test", "predict") else self.views[:1]
        black = -torch.tensor(self.face.mean) / torch.tensor(self.face.std)
        return views, [self.model(view_images(images, view, black.to(images))) for view in views]

    def log_loss(self, stage: str, loss: Tensor, logs: Mapping[str, Tensor], count: int) -> None:
        """Log a loss and its parts: at once in training, at the end of the epoch otherwise.

        Args:
            stage: Prefix of the keys.
            loss: The loss, a mean over samples.
            logs: Its parts, such as ``loss_ce``.
            count: Number of samples, which weighs batches and processes.
        """
        if stage == "train":
            self.log("train/loss", loss, prog_bar=True, sync_dist=True, batch_size=count)
            values = {f"train/{name}": value for name, value in logs.items()}
            self.log_dict(values, sync_dist=True, batch_size=count)
            return
        for name, value in {"loss": loss, **logs}.items():
            if name not in self._losses:
                self._losses[name] = MeanMetric().to(self.device)
            cast(MeanMetric, self._losses[name]).update(value, weight=count)

    def mean_losses(self) -> dict[str, Tensor]:
        """Return the losses of an epoch of evaluation, over all samples of all processes, and start anew.

        Lightning's own mean divides by a number of samples that it halves, as an integer, for two processes.
        """
        means = {name: cast(MeanMetric, metric) for name, metric in self._losses.items()}
        values = {name: metric.compute() for name, metric in means.items()}
        for metric in means.values():
            metric.reset()
        return values

    @override
    def on_validation_epoch_end(self) -> None:
        """Log what validation found."""
        self.finish("val")

    @override
    def on_test_epoch_end(self) -> None:
        """Log what the test found."""
        self.finish("test")

    @abstractmethod
    def finish(self, stage: str) -> None:
        """Compute, log and reset the metrics of a stage; all processes call it.

        Args:
            stage: Prefix of the keys.
        """

    def log_values(self, stage: str, values: Mapping[str, Tensor]) -> None:
        """Log the losses of the epoch, and metrics that are the same on all processes.

        Args:
            stage: Prefix of the keys.
            values: Metrics by name.
        """
        for name, value in {**self.mean_losses(), **values}.items():
            # the largest of equal values: a mean would round, and without either Lightning warns
            self.log(f"{stage}/{name}", value.to(self.device, torch.float32), sync_dist=True, reduce_fx="max")


def counted(batch: FaceBatch) -> Tensor:
    """Return which samples of a batch count.

    Args:
        batch: With ``image``; ``valid`` is respected where it is there.

    Returns:
        (B,) bool.
    """
    images = batch["image"]
    return batch.get("valid", torch.ones(len(images), dtype=torch.bool, device=images.device))


def labels_of(batch: FaceBatch, column: str) -> Tensor:
    """Return one column of labels.

    Args:
        batch: With ``labels``.
        column: Name of the column.

    Raises:
        ConfigError: If there is no such column.
    """
    found = batch.get("labels", {})
    if column not in found:
        raise ConfigError(f"the data has no labels '{column}'. {did_you_mean(column, found)}")
    return found[column]
