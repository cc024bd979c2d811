"""Who is it: embeddings that are alike for one person and unlike for two, judged by pairs and by rank."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from typing_extensions import override

from farl_lightning.errors import CheckpointError, ConfigError, did_you_mean
from farl_lightning.losses.margin import Mining, symmetry_loss, triplet_loss
from farl_lightning.models.attributes import FaceEmbedder
from farl_lightning.models.config import GlobalConfig
from farl_lightning.models.heads.margin import MarginHead, sharded_rows
from farl_lightning.tasks import sharded_head as sharding
from farl_lightning.tasks.downstream import DownstreamTask, PaperResult, Tuning, counted, labels_of
from farl_lightning.tasks.optim import OptimConfig
from farl_lightning.tasks.trials import JudgedPairs, TrialScores
from farl_lightning.types import FaceBatch, FaceSpec, FeatureBatch

IdentityLoss = Literal["arcface", "cosface", "triplet"]
"""What embeddings are learned with."""

MARGINS: dict[str, float] = {"arcface": 0.5, "cosface": 0.35, "triplet": 0.2}
"""Margin of each loss in its paper: radians, cosine, squared distance."""

_CENTRES = "model.margin.centres.weight"


class VerificationTask(DownstreamTask):
    """Train and judge a network that tells whether two faces are of one person.

    Training takes pictures with the number of their person; those of nobody known (-1) do not count. Evaluation takes
    lists of pairs of other people (LFW's protocol: the threshold of each fold is chosen on the others) and galleries
    (the share of pictures whose person is among the k nearest of a gallery). The mean accuracy over all lists stands
    beside that of giving the more frequent answer.

    Args:
        network: Encoder and head; None is FaRL-B/16 at 224 pixels with facer's learned mixture.
        embedding_size: Channels E of an embedding.
        weights: File, or name of known weights, to start from: a pretrained encoder or a whole embedding network. The
            centres of people are always learned anew.
        tuning: What is trained: ``"finetune"``, ``"frozen"``, ``"linear"`` or ``"lora"``, see
            :class:`~farl_lightning.tasks.downstream.DownstreamTask`.
        lora_rank: Rank of the adapters.
        loss: ``"arcface"`` or ``"cosface"`` (a softmax over one centre per person, with a margin) or ``"triplet"``
            (no centres; needs several pictures of a person in a batch: ``pictures_per_person`` of the datamodule).
        margin: Margin of the loss; None takes its paper's, see :data:`MARGINS`.
        scale: Factor of the logits of ``"arcface"`` and ``"cosface"``.
        mining: Triplets: ``"semihard"`` (FaceNet's) or ``"hard"`` (batch hard).
        sharded_head: Share the centres out over processes, for hundreds of thousands of people and more: each process
            holds its rows, gradients are exact. On one device or with DDP, without float16 and weight averaging.
        symmetry_weight: Weight of the disparity between a face and its mirror image (after SymFace); above 0 every
            training face is looked at twice.
        column: Name of the label that says who it is.
        fars: False accept rates at which the true accept rate is measured.
        ranks: Numbers of answers that are looked at in a gallery.
        tta_scales: Test only: further magnifications, such as ``[0.9, 1.1]``; embeddings are averaged.
        tta_flip: Test only: look at the mirrored crops, too, as is usual in recognition.
        reference: Published results by metric key without stage, such as ``accuracy_lfw``.
        optim: Optimiser and schedule; ``group_lrs`` with the keys ``encoder``, ``head`` and ``margin``.
        seed: Seed of the randomness inside the network.

    Attributes:
        findings: ``roc``, the curve of each list by name.
        tables: ``per_fold`` with accuracy and threshold, ``per_rank`` for galleries.

    Raises:
        ConfigError: If a setting is unknown or cannot work.
    """

    monitor = "val/accuracy_mean"
    mode = "max"
    outcome_name = "accuracy"
    judges_pairs = True
    predicts = "features"
    outputs_name = "embedding channels"
    model: FaceEmbedder
    network: GlobalConfig

    def __init__(
        self,
        network: GlobalConfig | None = None,
        embedding_size: int = 512,
        weights: str | None = None,
        tuning: Tuning = "finetune",
        lora_rank: int = 8,
        loss: IdentityLoss = "arcface",
        margin: float | None = None,
        scale: float = 64.0,
        mining: Mining = "semihard",
        sharded_head: bool = False,
        symmetry_weight: float = 0.0,
        column: str = "identity",
        fars: list[float] | None = None,
        ranks: list[int] | None = None,
        tta_scales: list[float] | None = None,
        tta_flip: bool = False,
        reference: dict[str, PaperResult] | None = None,
        optim: OptimConfig | None = None,
        seed: int = 0,
    ) -> None:
        _check(loss, mining, symmetry_weight)
        super().__init__(
            network or GlobalConfig(),
            embedding_size,
            weights,
            tuning,
            lora_rank,
            tta_scales or (),
            tta_flip,
            reference,
            optim,
            seed,
        )
        self.loss, self.margin, self.scale = loss, MARGINS[loss] if margin is None else margin, scale
        self.mining, self.symmetry_weight, self.column = mining, symmetry_weight, column
        self.sharded_head = sharded_head
        self.fars, self.ranks = tuple(fars or (1e-2, 1e-3, 1e-4)), tuple(ranks or (1, 5, 10))
        self._scores: TrialScores | None = None
        self.start()

    @override
    def build_model(self) -> FaceEmbedder:
        """Build encoder and head, and freeze what the tuning leaves alone."""
        return FaceEmbedder(self.network, self.num_outputs or 0).set_tuning(self.tuning, rank=self.lora_rank)

    @override
    def count_outputs(self, spec: FaceSpec) -> int:
        """Return the size of an embedding, whatever the data."""
        return self.num_outputs or 0

    @property
    def is_fitting(self) -> bool:
        """Whether a trainer is fitting."""
        return self._trainer is not None and self.trainer.state.fn == "fit"

    @override
    def set_spec(self, spec: FaceSpec) -> None:
        """Take the people to learn: make a centre for each."""
        super().set_spec(spec)
        people = len(spec.label_names.get(self.column, ()))
        if people and self.loss != "triplet" and self.model.margin is None:
            self._make_centres(people)

    def _make_centres(self, people: int) -> None:
        """Put the margin head on the network."""
        kind: Any = self.loss
        head = MarginHead(self.num_outputs or 0, people, kind, self.margin, self.scale, self.sharded_head)
        self.model.margin = head.to(self.device)

    @override
    def setup(self, stage: str) -> None:
        """Take the face specification, and see that there is somebody to learn from.

        Raises:
            ConfigError: If fitting has no people with names, or no single number per person.
        """
        super().setup(stage)
        if stage == "fit" and self.loss != "triplet" and self.model.margin is None:
            names = self.face.label_names
            raise ConfigError(
                f"loss '{self.loss}' learns a centre per person, but the data does not say how many there are: it has "
                f"no classes '{self.column}'. {did_you_mean(self.column, names)} Use a folder with one subfolder per "
                "person (VerificationDataModule), or name the column of a table: model.column"
            )

    @override
    def configure_model(self) -> None:
        """Shard what a strategy shards, and the centres where that is asked for."""
        super().configure_model()
        if not self.sharded_head or self.model.margin is None:
            return
        self._check_trainer()
        self.model.margin.shard()
        # other processes have other rows: DDP must neither copy the first one's nor average their gradients
        ddp: Any = DistributedDataParallel
        ddp._set_params_and_buffers_to_ignore_for_model(self, list(sharded_rows(self)))

    def _check_trainer(self) -> None:
        """Refuse what would treat rows of several processes as one matrix.

        Raises:
            ConfigError: Naming the setting.
        """
        trainer = self.trainer
        if not isinstance(trainer.strategy, DDPStrategy | SingleDeviceStrategy):
            raise ConfigError(
                f"sharded_head works on one device and with DDP, not with {type(trainer.strategy).__name__}; set "
                "trainer.strategy to ddp, or model.sharded_head to false"
            )
        if trainer.precision == "16-mixed" and trainer.world_size > 1:
            raise ConfigError(
                "sharded_head does not work with precision 16-mixed: processes would leave out different steps; use "
                "bf16-mixed or 32-true"
            )
        if self.is_fitting and any(isinstance(c, WeightAveraging) for c in trainer.callbacks):  # type: ignore[attr-defined]
            raise ConfigError(
                "sharded_head and an average of weights (EMA) do not go together: the average would hold all centres "
                "on one process; remove the callback, or set model.sharded_head to false"
            )

    @override
    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the trainer is set; a norm is that of all processes' rows."""
        by_norm = gradient_clip_val and (gradient_clip_algorithm or "norm") == "norm"
        if by_norm and sharded_rows(self):
            sharding.clip_norm(self, float(gradient_clip_val or 0))
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the centres whole, and no names of people, who need not be known to use the network."""
        super().on_save_checkpoint(checkpoint)
        if self.column in checkpoint.get("face_spec", {}).get("label_names", {}):
            checkpoint["face_spec"]["label_names"][self.column] = []
        if sharded_rows(self):
            optimizers: Any = self.optimizers(use_pl_optimizer=False)
            made = optimizers if isinstance(optimizers, list) else [optimizers]
            sharding.gather_optimizers(self, made, checkpoint)

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make room for the centres of the checkpoint.

        Raises:
            CheckpointError: If training would go on with other people.
        """
        super().on_load_checkpoint(checkpoint)
        state = checkpoint.get("state_dict", {})
        saved = len(state[_CENTRES]) if _CENTRES in state else 0
        own = self.model.margin.centres.rows if self.model.margin is not None else 0
        if saved != own and self.is_fitting:
            raise CheckpointError(
                f"the checkpoint has learned {saved} people, the data has {own}: training cannot go on with others; "
                "start from it with model.weights instead of ckpt_path"
            )
        if saved != own:
            self.model.margin = None
            if saved:
                self._make_centres(saved)
        if self.is_fitting and self.sharded_head and self.model.margin is not None:
            sharding.cut_optimizers(self.model.margin.centres, checkpoint)

    @override
    def forward(self, images: Tensor) -> Tensor:
        """Return (B, E) embeddings of length 1.

        Args:
            images: (B, 3, S, S), normalised as the task's ``spec`` says.
        """
        embeddings: Tensor = self.model(images)
        return embeddings

    def _learn(self, batch: FaceBatch) -> Tensor:
        """Return the loss of a batch."""
        images, labels = batch["image"], labels_of(batch, self.column)
        count = len(images)
        seen = torch.cat([images, images.flip(-1)]) if self.symmetry_weight else images
        embeddings, found = self.model(seen, labels)
        loss: Tensor | None = found
        if loss is None:
            loss = triplet_loss(embeddings[:count], labels, self.margin, self.mining)
        logs = {f"loss_{self.loss}": loss.detach()}
        if self.symmetry_weight:
            disparity = symmetry_loss(embeddings[:count], embeddings[count:])
            logs["loss_symmetry"] = disparity.detach()
            loss = loss + self.symmetry_weight * disparity
        self.log_loss("train", loss, logs, count)
        return loss

    def _embed(self, batch: FaceBatch, stage: str) -> Tensor:
        """Return (B, E) embeddings of length 1, averaged over views."""
        _, seen = self.look(batch["image"], stage)
        return F.normalize(torch.stack(seen).sum(0), dim=1) if len(seen) > 1 else seen[0]

    @override
    def _step(self, batch: FaceBatch, batch_idx: int, stage: str, loader: int = 0) -> Tensor | None:
        """Train on people, or keep the embeddings of a trial's pictures."""
        if stage == "train":
            return self._learn(batch)
        embeddings, valid = self._embed(batch, stage), counted(batch)
        if self._scores is not None:
            self._scores.update(loader, batch["key"], embeddings, valid)
        return None

    @override
    def validation_step(self, batch: FaceBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Keep the embeddings of a batch of one trial."""
        self._step(batch, batch_idx, "val", dataloader_idx)

    @override
    def test_step(self, batch: FaceBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Keep the embeddings of a batch of one trial."""
        self._step(batch, batch_idx, "test", dataloader_idx)

    @override
    def predict_step(self, batch: FaceBatch, batch_idx: int = 0, dataloader_idx: int = 0) -> FeatureBatch:
        """Return the embedding of each face.

        Args:
            batch: With ``image`` and ``key``.
            batch_idx: Its number.
            dataloader_idx: Number of its loader.
        """
        del batch_idx, dataloader_idx
        found: FeatureBatch = {"key": batch["key"], "image_features": self._embed(batch, "predict").float()}
        if "valid" in batch:
            found["valid"] = batch["valid"]
        return found

    @override
    def on_validation_epoch_start(self) -> None:
        """Start anew with the trials of validation."""
        self._scores = self._start_trials("val")

    @override
    def on_test_epoch_start(self) -> None:
        """Start anew with the trials of the test."""
        self._scores = self._start_trials("test")

    def _start_trials(self, stage: str) -> TrialScores:
        """Make the metrics of a stage.

        Raises:
            ConfigError: If the datamodule has no trials.
        """
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        if not hasattr(datamodule, "trials"):
            raise ConfigError(
                f"{type(datamodule).__name__} has no pairs and no galleries to judge embeddings by; use "
                "VerificationDataModule with pairs or galleries, or trainer.limit_val_batches: 0"
            )
        return TrialScores(datamodule.trials(stage), self.fars, self.ranks, self.device)

    @override
    def judged_pairs(self) -> list[JudgedPairs]:
        """Return what became of each pair of the lists that were just evaluated, over all processes."""
        return [] if self._scores is None else self._scores.judged_pairs()

    @override
    def finish(self, stage: str) -> None:
        """Log the scores of all trials over all processes beside their baselines, and keep curves and tables."""
        if self._scores is None:
            return
        found, self._scores = self._scores.compute(), None
        self.tables, self.findings = found.tables, {"roc": found.curves}
        for name, baseline in found.baselines.items():
            key, own = f"{stage}/{name}", {"baseline": baseline.value, "kind": baseline.kind}
            if math.isfinite(baseline.low):
                own |= {"low": baseline.low, "high": baseline.high}
            self.references[key] = {**self.references.get(key, {}), **own}  # type: ignore[typeddict-item]
        for note in [] if self.is_fitting else found.notes:  # once is enough
            rank_zero_info(f"{stage}: {note}")
        self.log_values(stage, found.values)


def _check(loss: str, mining: str, symmetry_weight: float) -> None:
    """Refuse settings that cannot work, before anything is built."""
    for name, value, known in (("loss", loss, get_args(IdentityLoss)), ("mining", mining, get_args(Mining))):
        if value not in known:
            raise ConfigError(f"{name} '{value}' is not known. {did_you_mean(value, known)}")
    if not 0 <= symmetry_weight < math.inf:
        raise ConfigError(f"symmetry_weight is {symmetry_weight}; it must be 0 (off) or more, such as 1.0")
