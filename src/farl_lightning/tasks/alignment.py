"""Face alignment: landmarks by heatmaps, judged in the pixels of the source picture."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from farl_lightning.functional.heatmaps import denormalize_points
from farl_lightning.functional.restore import restore_landmarks
from farl_lightning.functional.views import merge_points
from farl_lightning.losses import AlignmentLoss
from farl_lightning.metrics import CED, LandmarkNME
from farl_lightning.models.config import DenseConfig
from farl_lightning.models.dense import AlignmentOutput, FaceAligner
from farl_lightning.tasks.dense import DenseTask, PaperResult, Tuning, counted, source_matrix
from farl_lightning.tasks.optim import OptimConfig
from farl_lightning.types import FaceBatch, FacePrediction, FaceSpec


class AlignmentTask(DenseTask):
    """Train and judge landmark detection as FaRL does (https://arxiv.org/abs/2112.03109).

    Landmarks are centres of mass of sigmoid heatmaps, mapped to the source picture by the inverse warp. Errors are
    counted once per face under any number of processes; hidden landmarks count, as in the benchmarks.

    Args:
        network: Encoder, neck and head; None is FaRL-B/16 at 448 pixels with UPerHead.
        num_landmarks: Number of landmarks; None takes those of the data.
        weights: File, or name of known weights, to start from: a pretrained encoder or a whole network.
        tuning: What is trained: ``"finetune"``, ``"frozen"``, ``"linear"`` or ``"lora"``, see
            :class:`~farl_lightning.tasks.downstream.DownstreamTask`.
        lora_rank: Rank of the adapters.
        loss: Point and heatmap losses; None is FaRL's pair, each of weight 1.
        normalizer: What errors are divided by in ``nme``: ``"inter_ocular"`` (300-W, WFLW), ``"inter_pupil"``,
            ``"box"``, ``"diag"`` (AFLW-19) or ``"none"`` (pixels).
        more_normalizers: Others that are reported as ``nme_<normalizer>``.
        ced_threshold: Error up to which the cumulative distribution is integrated (``auc``) and beyond which a face is
            a failure (``fr``): 0.1 for WFLW, 0.07 for AFLW-19.
        ced_normalizer: What errors are divided by there; None is ``normalizer``.
        ced_grid: ``"exact"``, or ``"reference"`` for the grid of FaRL's scorer.
        eye_indices: Two lists of landmark indices for the distance between the eyes of an order that is not known.
        tta_scales: Test only: further magnifications, such as ``[0.9, 1.1]``.
        tta_flip: Test only: look at the mirrored crops, too.
        reference: Published results by metric key without stage, such as ``nme``.
        optim: Optimiser and schedule.
        seed: Seed of the randomness inside the network.

    Attributes:
        findings: ``ced``: for all faces (``""``) and each subset thresholds and shares, with ``threshold`` and
            ``normalizer``.
        tables: ``per_subset`` with the metrics of all faces and of each subset.
    """

    monitor = "val/nme"
    mode = "min"
    outputs_name = "landmarks"
    outcome_name = "nme"
    model: FaceAligner

    def __init__(
        self,
        network: DenseConfig | None = None,
        num_landmarks: int | None = None,
        weights: str | None = None,
        tuning: Tuning = "finetune",
        lora_rank: int = 8,
        loss: AlignmentLoss | None = None,
        normalizer: str = "inter_ocular",
        more_normalizers: list[str] | None = None,
        ced_threshold: float = 0.1,
        ced_normalizer: str | None = None,
        ced_grid: str = "exact",
        eye_indices: list[list[int]] | None = None,
        tta_scales: list[float] | None = None,
        tta_flip: bool = False,
        reference: dict[str, PaperResult] | None = None,
        optim: OptimConfig | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            network, num_landmarks, weights, tuning, lora_rank, tta_scales or (), tta_flip, reference, optim, seed
        )
        self.loss = loss or AlignmentLoss()
        self.normalizers = tuple(dict.fromkeys((normalizer, *(more_normalizers or ()))))
        self.ced_settings = (ced_threshold, ced_normalizer or normalizer)
        self.ced_grid = ced_grid
        self.eye_indices = eye_indices
        self.configure_metrics()  # a wrong name is told now, not after the first epoch
        self.start()

    @override
    def build_model(self) -> FaceAligner:
        """Build encoder, neck and head, and freeze what the tuning leaves alone."""
        model = FaceAligner(self.network, self.num_outputs or 0)
        model.set_tuning(self.tuning, rank=self.lora_rank)
        return model

    @override
    def count_outputs(self, spec: FaceSpec) -> int:
        """Return the number of landmarks."""
        return spec.num_landmarks

    @override
    def configure_metrics(self) -> None:
        """Create the metrics."""
        self.errors = nn.ModuleDict({n: LandmarkNME(n, indices=self.eye_indices) for n in self.normalizers})
        self.ced = CED(*self.ced_settings, grid=self.ced_grid, indices=self.eye_indices)

    @override
    def forward(self, images: Tensor) -> Tensor:
        """Return (B, N, 2) landmarks in pixels of the crops, pixel centres at integers.

        Args:
            images: (B, 3, S, S), normalised as the task's ``spec`` says.
        """
        return in_pixels(self.model(images), images)

    @override
    def _step(self, batch: FaceBatch, batch_idx: int, stage: str) -> Tensor | None:
        """Train on crops; judge in source pixels."""
        images = batch["image"]
        size = int(images.shape[-1])
        if stage == "train":
            output: AlignmentOutput = self.model(images)
            loss, logs = self.loss(output.points, output.logits, batch["landmarks"], size)
            self.log_loss(stage, loss, logs, len(images))
            return cast(Tensor, loss)
        valid = counted(batch)
        views, outputs = self.look(images, stage)
        loss, logs = self.loss(outputs[0].points, outputs[0].logits, batch["landmarks"], size, valid=valid)
        self.log_loss(stage, loss, logs, int(valid.sum()))
        merged = merge_points(views, [in_pixels(o, images) for o in outputs], size, self.face.landmark_flips)
        self._judge(batch, merged)
        return None

    def _judge(self, batch: FaceBatch, points: Tensor) -> None:
        """Add the errors of a batch, in source pixels, or in crop pixels where there are no others."""
        if "source_landmarks" in batch:
            points, target = self._restore(batch, points), batch["source_landmarks"]
        else:
            target = batch["landmarks"]
        given = {name: batch[name] for name in ("box", "subsets", "valid") if name in batch}
        for metric in (*self.errors.values(), self.ced):
            cast(Any, metric).update(points, target, **given)
        first = cast(LandmarkNME, next(iter(self.errors.values())))
        errors = first.face_errors(points, target, box=batch.get("box")) if self.wants_outcomes else None
        self.outcomes = None if errors is None else first.scale * errors

    def _restore(self, batch: FaceBatch, points: Tensor) -> Tensor:
        """Return (B, N, 2) landmarks in source pixels."""
        side = int(batch["image"].shape[-1])
        return restore_landmarks(points, source_matrix(batch), side, self.face.warp_factor)

    @override
    def finish(self, stage: str) -> None:
        """Log errors over all processes, and keep the cumulative distribution."""
        values: dict[str, Tensor] = {}
        for index, (name, metric) in enumerate(self.errors.items()):
            found = cast(LandmarkNME, metric).compute()
            values |= found if index == 0 else {_renamed(key, name): value for key, value in found.items()}
        values |= self.ced.compute()
        threshold, normalizer = self.ced_settings
        self.findings = {"ced": self.ced.curves, "threshold": threshold, "normalizer": normalizer}
        self.tables = {"per_subset": subset_rows(values, [name for name in self.ced.curves if name])}
        for metric in (*self.errors.values(), self.ced):
            cast(Any, metric).reset()
        self.log_values(stage, values)

    @override
    def predict_step(self, batch: FaceBatch, batch_idx: int = 0, dataloader_idx: int = 0) -> FacePrediction:
        """Return the landmarks of each face in source pixels.

        Args:
            batch: With ``image`` and ``key``; ``matrix`` leads back to the source picture.
            batch_idx: Its number.
            dataloader_idx: Number of its loader.
        """
        del batch_idx, dataloader_idx
        images = batch["image"]
        views, outputs = self.look(images, "predict")
        points = [in_pixels(output, images) for output in outputs]
        merged = merge_points(views, points, int(images.shape[-1]), self.face.landmark_flips)
        peaks = outputs[0].logits.float().flatten(2).amax(-1).sigmoid()
        found: FacePrediction = {
            "key": batch["key"],
            "landmarks": self._restore(batch, merged),
            "confidence": peaks,
        }
        if "valid" in batch:
            found["valid"] = batch["valid"]
        return found

    @torch.no_grad()
    def preview(self, batch: FaceBatch) -> dict[str, Tensor]:
        """Answer for crops, for pictures.

        Args:
            batch: With ``image``.

        Returns:
            ``landmarks`` (B, N, 2) in crop pixels and ``heatmaps`` (B, N, h, w) in [0, 1].
        """
        output: AlignmentOutput = self.model(batch["image"])
        return {"landmarks": in_pixels(output, batch["image"]), "heatmaps": output.logits.float().sigmoid()}


def in_pixels(output: AlignmentOutput, images: Tensor) -> Tensor:
    """Return (B, N, 2) landmarks in pixels of the crops.

    Args:
        output: Of the network.
        images: The crops.
    """
    return denormalize_points(output.points, (images.shape[-1], images.shape[-2]))


def subset_rows(values: dict[str, Tensor], subsets: list[str]) -> list[dict[str, Any]]:
    """Return one row per subset, all faces first, with every metric that has its name.

    Args:
        values: Metrics by key; those of a subset end in ``_<subset>``.
        subsets: Names of the subsets.
    """
    endings = {name: f"_{name}" for name in subsets}
    plain = [key for key in values if not key.endswith(tuple(endings.values()))]
    rows: list[dict[str, Any]] = [{"subset": "all", **{key: float(values[key]) for key in plain}}]
    for name, ending in endings.items():
        rows.append({"subset": name, **{key: float(values[key + ending]) for key in plain if key + ending in values}})
    return rows


def _renamed(key: str, normalizer: str) -> str:
    """Put a normaliser's name into a key: ``nme_frontal`` becomes ``nme_box_frontal``."""
    return key.replace("nme", f"nme_{normalizer}", 1) if key.startswith("nme") else f"{key}_{normalizer}"
