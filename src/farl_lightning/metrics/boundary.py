"""Boundary F1 of face parsing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from farl_lightning.errors import ConfigError
from farl_lightning.functional.boundary import boundary_f1, boundary_matches
from farl_lightning.functional.segmentation import foreground_mean
from farl_lightning.metrics.parsing import LabelMaps, checked_names, counted_pairs, per_class


class BoundaryF1(Metric):
    """F1 of the outlines of each class, in percent (after Csurka et al., BMVC 2013).

    A predicted boundary pixel is right if a true one of the same class lies within the tolerance, and the other way
    round. Counts are summed over the whole dataset before precision and recall are taken, so that large and small
    regions of all pictures weigh by their length, and the result is the same under any number of processes.

    Args:
        num_classes: Number of classes C.
        class_names: Their names by label; numbers by default.
        tolerance: Largest distance as a share of the picture's diagonal (0.0075 of 512 x 512 is 5.4 pixels), or in
            pixels from 1 on.
        ignore_index: Label of true pixels that do not count.
        background: Label that the mean leaves out; None leaves out none.
        **kwargs: For ``torchmetrics.Metric``.

    Raises:
        ConfigError: If the numbers and names do not fit.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    counts: Tensor

    def __init__(
        self,
        num_classes: int,
        class_names: Sequence[str] = (),
        *,
        tolerance: float = 0.0075,
        ignore_index: int | None = 255,
        background: int | None = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not tolerance > 0:
            raise ConfigError(f"tolerance={tolerance} must be above 0: a share of the diagonal, or pixels from 1 on")
        self.names = checked_names(num_classes, class_names, background)
        self.tolerance, self.ignore_index, self.background = tolerance, ignore_index, background
        self._absent: tuple[str, ...] = self.names
        self.add_state("counts", torch.zeros(num_classes, 4, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, pred: LabelMaps, target: LabelMaps, valid: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            pred: Predicted labels.
            target: True labels in the same pixels.
            valid: (B,) bool; False marks repeats and skipped samples that must not count. All count by default.

        Raises:
            ConfigError: If sizes differ.
        """
        every = torch.ones(len(target), dtype=torch.bool) if valid is None else valid
        for own, true in counted_pairs(pred, target, every):
            reach = self.tolerance if self.tolerance >= 1 else self.tolerance * math.hypot(*true.shape)
            self.counts += boundary_matches(own, true, len(self.names), reach, ignore_index=self.ignore_index)

    def compute(self) -> dict[str, Tensor]:
        """Return scores in percent, float64.

        Returns:
            ``boundary_f1_mean`` over the foreground classes that have an outline (NaN if none has), and for each of
            them ``boundary_f1_<name>``.
        """
        scores = boundary_f1(self.counts)
        self._absent = tuple(name for name, gone in zip(self.names, scores.isnan().tolist(), strict=True) if gone)
        mean = {"boundary_f1_mean": 100 * foreground_mean(scores, self.background)}
        return mean | per_class({"boundary_f1": scores}, self.names)

    @property
    def absent_classes(self) -> tuple[str, ...]:
        """Names of the classes without an outline in the truth and the predictions, as of the last ``compute``."""
        return self._absent
