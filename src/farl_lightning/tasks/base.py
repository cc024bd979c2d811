"""The contract of every task: build once, step the same way everywhere, save plain settings and the face geometry."""

from __future__ import annotations

from typing import Any, TypedDict, cast

import lightning as L
import torch
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities import GradClipAlgorithmType, rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from farl_lightning.errors import ConfigError
from farl_lightning.functional.distributed import all_gather_cat
from farl_lightning.functional.random import derive_seed
from farl_lightning.tasks.hparams import plain_hyperparameters
from farl_lightning.tasks.optim import OptimConfig, build_optimizer, build_schedule
from farl_lightning.tasks.trials import JudgedPairs
from farl_lightning.types import Configurable, FaceSpec


class MetricReference(TypedDict, total=False):
    """What a metric is to be read against, in the metric's own unit."""

    baseline: float
    """The value without any knowledge."""
    kind: str
    """Where the baseline comes from, such as ``"chance"`` or ``"majority"``."""
    low: float
    """Lower end of the 95 % bootstrap interval of the difference to the baseline."""
    high: float
    """Upper end of that interval."""
    paper: float
    """A published value."""
    selection: str
    """How the epoch behind the published value was chosen."""
    mark: str
    """``"confirmed"`` by a primary source, or ``"recalled"``."""
    source: str
    """Where the published value stands."""


class BaseTask(Configurable, L.LightningModule):
    """Base of all tasks. A subclass assigns its settings and ends its constructor with :meth:`build`.

    .. code-block:: python

        class MyTask(BaseTask):
            def __init__(self, width: int = 8, optim: OptimConfig | None = None, seed: int = 0) -> None:
                super().__init__(optim, seed)
                self.width = width
                self.build()

            def build_model(self) -> nn.Module: ...

            def _step(self, batch, batch_idx, stage) -> Tensor: ...

    Everything trainable lies under :attr:`model`; the task itself owns no parameters. The arguments of the
    outermost constructor become the hyper-parameters of checkpoints, as plain data: they must be numbers, strings,
    lists, dicts, dataclasses or objects of a :class:`~farl_lightning.types.Configurable` class.

    Args:
        optim: Optimiser and schedule; ``None`` takes the defaults.
        seed: Seed of all randomness inside the network (dropout, stochastic depth). Each batch is seeded by (seed,
            rank, step, number within the step), so that a resumed run repeats the steps of an uninterrupted one.

    Attributes:
        model: The one trainable root.
        spec: Geometry of the faces: the datamodule's, or the checkpoint's; None before either is known.
        references: What each logged metric is to be read against, by metric key.
        monitor: Metric that selects the best checkpoint.
        mode: ``"max"`` or ``"min"``, for ``monitor``.
        predicts: What ``predict_step`` returns: ``"features"`` (:class:`~farl_lightning.types.FeatureBatch`) or
            ``"faces"`` (:class:`~farl_lightning.types.FacePrediction`).
        outcome_name: What single faces are judged by, such as ``"accuracy"``; empty where a task judges none. Larger
            outcomes are better where ``mode`` is ``"max"``.
        wants_outcomes: Whether somebody, such as a callback, reads :attr:`outcomes`.
        outcomes: (B,) what became of each face of the last evaluated batch, in the unit of the metric
            ``outcome_name``, nan where nothing can be said; None before, and where nobody wants them.
        judges_pairs: Whether pairs are judged, all of them at the end (:meth:`judged_pairs`), instead of single faces.
    """

    monitor: str = "val/loss"
    mode: str = "min"
    predicts: str = "features"
    outcome_name: str = ""
    judges_pairs: bool = False
    model: nn.Module

    def __init__(self, optim: OptimConfig | None = None, seed: int = 0) -> None:
        super().__init__()
        # logger=False: Lightning would merge them with the datamodule's and refuse equal names with different values
        self.save_hyperparameters(plain_hyperparameters(self), logger=False)
        self.optim = optim or OptimConfig()
        self.seed = seed
        self.spec: FaceSpec | None = None
        self.references: dict[str, MetricReference] = {}
        self.wants_outcomes = False
        self.outcomes: Tensor | None = None
        # step, and number of the batch within it where gradients accumulate. Lightning's batch_idx will not do: resumed
        # at the end of an epoch and again in the next one, it begins anew at 0
        self._place = (-1, 0)

    def build(self) -> None:
        """Build network, losses and metrics, in this order; the last line of a subclass's constructor."""
        self.model = self.build_model()
        self.configure_losses()
        self.configure_metrics()

    def build_model(self) -> nn.Module:
        """Return the network: the root of everything trainable."""
        raise NotImplementedError(f"{type(self).__name__} must define build_model()")

    def configure_losses(self) -> None:
        """Create the losses, where they are not part of the network."""

    def configure_metrics(self) -> None:
        """Create the metrics of validation and test."""

    def _step(self, batch: Any, batch_idx: int, stage: str) -> Tensor | None:
        """Process one batch in any stage.

        Args:
            batch: A batch of the task's schema.
            batch_idx: Its number.
            stage: ``"train"``, ``"val"`` or ``"test"``; the prefix of metric keys.

        Returns:
            The loss in training; ignored elsewhere.
        """
        raise NotImplementedError(f"{type(self).__name__} must define _step()")

    @override
    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """Seed the step by its number, then run the shared step."""
        self._place = (self.global_step, self._place[1] + 1 if self._place[0] == self.global_step else 0)
        torch.manual_seed(derive_seed(self.seed, "step", self.global_rank, *self._place))
        return self._step(batch, batch_idx, "train")

    @override
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Run the shared step for validation."""
        self._step(batch, batch_idx, "val")

    @override
    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Run the shared step for the test."""
        self._step(batch, batch_idx, "test")

    @override
    def configure_model(self) -> None:
        """Shard :attr:`model` over processes, once, where the strategy has a mesh of them (``ModelParallelStrategy``).

        Weights to start from are loaded first, while every tensor is whole.
        """
        if self.device_mesh is None:
            return
        from farl_lightning.tasks.sharding import shard  # FSDP takes long to import

        self.initialise()
        shard(self.model, self.device_mesh, str(self.trainer.precision))

    def judged_pairs(self) -> list[JudgedPairs]:
        """Return what became of each pair of faces, at the end of an evaluation; nothing by default.

        Every process has to call it, and gets the same.
        """
        return []

    def initialise(self) -> None:
        """Load the weights that a run starts from, where a task has such a setting; nothing by default."""

    @override
    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build the optimiser over :attr:`model` and its schedule, stepped with every optimiser step.

        ``fast_dev_run`` is a trial of another length than the run that the settings are for: its warm-up is cut.
        """
        steps = self.trainer.estimated_stepping_batches
        # Lightning keeps the number of batches given, or a bool
        optim = self.optim.fitted_to(steps) if self.trainer.fast_dev_run else self.optim  # type: ignore[attr-defined]
        optim = optim.in_steps(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        # a gradient scaler cannot clip before a fused optimiser, which un-scales inside its step
        optimizer = build_optimizer(self.model, optim, fused=self.trainer.precision != "16-mixed")
        schedule = build_schedule(optimizer, optim, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @override
    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the trainer is set; before a fused optimiser under bfloat16 autocast, too.

        Lightning refuses the latter, because under float16 a fused optimiser un-scales gradients after clipping.
        Under bfloat16 there is no scale. It also refuses norms under the classic ``FSDPStrategy``, whose root
        knows them.
        """
        by_norm = gradient_clip_val and (gradient_clip_algorithm or "norm") == "norm"
        if by_norm and isinstance(self.trainer.strategy, FSDPStrategy):
            cast(Any, self.trainer.strategy.model).clip_grad_norm_(gradient_clip_val)
        elif self.trainer.precision != "bf16-mixed":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            algorithm = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
            Precision.clip_gradients(self.trainer.precision_plugin, optimizer, gradient_clip_val, algorithm)

    @override
    def setup(self, stage: str) -> None:
        """Take the face specification of the datamodule, where there is one."""
        spec = getattr(getattr(self.trainer, "datamodule", None), "spec", None)
        if spec is not None:
            self.set_spec(spec)

    def set_spec(self, spec: FaceSpec) -> None:
        """Set the face specification; a subclass that depends on it extends this.

        Args:
            spec: The datamodule's, or the one saved in a checkpoint.
        """
        self.spec = spec

    @override
    def on_fit_start(self) -> None:
        """Hand the settings to every logger, under ``model``."""
        for logger in self.loggers:
            logger.log_hyperparams({"model": {k: v for k, v in self.hparams.items() if not k.startswith("_")}})

    @override
    def on_train_start(self) -> None:
        """Refuse an epoch of different lengths: the processes with more batches would wait for the others for ever."""
        own = torch.tensor([float(self.trainer.num_training_batches)], device=self.device)
        counts = all_gather_cat(own).tolist()
        if min(counts) != max(counts):
            numbers = ", ".join(f"{count:g}" for count in counts)
            raise ConfigError(
                f"the processes have different numbers of training batches ({numbers}, by rank), so the run would hang "
                "at the end of the epoch; use a datamodule of this package, a DistributedSampler, or "
                f"trainer.limit_train_batches: {min(counts):g}"
            )

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the face specification as plain data; of what is not sharded, save what the first process has."""
        if self.spec is not None:
            checkpoint["face_spec"] = self.spec.to_dict()
        if self.device_mesh is not None:
            from farl_lightning.tasks.sharding import take_first

            take_first(checkpoint["state_dict"], self.trainer.strategy.broadcast)

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the saved face specification, unless the data at hand brings its own; tell where they differ."""
        if "face_spec" not in checkpoint:
            return
        saved = FaceSpec.from_dict(checkpoint["face_spec"])
        if self.spec is None:
            self.set_spec(saved)
            return
        for name in ("image_size", "mean", "std", "crop"):
            if getattr(saved, name) != getattr(self.spec, name):
                rank_zero_warn(
                    f"the checkpoint was trained on faces with {name} {getattr(saved, name)}, "
                    f"the data has {name} {getattr(self.spec, name)}; the data's is used"
                )
