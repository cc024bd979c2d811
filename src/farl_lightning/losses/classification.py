"""Loss of one class of several, which may be unknown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from farl_lightning.errors import ConfigError
from farl_lightning.functional.precision import at_least_float32
from farl_lightning.losses.reduce import LabelLoss
from farl_lightning.types import Configurable


class ClassificationLoss(nn.Module, Configurable):
    """Cross entropy of each face.

    Args:
        label_smoothing: Share of the truth that is spread over all classes, from 0 and below 1.
        class_weights: Factor of the loss of the faces of each class. The mean over faces divides by their number, not
            by the sum of their weights.

    Raises:
        ConfigError: If a number is out of range.
    """

    weights: Tensor | None

    def __init__(self, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1 or min(class_weights or (0.0,)) < 0:
            raise ConfigError(
                f"ClassificationLoss({label_smoothing=}, {class_weights=}): label_smoothing must be from 0 and below "
                "1, weights 0 or more"
            )
        self.label_smoothing = label_smoothing
        weights = None if class_weights is None else torch.tensor(list(class_weights))
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> LabelLoss:
        """Return the loss of each face.

        Args:
            logits: (B, C).
            labels: (B,) int64 in [0, C), -1 unknown.

        Raises:
            ConfigError: If the sizes differ, or there is not one weight per class.
        """
        if logits.ndim != 2 or labels.shape != logits.shape[:1]:
            raise ConfigError(f"logits {tuple(logits.shape)} must be (B, C) and labels {tuple(labels.shape)} (B,)")
        if self.weights is not None and len(self.weights) != logits.shape[1]:
            raise ConfigError(f"class_weights has {len(self.weights)} numbers for {logits.shape[1]} classes")
        wide = at_least_float32(logits)
        target = labels.clamp(min=0)
        values = F.cross_entropy(wide, target, reduction="none", label_smoothing=self.label_smoothing)
        if self.weights is not None:
            values = values * self.weights.to(wide)[target]
        return LabelLoss(values, labels >= 0)
