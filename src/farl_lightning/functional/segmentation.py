"""Counts and scores of label maps: one confusion matrix over a whole dataset, and what is read off it."""

from __future__ import annotations

import torch
from torch import Tensor

from farl_lightning.errors import ConfigError, DataError
from farl_lightning.functional.precision import as_float64

_CHUNK = 1 << 22  # pixels at a time: a 12-megapixel picture must not need copies of 12 million int64 each


def confusion_matrix(pred: Tensor, target: Tensor, num_classes: int, *, ignore_index: int | None = None) -> Tensor:
    """Count pixels by true and predicted label.

    Args:
        pred: Labels in [0, C) of any shape and integer dtype.
        target: Labels in [0, C), or ``ignore_index``, of the same shape.
        num_classes: C.
        ignore_index: Label of target pixels that do not count.

    Returns:
        (C, C) int64 on the device of ``target``: rows are true labels, columns predicted ones.

    Raises:
        ConfigError: If the shapes differ.
        DataError: If a label is out of range.
    """
    if pred.shape != target.shape:
        raise ConfigError(
            f"predicted labels {tuple(pred.shape)} and true labels {tuple(target.shape)} differ in shape; compare "
            "pictures of the same size"
        )
    counts = torch.zeros(num_classes**2 + 2, dtype=torch.int64, device=target.device)
    for own, true in zip(torch.split(pred.flatten(), _CHUNK), torch.split(target.flatten(), _CHUNK), strict=True):
        cells = _cells(own, true, num_classes, ignore_index)
        counts += torch.bincount(cells, minlength=len(counts))
    if counts[-1]:
        raise DataError(_out_of_range(pred, target, num_classes, ignore_index))
    return counts[:-2].view(num_classes, num_classes)


def _cells(pred: Tensor, target: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """Return for each pixel its cell in the flat matrix; C*C means ignored, C*C + 1 out of range."""
    small = torch.int16 if num_classes**2 + 2 <= torch.iinfo(torch.int16).max else torch.int64  # 3x faster counting
    wrong = (target < 0) | (target >= num_classes) | (pred < 0) | (pred >= num_classes)
    cells = target.to(small) * num_classes + pred.to(small)
    cells.masked_fill_(wrong, num_classes**2 + 1)
    if ignore_index is not None:
        cells.masked_fill_(target == ignore_index, num_classes**2)
    return cells


def _out_of_range(pred: Tensor, target: Tensor, num_classes: int, ignore_index: int | None) -> str:
    """Say which labels are not allowed."""
    counted = torch.ones_like(target, dtype=torch.bool) if ignore_index is None else target != ignore_index
    found = []
    for name, labels in (("true", target[counted]), ("predicted", pred[counted])):
        strange = sorted(set(labels[(labels < 0) | (labels >= num_classes)].tolist()))
        if strange:
            found.append(f"{name} labels {strange[:8]}")
    besides = "" if ignore_index is None else f" or {ignore_index} (ignored) in the truth"
    return f"{' and '.join(found)} are not in 0..{num_classes - 1}{besides}; check the number of classes"


def present_classes(confusion: Tensor) -> Tensor:
    """Tell which classes occur at all, in the truth or in a prediction.

    Args:
        confusion: (C, C) counts; rows are true labels.

    Returns:
        (C,) bool.
    """
    return (confusion.sum(0) + confusion.sum(1)) > 0


def f1_scores(confusion: Tensor) -> Tensor:
    """F1 of each class over all counted pixels, ``2 TP / (pixels that are it + pixels called it)``.

    Args:
        confusion: (C, C) counts; rows are true labels.

    Returns:
        (C,) float64 in [0, 1]; NaN for a class that occurs neither in the truth nor in a prediction.
    """
    table = as_float64(confusion)
    return 2 * table.diagonal() / (table.sum(0) + table.sum(1))


def iou_scores(confusion: Tensor) -> Tensor:
    """Intersection over union of each class over all counted pixels.

    Args:
        confusion: (C, C) counts; rows are true labels.

    Returns:
        (C,) float64 in [0, 1]; NaN for a class that occurs neither in the truth nor in a prediction.
    """
    table = as_float64(confusion)
    both = table.diagonal()
    return both / (table.sum(0) + table.sum(1) - both)


def foreground_mean(scores: Tensor, background: int | None = 0, *, absent: str = "skip") -> Tensor:
    """Plain mean over the classes that are not background.

    Args:
        scores: (C,) a score per class; NaN marks an absent class.
        background: Label that is left out; None leaves out none.
        absent: ``"skip"`` averages over the classes that occur. ``"nan"`` gives NaN as soon as one foreground class is
            absent, as FaRL's scorer does.

    Returns:
        Scalar; NaN where no foreground class occurs at all.

    Raises:
        ConfigError: If ``absent`` is neither.
    """
    if absent not in ("skip", "nan"):
        raise ConfigError(f"absent='{absent}' must be 'skip' or 'nan'")
    keep = torch.ones_like(scores, dtype=torch.bool)
    if background is not None:
        keep[background] = False
    chosen = scores[keep]
    return chosen.nanmean() if absent == "skip" else chosen.mean()
