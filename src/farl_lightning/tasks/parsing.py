"""Face parsing: a class for every pixel, judged in the pixels of the source picture."""

from __future__ import annotations

from typing import Any, cast

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from typing_extensions import override

from farl_lightning.functional.restore import restore_labels
from farl_lightning.functional.segmentation import confusion_matrix, f1_scores, foreground_mean, iou_scores
from farl_lightning.functional.views import merge_logits
from farl_lightning.losses import ParsingLoss
from farl_lightning.metrics import BoundaryF1, ParsingF1
from farl_lightning.models.config import DenseConfig
from farl_lightning.models.dense import FaceParser
from farl_lightning.tasks.dense import DenseTask, PaperResult, Tuning, counted, source_matrix, source_size
from farl_lightning.tasks.optim import OptimConfig
from farl_lightning.types import FaceBatch, FacePrediction, FaceSpec


class ParsingTask(DenseTask):
    """Train and judge a face parser as FaRL does (https://arxiv.org/abs/2112.03109).

    Logits are mapped to the source picture by the inverse warp and only then reduced to labels. F1 and IoU come from
    one confusion matrix over the whole set, each picture counted once under any number of processes.

    Args:
        network: Encoder, neck and head; None is FaRL-B/16 at 448 pixels with UPerHead.
        num_classes: Number of classes; None takes those of the data.
        weights: File, or name of known weights, to start from: a pretrained encoder or a whole parser.
        tuning: What is trained: ``"finetune"``, ``"frozen"``, ``"linear"`` or ``"lora"``, see
            :class:`~farl_lightning.tasks.downstream.DownstreamTask`.
        lora_rank: Rank of the adapters.
        loss: Cross-entropy per pixel, with options; None is FaRL's, without any.
        boundary: Whether the test also reports F1 near the borders between classes.
        tta_scales: Test only: further magnifications, such as ``[0.9, 1.1]``.
        tta_flip: Test only: look at the mirrored crops, too.
        reference: Published results by metric key without stage, such as ``f1_mean``.
        optim: Optimiser and schedule.
        seed: Seed of the randomness inside the network.

    Attributes:
        findings: ``confusion`` (C, C) int64, rows true labels, and ``classes``, their names.
        tables: ``per_class`` with name, F1, IoU and pixels of each class.
    """

    monitor = "val/f1_mean"
    mode = "max"
    outputs_name = "classes"
    outcome_name = "f1_mean"
    model: FaceParser

    def __init__(
        self,
        network: DenseConfig | None = None,
        num_classes: int | None = None,
        weights: str | None = None,
        tuning: Tuning = "finetune",
        lora_rank: int = 8,
        loss: ParsingLoss | None = None,
        boundary: bool = False,
        tta_scales: list[float] | None = None,
        tta_flip: bool = False,
        reference: dict[str, PaperResult] | None = None,
        optim: OptimConfig | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            network, num_classes, weights, tuning, lora_rank, tta_scales or (), tta_flip, reference, optim, seed
        )
        self.loss = loss or ParsingLoss()
        self.boundary = boundary
        self.start()

    @override
    def build_model(self) -> FaceParser:
        """Build encoder, neck and head, and freeze what the tuning leaves alone."""
        model = FaceParser(self.network, self.num_outputs or 0)
        model.set_tuning(self.tuning, rank=self.lora_rank)
        return model

    @override
    def count_outputs(self, spec: FaceSpec) -> int:
        """Return the number of classes."""
        return len(spec.classes)

    @override
    def configure_metrics(self) -> None:
        """Create the metrics, with the names of the classes."""
        count = self.num_outputs or 0
        names = self.face.classes or tuple(f"class_{label}" for label in range(count))
        self.metric = ParsingF1(count, names)
        self.boundary_metric = BoundaryF1(count, names) if self.boundary else None

    @override
    def forward(self, images: Tensor) -> Tensor:
        """Return (B, C, S, S) logits of crops.

        Args:
            images: (B, 3, S, S), normalised as the task's ``spec`` says.
        """
        logits: Tensor = self.model(images)
        return logits

    @override
    def _step(self, batch: FaceBatch, batch_idx: int, stage: str) -> Tensor | None:
        """Train on crops; judge in source pixels."""
        if stage == "train":
            loss, logs = self.loss(self.model(batch["image"]), batch["mask"])
            self.log_loss(stage, loss, logs, len(batch["image"]))
            return cast(Tensor, loss)
        valid = counted(batch)
        views, logits = self.look(batch["image"], stage)
        loss, logs = self.loss(logits[0], batch["mask"], valid)
        self.log_loss(stage, loss, logs, int(valid.sum()))
        self._judge(batch, merge_logits(views, logits, self.face.class_flips), valid, stage)
        return None

    def _judge(self, batch: FaceBatch, logits: Tensor, valid: Tensor, stage: str) -> None:
        """Count the pixels of the samples that count: of the source pictures, or of the crops where there are none."""
        each = torch.full((len(valid),), torch.nan, dtype=torch.float64)
        for row in valid.nonzero().flatten().tolist():
            if "source_mask" in batch:
                pred, target = self._restore(batch, logits, row), batch["source_mask"][row]
            else:
                pred, target = logits[row].argmax(0), batch["mask"][row]
            self.metric.update([pred], [target])
            if self.boundary_metric is not None and stage == "test":
                self.boundary_metric.update([pred], [target])
            if self.wants_outcomes:
                each[row] = face_f1(pred, target, self.num_outputs or 0)
        self.outcomes = each if self.wants_outcomes else None

    def _restore(self, batch: FaceBatch, logits: Tensor, row: int) -> Tensor:
        """Return (H, W) labels of one source picture."""
        return restore_labels(logits[row], source_matrix(batch)[row], source_size(batch, row), self.face.warp_factor)

    @override
    def finish(self, stage: str) -> None:
        """Log F1 and IoU over all processes, and keep the confusion matrix."""
        values = dict(self.metric.compute())
        confusion, names = self.metric.table, self.metric.names
        self.findings = {"confusion": confusion, "classes": names}
        self.tables = {"per_class": class_rows(confusion, names)}
        if self.boundary_metric is not None and stage == "test":
            values |= self.boundary_metric.compute()
            self.boundary_metric.reset()
        if absent := self.metric.absent_classes:
            rank_zero_info(f"{stage}: no pixel of {', '.join(absent)}, neither true nor predicted: left out of means")
        self.metric.reset()
        self.log_values(stage, values)

    @override
    def predict_step(self, batch: FaceBatch, batch_idx: int = 0, dataloader_idx: int = 0) -> FacePrediction:
        """Return the labels of each source picture.

        Args:
            batch: With ``image`` and ``key``; ``matrix`` and ``size`` lead back to the source picture.
            batch_idx: Its number.
            dataloader_idx: Number of its loader.
        """
        del batch_idx, dataloader_idx
        views, seen = self.look(batch["image"], "predict")
        logits = merge_logits(views, seen, self.face.class_flips)
        labels = [self._restore(batch, logits, row) for row in range(len(logits))]
        found: FacePrediction = {"key": batch["key"], "labels": labels}
        if "valid" in batch:
            found["valid"] = batch["valid"]
        return found

    @torch.no_grad()
    def preview(self, batch: FaceBatch) -> dict[str, Tensor]:
        """Answer for crops, for pictures.

        Args:
            batch: With ``image``.

        Returns:
            ``labels`` (B, S, S) int64.
        """
        return {"labels": self.model(batch["image"]).argmax(1)}


def face_f1(pred: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Return the mean F1 of one picture over the foreground classes that occur in it, in percent.

    Its mean over pictures is not the F1 of a dataset, which counts the pixels of all of them together.

    Args:
        pred: (H, W) labels.
        target: (H, W) labels, 255 = ignore.
        num_classes: Number of classes.

    Returns:
        Scalar float64, nan where there is nothing but background.
    """
    return 100 * foreground_mean(f1_scores(confusion_matrix(pred, target, num_classes, ignore_index=255)))


def class_rows(confusion: Tensor, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return one row per class: its scores in percent and how many pixels are it.

    Args:
        confusion: (C, C) counts; rows are true labels.
        names: Names of the classes.
    """
    f1, iou = (100 * f1_scores(confusion)).tolist(), (100 * iou_scores(confusion)).tolist()
    pixels = confusion.sum(1).tolist()
    columns = zip(names, f1, iou, pixels, strict=True)
    return [{"class": name, "f1": a, "iou": b, "pixels": count} for name, a, b, count in columns]
