"""F1 and IoU of face parsing, from one confusion matrix over the whole dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from farl_lightning.errors import ConfigError
from farl_lightning.functional.precision import as_float64
from farl_lightning.functional.segmentation import (
    confusion_matrix,
    f1_scores,
    foreground_mean,
    iou_scores,
    present_classes,
)

LabelMaps = Tensor | Sequence[Tensor]
"""(B, H, W), or B pictures (H, W) of any sizes; any integer dtype."""


class ParsingF1(Metric):
    """F1 and IoU per class and their foreground means, in percent, as LaPa and CelebAMask-HQ are scored.

    All pixels of the dataset make one confusion matrix of int64 counts, so the result is the same, to the last bit,
    under any number of processes and any batch size. A class that occurs neither in the truth nor in a prediction has
    no score: it gets no key, is left out of the means, counted in ``absent_classes`` of the result and named in
    :attr:`absent_classes`. (FaRL's scorer makes the whole mean NaN; ``foreground_mean(..., absent="nan")`` does too.)

    Args:
        num_classes: Number of classes C.
        class_names: Their names by label, for the keys of the result; numbers by default.
        ignore_index: Label of true pixels that do not count.
        background: Label that the means leave out; None leaves out none.
        **kwargs: For ``torchmetrics.Metric``.

    Attributes:
        table: (C, C) int64 on the CPU, the confusion matrix over all processes as of the last :meth:`compute`; rows are
            true labels.

    Raises:
        ConfigError: If the numbers and names do not fit.

    Example:
        >>> metric = ParsingF1(3, ("background", "skin", "hat"))
        >>> metric.update(torch.tensor([[[0, 1, 1, 1]]]), torch.tensor([[[0, 0, 1, 1]]]))
        >>> round(metric.compute()["f1_mean"].item(), 2), metric.absent_classes
        (80.0, ('hat',))
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    confusion: Tensor

    def __init__(
        self,
        num_classes: int,
        class_names: Sequence[str] = (),
        *,
        ignore_index: int | None = 255,
        background: int | None = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.names = checked_names(num_classes, class_names, background)
        self.ignore_index, self.background = ignore_index, background
        self.table = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("confusion", self.table.clone(), dist_reduce_fx="sum")

    def update(self, pred: LabelMaps, target: LabelMaps, valid: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            pred: Predicted labels.
            target: True labels in the same pixels.
            valid: (B,) bool; False marks repeats and skipped samples that must not count. All count by default.

        Raises:
            ConfigError: If sizes differ.
            DataError: If a label is out of range.
        """
        for own, true in counted_pairs(pred, target, valid):
            self.confusion += confusion_matrix(own, true, len(self.names), ignore_index=self.ignore_index)

    def compute(self) -> dict[str, Tensor]:
        """Return scores in percent, float64.

        Returns:
            ``f1_mean`` and ``iou_mean`` over the foreground classes that occur (NaN if none does), ``accuracy`` of
            pixels, ``absent_classes`` (how many classes do not occur), and for each class that occurs ``f1_<name>`` and
            ``iou_<name>``.
        """
        self.table = self.confusion.cpu()
        scores = {"f1": f1_scores(self.confusion), "iou": iou_scores(self.confusion)}
        table = as_float64(self.confusion)
        results = {f"{kind}_mean": 100 * foreground_mean(s, self.background) for kind, s in scores.items()}
        results["accuracy"] = 100 * table.diagonal().sum() / table.sum()
        results["absent_classes"] = as_float64((~present_classes(self.confusion)).sum())
        return results | per_class(scores, self.names)

    @property
    def absent_classes(self) -> tuple[str, ...]:
        """Names of the classes that occur neither in the truth nor in a prediction, as of the last ``compute``."""
        return tuple(
            name for name, here in zip(self.names, present_classes(self.table).tolist(), strict=True) if not here
        )


def checked_names(num_classes: int, class_names: Sequence[str], background: int | None) -> tuple[str, ...]:
    """Return the names of all classes, or say what does not fit.

    Args:
        num_classes: Number of classes.
        class_names: Names by label; empty for numbers.
        background: A label, or None.

    Raises:
        ConfigError: If there is no class, names are missing, surplus or double, or ``background`` is no label.
    """
    names = tuple(class_names) or tuple(str(label) for label in range(num_classes))
    if num_classes < 1 or len(names) != num_classes or len(set(names)) < num_classes:
        raise ConfigError(f"num_classes={num_classes} and class_names={list(class_names)} must name each class once")
    if background is not None and not 0 <= background < num_classes:
        raise ConfigError(f"background={background} must be a label in 0..{num_classes - 1}, or null for none")
    return names


def counted_pairs(pred: LabelMaps, target: LabelMaps, valid: Tensor | None) -> list[tuple[Tensor, Tensor]]:
    """Pair predicted and true label maps of a batch, without the samples that do not count.

    Args:
        pred: Predicted labels.
        target: True labels.
        valid: (B,) bool; None counts all.

    Raises:
        ConfigError: If their numbers differ.
    """
    if len(pred) != len(target) or (valid is not None and len(valid) != len(target)):
        counts = f"{len(pred)} predicted and {len(target)} true label maps"
        raise ConfigError(counts if valid is None else f"{counts} for {len(valid)} flags 'valid'")
    if valid is None and isinstance(pred, Tensor) and isinstance(target, Tensor):
        return [(pred, target)]
    kept = [True] * len(target) if valid is None else valid.tolist()
    return [(own, true) for own, true, keep in zip(pred, target, kept, strict=True) if keep]


def per_class(scores: dict[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Name the scores of the classes that have one.

    Args:
        scores: For each kind (C,) shares; NaN marks an absent class.
        names: Names of the classes.

    Returns:
        ``<kind>_<name>``, in percent.
    """
    return {
        f"{kind}_{name}": 100 * score
        for kind, values in scores.items()
        for name, score, here in zip(names, values, (~values.isnan()).tolist(), strict=True)
        if here
    }
