"""Pretraining: one task, any set of objectives."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from farl_lightning.errors import ConfigError
from farl_lightning.functional.distributed import global_sum, process_means
from farl_lightning.functional.patches import patchify, unpatchify
from farl_lightning.models.checkpoint import load_weights
from farl_lightning.models.config import FaceCLIPConfig
from farl_lightning.models.face_clip import FaceCLIP
from farl_lightning.objectives import (
    Contrastive,
    ContrastiveAccumulation,
    MaskedImage,
    Objective,
    PretrainModel,
    PretrainResult,
)
from farl_lightning.tasks.base import BaseTask
from farl_lightning.tasks.evaluation import PretrainEvaluation, masked_image_objectives, with_repeats, without_repeats
from farl_lightning.tasks.optim import OptimConfig
from farl_lightning.tasks.zero_shot import check_names
from farl_lightning.types import FaceBatch, FaceSpec, FeatureBatch, PretrainBatch

_log = logging.getLogger(__name__)


class PretrainTask(BaseTask):
    """Pretrain image and text towers by a weighted sum of objectives.

    Without ``objectives`` this is FaRL (https://arxiv.org/abs/2112.03109): contrast between images and captions plus
    masked image modelling, both through one image tower. Validation and test report retrieval in both directions, the
    accuracy of masked tokens and of zero-shot attributes, as far as the objectives and the data go. On faces with
    labels instead of captions (any datamodule of attributes, gender, expression or age) they tell labels by prompts.

    Args:
        clip: Sizes of both towers.
        objectives: What is optimised; each name becomes part of metric keys (``train/loss_<name>``). None is
            ``{"contrastive": Contrastive(), "masked_image": MaskedImage()}``.
        optim: Optimiser and schedule.
        weights: File, or name of known weights, to start from: the towers, and the masked image head where the
            file has one that fits. Read when a run starts that does not go on from a checkpoint.
        zero_shot: Attributes, and labels such as ``gender``, ``age`` and ``expression``, to tell by prompts in
            validation and test; None means all that have prompts and labels, an empty list none.
        prompts: One's own prompts: phrasings by label and class, or of an attribute under ``yes`` and ``no``; they
            replace those of :mod:`farl_lightning.text.prompts`.
        fit_images: Training images that a fitted target (k-means tokens) sees before the first step.
        grad_checkpointing: Recompute the blocks' activations in the backward pass: less memory, more time.
        compile: Compile the towers with ``torch.compile``; names in checkpoints stay the same.
        seed: Seed of the randomness inside the network.
        accumulate_contrastive: Parts in which a batch goes through the towers. The contrast, and every gradient, is
            that of the whole batch of ``batch_size`` pairs per process, while activations of ``batch_size`` divided by
            this are held at a time (GradCache, https://arxiv.org/abs/2101.06983). It costs a second forward pass
            through the towers, of the clean images and captions alone where the network has no dropout; parts too small
            to keep the device busy cost more, so take as few as memory allows. Steps, schedule and checkpoints count
            batches as ever, and ``Trainer(accumulate_grad_batches=...)`` may be used beside it; that adds up gradients
            of batches which do not see each other. Under DDP processes meet once per batch.

    Raises:
        ConfigError: If settings do not fit together.
    """

    monitor = "val/image_to_text_r1"
    mode = "max"
    outcome_name = "zero_shot_accuracy"
    model: PretrainModel

    def __init__(
        self,
        clip: FaceCLIPConfig,
        objectives: dict[str, Objective] | None = None,
        optim: OptimConfig | None = None,
        weights: str | None = None,
        zero_shot: list[str] | None = None,
        fit_images: int = 512,
        grad_checkpointing: bool = False,
        compile: bool = False,
        seed: int = 0,
        accumulate_contrastive: int = 1,
        prompts: dict[str, dict[str, list[str]]] | None = None,
    ) -> None:
        super().__init__(optim, seed)
        self.accumulation = ContrastiveAccumulation(accumulate_contrastive)
        if fit_images < 1:
            raise ConfigError(f"fit_images is {fit_images}, it must be 1 or more")
        check_names(zero_shot, prompts)
        self.clip_config = clip
        self.objectives = objectives
        self.weights = weights
        self.zero_shot = zero_shot
        self.prompts = prompts
        self.fit_images = fit_images
        self.grad_checkpointing = grad_checkpointing
        self.compile_clip = compile
        self._untouched = True
        self._checked = False
        self.build()

    @override
    def build_model(self) -> PretrainModel:
        """Build the towers and join them with the objectives."""
        objectives = self.objectives or {"contrastive": Contrastive(), "masked_image": MaskedImage()}
        needs = frozenset[str]().union(*(objective.needs for objective in objectives.values()))
        model = PretrainModel(FaceCLIP(self.clip_config, mask_token="masked" in needs), objectives)
        if self.grad_checkpointing:
            model.clip.set_grad_checkpointing(True)
            for objective in masked_image_objectives(model).values():
                objective.head.set_grad_checkpointing(True)
        return model

    @override
    def configure_metrics(self) -> None:
        """Create the metrics that objectives and labels allow."""
        self.evaluation = PretrainEvaluation(self.model, self.spec, self.zero_shot, self.prompts)

    @override
    def set_spec(self, spec: FaceSpec) -> None:
        """Tell the objectives how images are normalised, and the metrics which labels there are."""
        super().set_spec(spec)
        self.model.set_spec(spec)
        self.configure_metrics()
        self.evaluation.to(self.device)

    @override
    def setup(self, stage: str) -> None:
        """Take the face specification; compile once before the first run."""
        super().setup(stage)
        if stage == "fit":
            self._check_strategy()
        if self.compile_clip:
            self.model.clip.compile()  # in place: unlike torch.compile(module), it leaves names as they are
            self.compile_clip = False

    @override
    def on_fit_start(self) -> None:
        """Load weights, then fit the targets that need it; a run that goes on from a checkpoint has both."""
        super().on_fit_start()
        self.initialise()
        self._fit_targets()

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
        """Note that weights come from a checkpoint, and take its face specification."""
        super().on_load_checkpoint(checkpoint)
        self._untouched = False

    @override
    def initialise(self) -> None:
        """Load ``weights`` once, into networks that nothing has changed yet."""
        if self.weights is not None and self._untouched:
            heads = [objective.head for objective in masked_image_objectives(self.model).values()]
            report = load_weights(self.model.clip, self.weights, heads[0] if heads else None)
            rank_zero_only(_log.info)(f"initialised from '{self.weights}': {report}")
        self._untouched = False

    def _fit_targets(self) -> None:
        """Fit targets on the first process and hand the result to all."""
        if not self.model.needs_fit:
            return
        datamodule = getattr(self.trainer, "datamodule", None)
        if datamodule is None or not hasattr(datamodule, "fit_images"):
            raise ConfigError(
                "a target is fitted on training images, which needs a datamodule with fit_images(count); "
                "use a datamodule of this package, or call task.model.fit(images) before trainer.fit"
            )
        needing = [objective for objective in self.model.objectives.values() if objective.needs_fit]
        if self.global_rank == 0:
            self.model.fit(datamodule.fit_images(self.fit_images))
        for objective in needing:
            # buffers alone: parameters may be sharded by now, and are not what a target learns
            state = {name: value.cpu() for name, value in objective.named_buffers()}
            objective.load_state_dict(self.trainer.strategy.broadcast(state), strict=False)

    @override
    def forward(self, images: Tensor, text: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Encode faces, and captions where there are any, so that products of features are cosines.

        Args:
            images: (B, 3, H, W), normalised as the task's ``spec`` says.
            text: (T, L) int64 token ids.

        Returns:
            (B, E) features of the images and (T, E) of the captions, or None without captions; float32, of length 1.

        Raises:
            ConfigError: If captions come without a text tower.
        """
        outputs = self.model.encode(images, text)
        found = outputs.image_features, outputs.text_features
        features, texts = (None if value is None else F.normalize(value.float(), dim=-1) for value in found)
        assert features is not None  # noqa: S101 (for mypy)
        return features, texts

    @override
    def predict_step(self, batch: PretrainBatch, batch_idx: int = 0, dataloader_idx: int = 0) -> FeatureBatch:
        """Return the features of a batch, those of captions where there are captions and a text tower.

        Args:
            batch: With ``image`` and ``key``; ``text`` and ``valid`` are used where they are there.
            batch_idx: Its number.
            dataloader_idx: Number of its loader.
        """
        del batch_idx, dataloader_idx
        self._check_geometry(batch)
        images, texts = self(batch["image"], batch.get("text") if self.model.clip.text_encoder is not None else None)
        found: FeatureBatch = {"key": batch["key"], "image_features": images}
        if texts is not None:
            found["text_features"] = texts
        if "valid" in batch:
            found["valid"] = batch["valid"]
        return found

    @override
    def _step(self, batch: PretrainBatch, batch_idx: int, stage: str) -> Tensor | None:
        """Run the model and log; in evaluation also update the metrics."""
        self._check_geometry(batch)
        if stage == "train":
            if self.accumulation.parts > 1:
                self._begin_gradients(batch_idx)
            result = self.accumulation(self.model, batch, self._add_gradients)
            self._log_training(result, len(batch["image"]))
            return result.loss
        if isinstance(batch.get("labels"), Mapping):
            self._recognise(cast(FaceBatch, batch))
            return None
        self.outcomes = None
        loss = self._evaluate(without_repeats(batch), stage)
        if self.wants_outcomes and self.evaluation.outcomes is not None:
            self.outcomes = with_repeats(self.evaluation.outcomes, batch.get("valid"))
        return loss

    def _recognise(self, batch: FaceBatch) -> None:
        """Tell the labels of faces by prompts."""
        if self.evaluation.zero_shot is None:
            raise ConfigError(
                "none of the data's labels can be told by prompts: that takes a text tower with a contrastive "
                "objective, and prompts, which are known for CelebA's attributes, gender, expression and age; give "
                "others as model.prompts"
            )
        features = cast(Tensor, self.model.encode(batch["image"]).image_features)
        found = self.evaluation.recognise(self.model.clip, features, batch["labels"], batch.get("valid"))
        self.outcomes = found if self.wants_outcomes else None

    def _evaluate(self, batch: PretrainBatch, stage: str) -> Tensor:
        """Update the metrics, and log the losses; batches count by the samples of all processes together."""
        result: PretrainResult = self.model(batch, also=("image",) if self.evaluation.uses_features else ())
        self.evaluation.update(self.model, result, batch)
        losses = {f"{stage}/loss": result.loss} | {f"{stage}/loss_{k}": r.loss for k, r in result.results.items()}
        valid = batch["valid"] if "valid" in batch else torch.ones(len(batch["image"]), device=self.device)
        if count := int(global_sum(valid.sum())):
            self.log_dict(process_means(losses), batch_size=count, sync_dist=True)
        return result.loss

    def _check_strategy(self) -> None:
        """Refuse strategies that allow one backward pass per step."""
        allowed = (SingleDeviceStrategy, DDPStrategy, ModelParallelStrategy)
        if self.accumulation.parts > 1 and not isinstance(self.trainer.strategy, allowed):
            raise ConfigError(
                f"accumulate_contrastive={self.accumulation.parts} needs several backward passes per step, which "
                f"{type(self.trainer.strategy).__name__} does not allow; use one of "
                f"{', '.join(strategy.__name__ for strategy in allowed)}"
            )

    def _begin_gradients(self, batch_idx: int) -> None:
        """Zero the gradients, where Lightning would, before the first part: its own moment comes after all but one."""
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            for optimizer in self.trainer.optimizers:
                optimizer.zero_grad()

    @override
    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Zero the gradients, unless those of the first parts of the batch are there already."""
        if self.accumulation.parts == 1:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def _add_gradients(self, loss: Tensor) -> None:
        """Propagate the loss of a part, scaled as Lightning scales that of the last part.

        DDP does not listen yet: it waits for gradients from the end of ``training_step`` on, finds the sum of all
        parts when the last one arrives, and averages it.
        """
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        loss = loss / self.trainer.accumulate_grad_batches
        with torch.autocast(self.device.type, enabled=False):
            (loss if scaler is None else scaler.scale(loss)).backward()

    def _log_training(self, result: PretrainResult, count: int) -> None:
        """Log the losses and what the objectives report, of all processes together."""
        values = {"train/loss": result.loss}
        values |= {f"train/loss_{name}": part.loss for name, part in result.results.items()}
        for name, part in result.results.items():
            values |= {f"train/{name}_{key}": value for key, value in part.logs.items()}
        values = process_means(values)
        self.log("train/loss", values.pop("train/loss"), prog_bar=True, batch_size=count)
        self.log_dict(values, batch_size=count)

    def _check_geometry(self, batch: PretrainBatch) -> None:
        """Refuse images of another size than the encoder's, once."""
        if self._checked:
            return
        size, encoder = tuple(batch["image"].shape[-2:]), self.model.clip.image_encoder
        if size != (encoder.image_size, encoder.image_size):
            raise ConfigError(
                f"the data makes images of {size[1]} x {size[0]} pixels (data.transform.image_size), but the tower "
                f"takes {encoder.image_size} x {encoder.image_size} (model.clip.image.image_size); set both to the same"
            )
        self._checked = True

    @override
    def on_validation_epoch_end(self) -> None:
        """Log what validation found."""
        self._log_findings("val")

    @override
    def on_test_epoch_end(self) -> None:
        """Log what the test found."""
        self._log_findings("test")

    def _log_findings(self, stage: str) -> None:
        """Log values, which are the same on all processes, and keep what to read them against."""
        values, references = self.evaluation.compute()
        for name, value in values.items():
            self.log(f"{stage}/{name}", value.to(self.device), sync_dist=False)
        self.references.update({f"{stage}/{name}": reference for name, reference in references.items()})

    def caption_similarity(self, batch: PretrainBatch) -> Tensor | None:
        """Compare the images and the captions of a batch, for pictures.

        Args:
            batch: With ``image`` and ``text``.

        Returns:
            (B, B) cosine similarity, image by caption; None without captions or a text tower.
        """
        if "text" not in batch or self.model.clip.text_encoder is None:
            return None
        images, texts = self(batch["image"], batch["text"])
        return torch.mm(images, texts.T)

    def reconstruct(self, batch: PretrainBatch) -> Tensor | None:
        """Fill masked patches with what the first masked image objective guesses, for pictures.

        Args:
            batch: With ``image`` and ``patch_mask``.

        Returns:
            (B, 3, H, W) normalised images; None when there is no such objective or its target has no pixels.
        """
        objective = next(iter(masked_image_objectives(self.model).values()), None)
        if objective is None or "patch_mask" not in batch:
            return None
        images, mask, target = batch["image"], batch["patch_mask"], objective.target
        outputs = self.model.encode(images, patch_mask=mask, need_feature=False)
        guesses = objective.head(outputs.masked_tokens, mask)
        filled = target(images)
        filled[mask] = (guesses.argmax(-1) if target.is_discrete else guesses).to(filled.dtype)
        patches = target.to_patches(filled, images)
        if patches is None:
            return None
        seen = patchify(images, target.patch_size)
        return unpatchify(patches.to(seen.dtype).where(mask.unsqueeze(-1), seen), target.grid)
