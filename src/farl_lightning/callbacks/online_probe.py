"""How much a simple learner gets out of the features, watched while they are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from typing_extensions import override

from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.functional.distributed import all_gather_cat, rank, world_size
from farl_lightning.functional.random import keyed_generator
from farl_lightning.probing.probe import METHODS, judge, predict
from farl_lightning.probing.targets import METRICS, Kind, Target
from farl_lightning.types import ATTRIBUTES, FaceSpec


class OnlineProbe(L.Callback):
    """Log linear and k-NN probes of the image features after each validation.

    The labelled faces of validation are divided into ``folds`` parts; each part is answered by probes that learned from
    the others, so that every face is judged once and training meets no label. Features come from the task's
    ``predict_step`` (``image_features``), of the averaged weights where there is an average. All processes' faces are
    put together first: results do not depend on how many processes there are. The task's gradients, batches and random
    numbers are left alone.

    Logs ``val/probe_<method>_<column>`` and ``val/probe_baseline_<column>`` (the most frequent class, the majority of
    each attribute, or the median): percent, or the mean absolute error of a number.

    Args:
        column: Label that is learned: ``"attributes"`` (mean accuracy over all of them), a class or a number.
        data: A datamodule with labelled faces for the probe, where the run's own validation has none; its
            ``val_dataloader`` is read, and its pictures must have the size and normalisation of the task's. None reads
            the run's first validation loader along with the run.
        methods: ``"linear"``, ``"ridge"``, ``"sgd"``, ``"knn"``; see :func:`farl_lightning.probing.run_probe`.
        folds: Parts that are answered in turn, 2 or more.
        max_faces: Largest number of faces that are used, the first ones.
        every_n_epochs: Validations between two probes.
        neighbours: Number of neighbours of ``"knn"``.
        seed: Which faces belong together in a part.

    Raises:
        ConfigError: If a setting means nothing; at the first validation, if the data have no such labels.
    """

    def __init__(
        self,
        column: str = ATTRIBUTES,
        data: L.LightningDataModule | None = None,
        methods: Sequence[str] = ("linear", "knn"),
        folds: int = 5,
        max_faces: int = 5000,
        every_n_epochs: int = 1,
        neighbours: int = 20,
        seed: int = 0,
    ) -> None:
        for method in methods:
            if method not in METHODS:
                raise ConfigError(f"probe method '{method}' is unknown. {did_you_mean(method, METHODS)}")
        least = {"folds": (folds, 2), "max_faces": (max_faces, 2), "every_n_epochs": (every_n_epochs, 1)}
        for name, (value, bound) in least.items():
            if value < bound:
                raise ConfigError(f"{name} is {value}; it has to be at least {bound}")
        self.column, self.data, self.methods = column, data, tuple(methods)
        self.folds, self.max_faces, self.every_n_epochs = folds, max_faces, every_n_epochs
        self.neighbours, self.seed = neighbours, seed
        self._validations = 0
        self._start(0, 1)

    def _start(self, first: int, stride: int) -> None:
        """Forget everything; the n-th face of this process is number ``first + n * stride`` of the data set."""
        self._first, self._stride, self._seen = first, stride, 0
        self._rows: list[tuple[Tensor, Tensor, Tensor]] = []

    def _active(self, trainer: L.Trainer) -> bool:
        """Whether this validation is probed."""
        return not trainer.sanity_checking and self._validations % self.every_n_epochs == 0

    @override
    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start anew."""
        share = trainer.distributed_sampler_kwargs or {"rank": 0, "num_replicas": 1}
        self._start(share["rank"], share["num_replicas"])

    @override
    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Read the probe's own data before the first batch: averaged weights are in place by now."""
        if self.data is not None and batch_idx == dataloader_idx == 0 and self._active(trainer):
            self._read_own(pl_module)

    def _read_own(self, pl_module: L.LightningModule) -> None:
        """Read the probe's own data."""
        assert self.data is not None  # noqa: S101 (for mypy)
        self.data.setup("validate")
        for batch in self.data.val_dataloader():
            if self._seen * self._stride >= self.max_faces:
                break
            self._keep(pl_module, {**batch, "image": batch["image"].to(pl_module.device)})

    @override
    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the features and labels of a batch."""
        enough = self._seen * self._stride >= self.max_faces
        if self.data is None and dataloader_idx == 0 and self._active(trainer) and not enough:
            self._keep(pl_module, batch)

    def _keep(self, pl_module: L.LightningModule, batch: Mapping[str, Any]) -> None:
        """Compute the features of a batch, and note number, label and whether it counts."""
        labels = self._labels(batch)
        count = len(batch["image"])
        with torch.no_grad():
            found = pl_module.predict_step({"image": batch["image"], "key": batch["key"]}, 0)
        if not isinstance(found, Mapping) or "image_features" not in found:
            raise ConfigError(
                f"OnlineProbe needs a task whose predict_step gives 'image_features', as PretrainTask's does; "
                f"{type(pl_module).__name__}'s does not"
            )
        features = found["image_features"].float()
        numbers = self._first + self._stride * torch.arange(self._seen, self._seen + count)
        valid = batch["valid"].cpu().bool() if "valid" in batch else torch.ones(count, dtype=torch.bool)
        self._seen += count
        self._rows.append((torch.where(valid, numbers, -1), features.cpu(), labels.cpu().double().view(count, -1)))

    def _labels(self, batch: Mapping[str, Any]) -> Tensor:
        """Return the labels of the column."""
        found = batch.get("labels", {})
        columns = found if isinstance(found, Mapping) else {ATTRIBUTES: found}  # pretraining knows attributes alone
        if self.column not in columns:
            hint = did_you_mean(self.column, columns) or "It has none at all; give the probe data of its own."
            raise ConfigError(f"OnlineProbe: the validation data has no labels '{self.column}'. {hint}")
        labels: Tensor = columns[self.column]
        self._is_number = labels.is_floating_point()
        return labels

    @override
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Gather, probe on the first process, and log on all."""
        active = self._active(trainer)
        self._validations += not trainer.sanity_checking
        if not active or not self._rows:
            return
        spec = getattr(self.data if self.data is not None else getattr(trainer, "datamodule", None), "spec", None)
        found = self.results(pl_module.device, spec or FaceSpec())
        found = trainer.strategy.broadcast(found)
        self._rows = []
        for name, value in found.items():
            pl_module.log(f"val/{name}", value, sync_dist=False)

    def results(self, device: torch.device, spec: FaceSpec) -> dict[str, float]:
        """Probe the faces that all processes kept; every process has to call it, the first one computes.

        Args:
            device: That the process group can reach.
            spec: Names of the labels.

        Returns:
            ``probe_<method>_<column>`` and ``probe_baseline_<column>`` on the first process, nothing elsewhere.
        """
        numbers, features, labels = (self._gathered(part, device) for part in zip(*self._rows, strict=True))
        order = numbers.argsort()
        order = order[(numbers[order] >= 0) & (numbers[order] < self.max_faces)]
        target = self._target(labels[order], spec)
        kept = order[target.known]
        target = target.take(target.known)
        if len(kept) < self.folds:
            raise ConfigError(
                f"OnlineProbe: {len(kept)} validation faces with '{self.column}' cannot make {self.folds} folds"
            )
        return self._probe(features[kept], target) if rank() == 0 else {}

    def _gathered(self, parts: Sequence[Tensor], device: torch.device) -> Tensor:
        """Return the rows of all processes, on the CPU."""
        own = torch.cat(list(parts))
        return own if world_size() == 1 else all_gather_cat(own.to(device)).cpu()

    def _target(self, labels: Tensor, spec: FaceSpec) -> Target:
        """Return what is learned."""
        kind: Kind = "attributes" if self.column == ATTRIBUTES else "number" if self._is_number else "class"
        if kind == "number":
            return Target(kind, labels[:, 0].float(), ())
        values = labels.long()
        names = spec.attributes if kind == "attributes" else spec.label_names.get(self.column, ())
        size = values.shape[1] if kind == "attributes" else int(values.max()) + 1
        names = tuple(names) if len(names) >= size else tuple(str(number) for number in range(size))
        return Target(kind, values if kind == "attributes" else values[:, 0], names)

    def _probe(self, features: Tensor, target: Target) -> dict[str, float]:
        """Answer each part by probes that learned from the others."""
        order = torch.randperm(len(features), generator=keyed_generator(self.seed, "folds"))
        parts = order.chunk(self.folds)
        found: dict[str, float] = {}
        for method in self.methods:
            answers: Tensor | None = None
            for fold, test in enumerate(parts):
                train = torch.cat([part for number, part in enumerate(parts) if number != fold])
                said, _ = predict(
                    features[train], target.take(train), features[test], method, self.seed, self.neighbours
                )
                answers = torch.empty(len(features), *said.shape[1:]) if answers is None else answers
                answers[test] = said
            assert answers is not None  # noqa: S101 (for mypy)
            judged = judge(answers, target)
            found[f"probe_{method}_{self.column}"] = judged.scores[METRICS[target.kind]]
            found[f"probe_baseline_{self.column}"] = judged.baseline.value
        return found
