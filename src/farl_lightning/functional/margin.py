"""Margins on cosines: what ArcFace and CosFace ask of a face beyond being nearest to its own person."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.functional.precision import at_least_float32

MarginKind = Literal["arcface", "cosface"]
"""``"arcface"`` widens the angle to the own person's centre, ``"cosface"`` lowers its cosine."""


class Margin(NamedTuple):
    """How cosines become logits.

    Attributes:
        kind: ``"arcface"``: the own logit is ``cos(angle + size)`` (https://arxiv.org/abs/1801.07698); ``"cosface"``:
            ``cos(angle) - size`` (https://arxiv.org/abs/1801.09414).
        size: Radians or cosine.
        scale: Factor of all logits.
    """

    kind: MarginKind = "arcface"
    size: float = 0.5
    scale: float = 64.0

    def checked(self) -> Margin:
        """Return itself.

        Raises:
            ConfigError: If the kind is unknown or a number is out of range.
        """
        if self.kind not in get_args(MarginKind):
            raise ConfigError(
                f"margin kind '{self.kind}' is not known. {did_you_mean(self.kind, get_args(MarginKind))}"
            )
        limit = math.pi / 2 if self.kind == "arcface" else 1.0
        if not 0 <= self.size <= limit or not 0 < self.scale < math.inf:
            raise ConfigError(
                f"{self.kind} with margin={self.size}, scale={self.scale}: the margin must be from 0 to {limit:.4g} "
                "(papers: 0.5 for arcface, 0.35 for cosface), the scale above 0 (papers: 64)"
            )
        return self

    def own(self, cosine: Tensor) -> Tensor:
        """Return what the cosine to the own centre counts as, before the scale.

        Where angle and margin together exceed half a turn, ``cos(angle + size)`` would rise again: from there on
        ArcFace goes down along ``cos(angle) - size * sin(size)``, as its authors' code does.

        Args:
            cosine: Any shape, in [-1, 1].
        """
        if self.kind == "cosface":
            return cosine - self.size
        sine = (1 - cosine.square()).clamp(min=torch.finfo(cosine.dtype).eps).sqrt()  # its slope is infinite at 0
        widened = cosine * math.cos(self.size) - sine * math.sin(self.size)
        beyond = cosine - self.size * math.sin(self.size)
        return torch.where(cosine > -math.cos(self.size), widened, beyond)


def margin_logits(cosine: Tensor, labels: Tensor, kind: MarginKind, margin: float, scale: float) -> Tensor:
    """Turn cosines to the centres of classes into logits, harder for the own class by a margin.

    Args:
        cosine: (B, C) in [-1, 1].
        labels: (B,) int64 in [0, C); -1 for a row whose own class is not among these.
        kind: ``"arcface"`` or ``"cosface"``.
        margin: Radians (arcface) or cosine (cosface).
        scale: Factor of all logits.

    Returns:
        (B, C), float32 at least, for a softmax.

    Raises:
        ConfigError: If a setting is unknown or out of range, or the shapes do not fit.
    """
    spec = Margin(kind, margin, scale).checked()
    if cosine.ndim != 2 or labels.shape != cosine.shape[:1]:
        raise ConfigError(f"cosine {tuple(cosine.shape)} must be (B, C) and labels {tuple(labels.shape)} (B,)")
    wide = at_least_float32(cosine)
    column = labels.clamp(min=0)[:, None]
    own = wide.gather(1, column)
    changed = torch.where(labels[:, None] >= 0, spec.own(own), own)
    return wide.scatter(1, column, changed) * spec.scale
