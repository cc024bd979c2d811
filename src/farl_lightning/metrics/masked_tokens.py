"""Accuracy of guessed visual tokens, beside what guessing blindly reaches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from farl_lightning.errors import ConfigError


class MaskedTokenAccuracy(Metric):
    """Top-1 accuracy over masked patches, and the accuracy of always answering the most frequent token.

    Args:
        vocab_size: Number of token ids V.
        **kwargs: For ``torchmetrics.Metric``.

    Raises:
        ConfigError: If ``vocab_size`` is below 1.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    correct: Tensor
    masked: Tensor
    every: Tensor

    def __init__(self, vocab_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if vocab_size < 1:
            raise ConfigError(f"vocab_size={vocab_size} must be 1 or more")
        self.vocab_size = vocab_size
        self.add_state("correct", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("masked", torch.zeros(vocab_size, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("every", torch.zeros(vocab_size, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, targets: Tensor, patch_mask: Tensor, valid: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            predictions: (M,) int64 guessed tokens of the masked patches, in the order of ``targets[patch_mask]``; or
                (M, V) logits.
            targets: (B, N) int64 true tokens of all patches.
            patch_mask: (B, N) bool, True = masked.
            valid: (B,) bool; False marks repeats that must not count. All count by default.
        """
        guesses = predictions.argmax(-1) if predictions.ndim == 2 else predictions
        keep = torch.ones_like(patch_mask[:, 0]) if valid is None else valid
        counted = keep[:, None].expand_as(patch_mask)[patch_mask]
        answers = targets[patch_mask]
        self.correct += ((guesses == answers) & counted).sum()
        self.masked += torch.bincount(answers[counted], minlength=self.vocab_size)
        self.every += torch.bincount(targets[keep].flatten(), minlength=self.vocab_size)

    def compute(self) -> dict[str, Tensor]:
        """Return shares in [0, 1], NaN when nothing was masked.

        Returns:
            ``accuracy``; ``majority``: the accuracy of always answering the most frequent of the masked tokens;
            ``majority_share``: the share of the most frequent token among all patches, masked or not.
        """
        return {
            "accuracy": self.correct / self.masked.sum(),
            "majority": self.masked.max() / self.masked.sum(),
            "majority_share": self.every.max() / self.every.sum(),
        }
