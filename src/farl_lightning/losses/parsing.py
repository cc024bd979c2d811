"""Losses of face parsing: pixel cross entropy as FaRL takes it, and Dice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from farl_lightning.errors import ConfigError
from farl_lightning.functional.precision import at_least_float32
from farl_lightning.losses.reduce import mean_over_faces
from farl_lightning.types import Configurable


def pixel_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int | None = None,
    class_weights: Tensor | None = None,
    valid_mask: Tensor | None = None,
) -> Tensor:
    """Cross entropy of each picture, averaged over its counted pixels.

    Args:
        logits: (B, C, H, W).
        target: (B, H, W) int64 labels in [0, C), or ``ignore_index``.
        ignore_index: Label of pixels that do not count.
        class_weights: (C,) weight of the pixels of each class; the average is weighted too.
        valid_mask: (B, H, W) bool, False marks pixels that do not count.

    Returns:
        (B,) float32 at least; 0 for a picture in which no pixel counts.

    Raises:
        ConfigError: If the sizes differ.
    """
    _check_sizes(logits, target)
    counted = _counted(target, ignore_index, valid_mask)
    labels = target if counted is None else target.where(counted, torch.zeros_like(target))
    weights = None if class_weights is None else class_weights.to(logits)
    if weights is not None:
        weights = at_least_float32(weights)
    losses = F.cross_entropy(at_least_float32(logits), labels, weight=weights, reduction="none").flatten(1)
    if counted is None and weights is None:
        return losses.mean(1)
    share = torch.ones_like(losses) if weights is None else weights[labels].flatten(1)
    if counted is not None:
        share = share * counted.flatten(1)
        losses = losses * counted.flatten(1)
    return losses.sum(1) / share.sum(1).clamp(min=torch.finfo(share.dtype).tiny)


def dice_loss(
    logits: Tensor, target: Tensor, *, ignore_index: int | None = None, valid_mask: Tensor | None = None
) -> Tensor:
    """Soft Dice loss of each picture, averaged over the classes of its truth (Milletari et al., arXiv 1606.04797).

    For each class ``1 - 2 sum(p g) / (sum(p) + sum(g))`` over the counted pixels, with the predicted share p and the
    truth g. Small classes weigh as much as large ones.

    Args:
        logits: (B, C, H, W).
        target: (B, H, W) int64 labels in [0, C), or ``ignore_index``.
        ignore_index: Label of pixels that do not count.
        valid_mask: (B, H, W) bool, False marks pixels that do not count.

    Returns:
        (B,) in [0, 1], float32 at least; 0 for a picture in which no pixel counts.

    Raises:
        ConfigError: If the sizes differ.
    """
    _check_sizes(logits, target)
    shares = at_least_float32(logits).softmax(1).flatten(2)
    counted = _counted(target, ignore_index, valid_mask)
    keep = shares.new_ones(target.shape).flatten(1) if counted is None else counted.flatten(1).to(shares.dtype)
    labels = (target if counted is None else target.where(counted, torch.zeros_like(target))).flatten(1)
    own = shares.gather(1, labels[:, None])[:, 0] * keep  # no one-hot copy of the truth
    empty = shares.new_zeros(shares.shape[:2])
    both, true = empty.scatter_add(1, labels, own), empty.scatter_add(1, labels, keep)
    called = (shares if counted is None else shares * keep[:, None]).sum(2)
    occurs = true > 0  # where a class occurs the denominator is at least 1
    losses = (1 - 2 * both / (called + true).clamp(min=1)) * occurs
    return losses.sum(1) / occurs.sum(1).clamp(min=1)


def parsing_loss(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int | None = None,
    class_weights: Tensor | None = None,
    dice: float = 0.0,
    valid: Tensor | None = None,
) -> Tensor:
    """Loss of a batch: pixel cross entropy, averaged in each picture and then over pictures, plus weighted Dice.

    With the defaults this is FaRL's loss: every pixel counts, also those that the crop took from outside the picture.

    Args:
        logits: (B, C, H, W).
        target: (B, H, W) int64 labels in [0, C), or ``ignore_index``.
        ignore_index: Label of pixels that do not count.
        class_weights: (C,) weight of the pixels of each class in the cross entropy.
        dice: Weight of :func:`dice_loss`.
        valid: (B, H, W) bool, False marks pixels that do not count; or (B,) bool, False marks whole pictures that do
            not count.

    Returns:
        Scalar, float32 at least. A picture without a counted pixel adds 0 and still counts as a picture, so that the
        mean over equally large processes is the mean over all pictures; pictures that (B,) ``valid`` leaves out do not.

    Raises:
        ConfigError: If the sizes differ.
    """
    parts = _parts(logits, target, ignore_index, class_weights, dice, valid)
    return _total(parts, dice)


class ParsingLoss(nn.Module, Configurable):
    """:func:`parsing_loss` with its options set once.

    Args:
        ignore_index: Label of pixels that do not count; without such pixels the loss is FaRL's.
        class_weights: Weight of each class in the cross entropy.
        dice: Weight of the Dice loss.

    Raises:
        ConfigError: If a weight is negative.
    """

    weights: Tensor | None

    def __init__(
        self, ignore_index: int | None = 255, class_weights: Sequence[float] | None = None, dice: float = 0.0
    ) -> None:
        super().__init__()
        if dice < 0 or min(class_weights or (0.0,)) < 0:
            raise ConfigError(f"ParsingLoss({class_weights=}, {dice=}): weights must be 0 or more")
        self.ignore_index, self.dice = ignore_index, dice
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch and its parts.

        Args:
            logits: (B, C, H, W).
            target: (B, H, W) int64 labels in [0, C), or ``ignore_index``.
            valid: (B, H, W) bool pixels or (B,) bool pictures that count; all by default.

        Returns:
            The scalar loss, and detached ``loss_ce`` and (when it has a weight) ``loss_dice``.

        Raises:
            ConfigError: If the sizes differ, or there is not one class weight per class.
        """
        if self.weights is not None and len(self.weights) != logits.shape[1]:
            raise ConfigError(f"class_weights has {len(self.weights)} numbers for {logits.shape[1]} classes")
        parts = _parts(logits, target, self.ignore_index, self.weights, self.dice, valid)
        return _total(parts, self.dice), {f"loss_{name}": value.detach() for name, value in parts.items()}


def _parts(
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    class_weights: Tensor | None,
    dice: float,
    valid: Tensor | None,
) -> dict[str, Tensor]:
    """Return each loss averaged over the batch."""
    pixels = valid if valid is not None and valid.ndim > 1 else None
    parts = {
        "ce": pixel_cross_entropy(
            logits, target, ignore_index=ignore_index, class_weights=class_weights, valid_mask=pixels
        )
    }
    if dice:
        parts["dice"] = dice_loss(logits, target, ignore_index=ignore_index, valid_mask=pixels)
    pictures = valid if valid is not None and valid.ndim == 1 else None
    return {name: mean_over_faces(values, pictures) for name, values in parts.items()}


def _total(parts: dict[str, Tensor], dice: float) -> Tensor:
    """Add up the parts by weight."""
    return parts["ce"] + dice * parts["dice"] if dice else parts["ce"]


def _counted(target: Tensor, ignore_index: int | None, valid_mask: Tensor | None) -> Tensor | None:
    """Return (B, H, W) bool pixels that count, None for all."""
    counted = None if ignore_index is None else target != ignore_index
    if valid_mask is None:
        return counted
    return valid_mask if counted is None else counted & valid_mask


def _check_sizes(logits: Tensor, target: Tensor) -> None:
    """Say when logits and labels are not of one size."""
    if logits.ndim != 4 or target.shape != (logits.shape[0], *logits.shape[2:]):
        raise ConfigError(
            f"logits {tuple(logits.shape)} must be (B, C, H, W) and labels {tuple(target.shape)} the same (B, H, W); "
            "let the network resize its logits to the size of the crop"
        )
