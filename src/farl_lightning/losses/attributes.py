"""Loss of binary attributes, of which some may be unknown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from farl_lightning.errors import ConfigError
from farl_lightning.functional.precision import at_least_float32
from farl_lightning.losses.reduce import LabelLoss
from farl_lightning.types import Configurable


class AttributeLoss(nn.Module, Configurable):
    """Binary cross entropy of every attribute, ``-w y log p - (1 - y) log(1 - p)``.

    Args:
        positive_weights: Weight w of "yes", by attribute; 1 by default. The share of "no" over that of "yes" makes both
            sides of an attribute weigh alike.

    Raises:
        ConfigError: If a weight is negative.
    """

    weights: Tensor | None

    def __init__(self, positive_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if min(positive_weights or (0.0,)) < 0:
            raise ConfigError(f"positive_weights must be 0 or more, got {list(positive_weights or ())}")
        weights = None if positive_weights is None else torch.tensor(list(positive_weights))
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> LabelLoss:
        """Return the loss of each attribute of each face.

        Args:
            logits: (B, A).
            labels: (B, A) int64: 1 yes, 0 no, -1 unknown.

        Raises:
            ConfigError: If the sizes differ, or there is not one weight per attribute.
        """
        if logits.shape != labels.shape:
            raise ConfigError(f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} must both be (B, A)")
        if self.weights is not None and len(self.weights) != labels.shape[1]:
            raise ConfigError(f"positive_weights has {len(self.weights)} numbers for {labels.shape[1]} attributes")
        wide = at_least_float32(logits)
        weights = None if self.weights is None else self.weights.to(wide)
        known = labels >= 0
        target = labels.clamp(min=0).to(wide)
        return LabelLoss(F.binary_cross_entropy_with_logits(wide, target, pos_weight=weights, reduction="none"), known)
