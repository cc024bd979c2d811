"""Accuracy of binary attributes that no label was trained on, beside the majority class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from farl_lightning.errors import ConfigError
from farl_lightning.functional.bootstrap import bootstrap_counts, bootstrap_sign_interval


class ZeroShotAttributes(Metric):
    """Accuracy per binary attribute, against always answering its more frequent side.

    The difference of both is paired over samples, and its bootstrap interval says whether it could be luck. Labels of
    -1 (unknown) do not count.

    Args:
        names: The attributes, in the order of the columns.
        level: Probability that the interval covers.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.
        **kwargs: For ``torchmetrics.Metric``.

    Raises:
        ConfigError: If ``names`` is empty or names an attribute twice.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    confusion: Tensor

    def __init__(
        self, names: Sequence[str], *, level: float = 0.95, resamples: int = 10_000, seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"names={list(names)} must hold one or more attributes, each once")
        self.names = tuple(names)
        self.level, self.resamples, self.seed = level, resamples, seed
        # number of samples by attribute, label, answer: all that the interval needs, and exact under any sharding
        self.add_state("confusion", torch.zeros(len(names), 2, 2, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, labels: Tensor, valid: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            predictions: (B, A) bool or 0/1 answers; or (B, A, 2) logits, index 1 = present.
            labels: (B, A) int64: 1 yes, 0 no, -1 unknown.
            valid: (B,) bool; False marks repeats that must not count. All count by default.

        Raises:
            ConfigError: If the columns are not the named attributes.
        """
        answers = predictions.argmax(-1) if predictions.ndim == 3 else predictions.long()
        if answers.shape != labels.shape or labels.shape[1] != len(self.names):
            raise ConfigError(
                f"predictions {tuple(predictions.shape)} and labels {tuple(labels.shape)} must have the "
                f"{len(self.names)} columns {', '.join(self.names)}"
            )
        known = labels >= 0 if valid is None else (labels >= 0) & valid[:, None]
        columns = torch.arange(len(self.names), device=labels.device).expand_as(labels)
        cells = ((columns * 2 + labels) * 2 + answers)[known]
        self.confusion += torch.bincount(cells, minlength=self.confusion.numel()).view_as(self.confusion)

    def compute(self) -> dict[str, Tensor]:
        """Return shares in [0, 1], NaN for an attribute without a label.

        Returns:
            For each attribute ``<name>`` (accuracy), ``<name>_majority`` (accuracy of its more frequent side),
            ``<name>_balanced`` (mean accuracy over the sides that occur), ``<name>_gain`` (accuracy less majority),
            and the ends of the bootstrap intervals of the last two: ``<name>_gain_low``, ``<name>_balanced_low``, ...
        """
        table = self.confusion.double().cpu()
        sides, total = table.sum(2), table.sum((1, 2))
        right = table.diagonal(dim1=1, dim2=2)
        rare = sides.argmin(1)  # the answer that the baseline never gives; on equal sides, either will do
        each = torch.arange(len(table))
        wins, losses = table[each, rare, rare], table[each, 1 - rare, rare]
        low, high = bootstrap_sign_interval(
            wins, losses, total, level=self.level, resamples=self.resamples, seed=self.seed
        )
        ends = [self._balanced_ends(cells) for cells in table]
        columns = {
            "": right.sum(1) / total,
            "_majority": sides.amax(1) / total,
            "_balanced": (right / sides).nanmean(1),
            "_balanced_low": torch.stack([low for low, _ in ends]),
            "_balanced_high": torch.stack([high for _, high in ends]),
            "_gain": (wins - losses) / total,
            "_gain_low": low,
            "_gain_high": high,
        }
        return {
            f"{name}{suffix}": values[index].float().to(self.confusion.device)
            for index, name in enumerate(self.names)
            for suffix, values in columns.items()
        }

    def _balanced_ends(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Return the interval of the balanced accuracy of one attribute, from its (label, answer) counts."""
        draws = bootstrap_counts(cells.flatten(), resamples=self.resamples, seed=self.seed).view(-1, 2, 2)
        balanced = (draws.diagonal(dim1=1, dim2=2) / draws.sum(2)).nanmean(1)
        tail = (1 - self.level) / 2
        low, high = balanced.nanquantile(torch.tensor([tail, 1 - tail], dtype=torch.float64))
        return low, high
