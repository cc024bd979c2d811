"""Accuracy and F1 of one class of several, from one confusion matrix over the whole dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from farl_lightning.errors import ConfigError
from farl_lightning.functional.bootstrap import bootstrap_sign_interval
from farl_lightning.functional.precision import as_float64
from farl_lightning.functional.segmentation import confusion_matrix, f1_scores
from farl_lightning.metrics.gains import Baseline
from farl_lightning.metrics.parsing import checked_names

_UNKNOWN = -1


class ClassificationScores(Metric):
    """Accuracy, macro F1 and balanced accuracy (mean recall), in percent.

    All faces make one confusion matrix of int64 counts, so the result is the same to the last bit under any number of
    processes. Unknown labels (-1) do not count; they are counted in ``unknown_labels``. Macro F1 averages over the
    classes that occur in the truth or in an answer, as scikit-learn does; balanced accuracy over those in the truth.

    Args:
        num_classes: Number of classes C.
        class_names: Their names; numbers by default.
        **kwargs: For ``torchmetrics.Metric``.

    Attributes:
        table: (C, C) int64 on the CPU as of the last :meth:`compute`; rows are true classes.
        baseline: The accuracy of always answering the most frequent class, as of the last :meth:`compute`.
        rows: One row per class, as of the last :meth:`compute`.

    Raises:
        ConfigError: If the numbers and names do not fit.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    confusion: Tensor
    unknown: Tensor

    def __init__(self, num_classes: int, class_names: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.names = checked_names(num_classes, class_names, None)
        self.table = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.baseline = Baseline(float("nan"), float("nan"), float("nan"), "majority")
        self.rows: list[dict[str, Any]] = []
        self.add_state("confusion", self.table.clone(), dist_reduce_fx="sum")
        self.add_state("unknown", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, answers: Tensor, labels: Tensor, valid: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            answers: (B,) int64 classes, or (B, C) logits.
            labels: (B,) int64 in [0, C), -1 unknown.
            valid: (B,) bool; False marks repeats and skipped samples that must not count. All count by default.

        Raises:
            ConfigError: If sizes differ.
            DataError: If a label is out of range.
        """
        answers = answers.argmax(1) if answers.ndim == 2 else answers
        if answers.shape != labels.shape or (valid is not None and valid.shape != labels.shape):
            raise ConfigError(f"answers {tuple(answers.shape)} and labels {tuple(labels.shape)} must be (B,) each")
        if valid is not None:
            answers, labels = answers[valid], labels[valid]
        self.confusion += confusion_matrix(answers, labels, len(self.names), ignore_index=_UNKNOWN)
        self.unknown += (labels == _UNKNOWN).sum()

    def compute(self) -> dict[str, Tensor]:
        """Return scores in percent, float64.

        Returns:
            ``accuracy``, ``f1_macro``, ``balanced_accuracy``, ``unknown_labels`` (how many) and, for each class that
            occurs, ``f1_<name>``.
        """
        self.table = self.confusion.cpu()
        table = as_float64(self.confusion)
        recall, f1 = 100 * table.diagonal() / table.sum(1), 100 * f1_scores(self.confusion)
        self.baseline = self._baseline()
        self.rows = self._rows(f1, recall)
        found = {
            "accuracy": 100 * table.diagonal().sum() / table.sum(),
            "f1_macro": f1.nanmean(),
            "balanced_accuracy": recall.nanmean(),
            "unknown_labels": as_float64(self.unknown),
        }
        return found | {f"f1_{n}": v for n, v in zip(self.names, f1, strict=True) if not v.isnan()}

    def _baseline(self) -> Baseline:
        """Answer the most frequent class, and compare face by face."""
        table = self.table.double()
        right, total, majority = table.diagonal(), table.sum(), int(table.sum(1).argmax())
        wins = right.sum() - right[majority]
        losses = table[majority].sum() - right[majority]
        low, high = bootstrap_sign_interval(wins[None], losses[None], total[None])
        return Baseline(float(100 * table.sum(1).amax() / total), 100 * low.item(), 100 * high.item(), "majority")

    def _rows(self, f1: Tensor, recall: Tensor) -> list[dict[str, Any]]:
        """Return one row per class."""
        columns = zip(self.names, f1.tolist(), recall.tolist(), self.table.sum(1).tolist(), strict=True)
        return [{"class": name, "f1": a, "recall": b, "faces": count} for name, a, b, count in columns]
