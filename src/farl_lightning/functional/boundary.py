"""How well the outlines of predicted regions lie on the true ones."""

from __future__ import annotations

import torch
from torch import Tensor

from farl_lightning.errors import ConfigError
from farl_lightning.functional.precision import as_float64


def boundary_matches(
    pred: Tensor, target: Tensor, num_classes: int, tolerance: float, *, ignore_index: int | None = None
) -> Tensor:
    """Count boundary pixels of each class, and those that have a counterpart nearby (Csurka et al., BMVC 2013).

    A boundary pixel of a class belongs to it and has one of its four neighbours in another class; the border of the
    picture is no boundary, nor is the border of an ignored region. A pixel is matched if a boundary pixel of the same
    class in the other map lies within ``tolerance``, in Euclidean distance. Time and memory grow with the length of the
    outlines, not with distance maps of the whole picture per class.

    Args:
        pred: (H, W) predicted labels, integer.
        target: (H, W) true labels, integer.
        num_classes: C; other labels are left out.
        tolerance: Distance in pixels, 0 or more.
        ignore_index: Label of target pixels that do not count.

    Returns:
        (C, 4) int64: predicted boundary pixels that are matched, all predicted, true ones that are matched, all true.

    Raises:
        ConfigError: If the maps are not two pictures of one size, or the tolerance is negative.
    """
    if pred.shape != target.shape or pred.ndim != 2:
        raise ConfigError(f"labels {tuple(pred.shape)} and {tuple(target.shape)} must be (H, W) of one size")
    if not tolerance >= 0:
        raise ConfigError(f"tolerance={tolerance} must be 0 or more pixels")
    ignored = None if ignore_index is None else target == ignore_index
    sides = [_boundary(labels, ignored, num_classes) for labels in (pred, target)]
    width = target.shape[1] + 2 * int(tolerance) + 2  # so wide that a search never reaches into the next row
    height = target.shape[0] + 2 * int(tolerance) + 2
    keys = [(side[0] * height + side[1]) * width + side[2] for side in sides]
    counts = []
    for own, other, side in ((keys[0], keys[1], sides[0]), (keys[1], keys[0], sides[1])):
        near = _near(own, other, width, tolerance)
        counts.append(torch.bincount(side[0][near], minlength=num_classes))
        counts.append(torch.bincount(side[0], minlength=num_classes))
    return torch.stack(counts, dim=1)


def boundary_f1(counts: Tensor) -> Tensor:
    """F1 of boundary precision and recall.

    Args:
        counts: (C, 4) sums of :func:`boundary_matches` over any number of pictures.

    Returns:
        (C,) float64 in [0, 1]; NaN for a class without a boundary pixel in the truth or in a prediction.
    """
    hit, called, found, true = as_float64(counts).unbind(1)
    precision, recall = hit / called.clamp(min=1), found / true.clamp(min=1)
    score = 2 * precision * recall / (precision + recall).clamp(min=torch.finfo(torch.float64).tiny)
    return score.masked_fill(called + true == 0, torch.nan)


def _boundary(labels: Tensor, ignored: Tensor | None, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return class, row and column of every boundary pixel, sorted in this order."""
    edge = torch.zeros_like(labels, dtype=torch.bool)
    counted = torch.ones_like(edge) if ignored is None else ~ignored
    for axis in (0, 1):
        length = labels.shape[axis] - 1
        here, there = labels.narrow(axis, 0, length), labels.narrow(axis, 1, length)
        step = (here != there) & counted.narrow(axis, 0, length) & counted.narrow(axis, 1, length)
        edge.narrow(axis, 0, length).logical_or_(step)
        edge.narrow(axis, 1, length).logical_or_(step)
    rows, columns = (edge & (labels >= 0) & (labels < num_classes)).nonzero(as_tuple=True)
    classes = labels[rows, columns].long()
    order = classes.argsort(stable=True)
    return classes[order], rows[order], columns[order]


def _near(own: Tensor, other: Tensor, width: int, tolerance: float) -> Tensor:
    """Tell for each key whether one of the other keys lies within the tolerance.

    Keys number the pixels of all classes row by row. Around a pixel, the disc of the tolerance is one run of pixels in
    each row; a run holds another key if a binary search finds its two ends at different places.
    """
    near = torch.zeros_like(own, dtype=torch.bool)
    left = torch.arange(len(own), device=own.device)  # those without a counterpart yet: soon few
    for row in sorted(range(-int(tolerance), int(tolerance) + 1), key=abs):
        if not len(left):
            break
        reach = int((tolerance**2 - row**2) ** 0.5)
        centre = own[left] + row * width
        hit = torch.searchsorted(other, centre + reach, right=True) > torch.searchsorted(other, centre - reach)
        near[left[hit]] = True
        left = left[~hit]
    return near
