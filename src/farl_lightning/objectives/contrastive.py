"""Images and their captions find each other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.functional.precision import at_least_float32
from farl_lightning.losses.contrastive import clip_contrast, siglip_contrast
from farl_lightning.objectives.base import Objective, ObjectiveResult

if TYPE_CHECKING:
    from farl_lightning.models.face_clip import FaceCLIPOutput
    from farl_lightning.types import PretrainBatch

FORMS = ("clip", "siglip")


class Contrastive(Objective):
    """Image-text contrast over the global batch.

    Args:
        weight: Factor of the loss in the sum.
        form: ``"clip"``: symmetric InfoNCE (arXiv 2103.00020), as in FaRL and ALIGN; ``"siglip"``: pairwise sigmoid
            (arXiv 2303.15343), with a learned bias that this objective owns.
        max_scale: Limit of the learned factor of the similarities; its least value is 1.
        init_bias: Start of the bias (``"siglip"`` only).
        chunk_rows: Rows of the similarity matrix held at a time; the backward pass computes them anew, and gradients
            are the same. With b pairs on this process and B on all, memory is O(chunk_rows * B) instead of O(b * B):
            at 32 processes of 1,024 pairs about 0.5 GB less, in float32. None holds all b rows, which is faster.

    Raises:
        ConfigError: If ``form`` is unknown, or ``max_scale`` or ``chunk_rows`` is below 1.
    """

    needs = frozenset({"image", "text"})

    def __init__(
        self,
        weight: float = 1.0,
        form: str = "clip",
        max_scale: float = 100.0,
        init_bias: float = -10.0,
        chunk_rows: int | None = None,
    ) -> None:
        super().__init__(weight)
        if form not in FORMS:
            raise ConfigError(f"contrastive form '{form}' is unknown. {did_you_mean(form, FORMS)}")
        if max_scale < 1:
            raise ConfigError(f"max_scale={max_scale} must be 1 or more")
        if chunk_rows is not None and chunk_rows < 1:
            raise ConfigError(f"chunk_rows={chunk_rows} must be 1 or more; null holds all rows at once")
        self.form, self.max_scale, self.chunk_rows = form, max_scale, chunk_rows
        self.logit_bias = nn.Parameter(torch.tensor([init_bias])) if form == "siglip" else None

    def forward(self, outputs: FaceCLIPOutput, batch: PretrainBatch) -> ObjectiveResult:
        """Return the loss, the share of own images whose caption is nearest among all, and the scale."""
        del batch
        assert outputs.image_features is not None and outputs.text_features is not None  # noqa: S101, PT018 (for mypy)
        assert outputs.logit_scale is not None  # noqa: S101
        images = F.normalize(at_least_float32(outputs.image_features), dim=-1)
        texts = F.normalize(at_least_float32(outputs.text_features), dim=-1)
        scale = bounded(at_least_float32(outputs.logit_scale), 0.0, math.log(self.max_scale)).exp()
        if self.logit_bias is None:
            found = clip_contrast(images, texts, scale, chunk_rows=self.chunk_rows)
        else:
            found = siglip_contrast(images, texts, scale, self.logit_bias, chunk_rows=self.chunk_rows)
        return ObjectiveResult(found.loss, {"accuracy": found.accuracy, "logit_scale": scale.detach().reshape(())})


def bounded(x: Tensor, low: float, high: float) -> Tensor:
    """Clamp a parameter, and let gradients through that lead back inside.

    A plain clamp has no gradient outside its limits: a parameter that a large step carried there would stay for good.
    Changing the parameter in place instead is lost under sharding.

    Args:
        x: Any shape, floating.
        low: Least value.
        high: Largest value.
    """
    value: Tensor = _Bounded.apply(x, low, high)
    return value


class _Bounded(torch.autograd.Function):
    """Clamp forward; backward drop what descent would carry (further) outside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        """Return the clamped value."""
        ctx.save_for_backward(x)
        ctx.limits = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient that leads inside."""
        (x,), (low, high), grad = ctx.saved_tensors, ctx.limits, grads[0]
        outwards = ((x <= low) & (grad > 0)) | ((x >= high) & (grad < 0))
        return grad.masked_fill(outwards, 0), None, None
