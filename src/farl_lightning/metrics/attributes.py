"""Accuracy of binary attributes over a whole dataset, beside the majority of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from farl_lightning.errors import ConfigError
from farl_lightning.functional.bootstrap import bootstrap_mean_interval
from farl_lightning.functional.precision import as_float64
from farl_lightning.metrics.gains import Baseline

_UNKNOWN = -1


class AttributeScores(Metric):
    """Accuracy and balanced accuracy of each attribute, and their means over attributes (mAcc), in percent.

    Scores come from integer counts over all faces, so they are the same to the last bit under any number of processes.
    Unknown labels (-1) do not count; they are counted in ``unknown_labels``. An attribute without any known label has
    no score and is left out of means, one of which only one side occurs has no balanced accuracy.

    Args:
        names: The attributes, in the order of the columns.
        **kwargs: For ``torchmetrics.Metric``.

    Attributes:
        baseline: The mean accuracy of answering the majority of each attribute on the same faces, as of the last
            :meth:`compute`.
        rows: One row per attribute, as of the last :meth:`compute`.

    Raises:
        ConfigError: If ``names`` is empty or names an attribute twice.

    Example:
        >>> metric = AttributeScores(("Smiling", "Young"))
        >>> metric.update(torch.tensor([[2.0, -1.0], [0.5, 3.0]]), torch.tensor([[1, 0], [0, -1]]))
        >>> metric.compute()["accuracy_mean"].item()
        75.0
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    codes: list[Tensor]

    def __init__(self, names: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"names={list(names)} must hold one or more attributes, each once")
        self.names = tuple(names)
        self.baseline = Baseline(float("nan"), float("nan"), float("nan"), "majority")
        self.rows: list[dict[str, Any]] = []
        # 2 label + answer of each face and attribute, flat and float32: what an idle process sends has that shape too
        self.add_state("codes", [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, labels: Tensor, valid: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            logits: (B, A); above 0 means yes.
            labels: (B, A) int64: 1 yes, 0 no, -1 unknown.
            valid: (B,) bool; False marks repeats and skipped samples that must not count. All count by default.

        Raises:
            ConfigError: If the columns are not the named attributes.
        """
        if logits.shape != labels.shape or labels.shape[1] != len(self.names):
            raise ConfigError(
                f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} must have the "
                f"{len(self.names)} columns {', '.join(self.names)}"
            )
        codes = (2 * labels + (logits > 0)).masked_fill(labels < 0, _UNKNOWN)
        kept = codes if valid is None else codes[valid]
        self.codes.append(kept.flatten().to(torch.float32))

    def compute(self) -> dict[str, Tensor]:
        """Return scores in percent, float64.

        Returns:
            ``accuracy_mean``, ``balanced_mean``, ``unknown_labels`` (how many), and for each attribute that has one
            ``accuracy_<name>`` and ``balanced_<name>``.
        """
        codes = dim_zero_cat(self.codes) if len(self.codes) else torch.zeros(0)
        device = codes.device
        codes = codes.view(-1, len(self.names)).long().cpu()
        table = torch.stack([(codes == code).sum(0) for code in range(4)], 1).view(-1, 2, 2)  # attribute, label, answer
        counts = as_float64(table)
        right, sides, total = counts.diagonal(dim1=1, dim2=2), counts.sum(2), counts.sum((1, 2))
        accuracy, balanced = 100 * right.sum(1) / total, 100 * (right / sides).mean(1)
        self.baseline = self._baseline(codes, sides, total)
        self.rows = self._rows(table, accuracy, balanced)
        found = {"accuracy_mean": accuracy.nanmean(), "balanced_mean": balanced.nanmean()}
        found["unknown_labels"] = as_float64((codes == _UNKNOWN).sum())
        for kind, values in (("accuracy", accuracy), ("balanced", balanced)):
            found |= {f"{kind}_{n}": v for n, v in zip(self.names, values, strict=True) if not v.isnan()}
        return {name: value.to(device) if device.type != "mps" else value.float() for name, value in found.items()}

    def _baseline(self, codes: Tensor, sides: Tensor, total: Tensor) -> Baseline:
        """Answer the majority of each attribute; the interval is over faces, whose labels hang together."""
        known, answer = codes != _UNKNOWN, codes % 2
        majority = sides.argmax(1)
        gains = ((codes // 2 == answer).double() - (codes // 2 == majority).double()) * known
        share = known.any(0).sum()
        weights = torch.where(total > 0, len(codes) / total.clamp(min=1), torch.zeros_like(total)) / share.clamp(min=1)
        per_face = 100 * (gains * weights).sum(1)
        low, high = bootstrap_mean_interval(per_face.sort().values)  # sorted: the same under any number of processes
        return Baseline(float((100 * sides.amax(1) / total).nanmean()), low, high, "majority")

    def _rows(self, table: Tensor, accuracy: Tensor, balanced: Tensor) -> list[dict[str, Any]]:
        """Return one row per attribute."""
        columns = zip(self.names, accuracy.tolist(), balanced.tolist(), table.sum(2).tolist(), strict=True)
        return [{"attribute": n, "accuracy": a, "balanced": b, "no": no, "yes": yes} for n, a, b, (no, yes) in columns]
