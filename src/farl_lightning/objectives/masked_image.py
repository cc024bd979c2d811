"""What lies under the masked patches is guessed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from farl_lightning.errors import ConfigError
from farl_lightning.functional.distributed import global_mean
from farl_lightning.losses.masked_image import masked_pixel_loss, masked_token_loss
from farl_lightning.models.image_tokenizer import ImageTarget, KMeansTokens
from farl_lightning.models.masked_image import MaskedImageHead
from farl_lightning.objectives.base import Objective, ObjectiveResult

if TYPE_CHECKING:
    from farl_lightning.models.face_clip import FaceCLIP, FaceCLIPOutput
    from farl_lightning.types import FaceSpec, PretrainBatch


class MaskedImage(Objective):
    """Masked image modelling as in FaRL (arXiv 2112.03109) and BEiT (arXiv 2106.08254).

    Args:
        weight: Factor of the loss in the sum.
        target: What is guessed. A discrete target is classified, any other is regressed.
            ``None`` is ``KMeansTokens()``, which needs no download.
        depth: Blocks of the head, 0 or more.

    Attributes:
        head: The prediction head, once built.
        target: What is guessed.
    """

    needs = frozenset({"masked"})
    per_sample = True
    head: MaskedImageHead

    def __init__(self, weight: float = 1.0, target: ImageTarget | None = None, depth: int = 1) -> None:
        super().__init__(weight)
        self.target = KMeansTokens() if target is None else target
        self.depth = depth
        self._fitted = False  # the target's own flag lives on the device: reading it in each step would wait for it

    def build(self, clip: FaceCLIP, spec: FaceSpec) -> None:
        """Size the target and, the first time, the head."""
        encoder = clip.image_encoder
        self.target.build(encoder.patch_size, encoder.grid, spec.mean, spec.std)
        self.target.to(next(encoder.parameters()).device)
        if "head" not in self._modules:
            self.head = MaskedImageHead(encoder.width, encoder.heads, self.depth, self.target.out_features)

    @property
    def needs_fit(self) -> bool:
        """Whether the target has to see images before training."""
        return self.target.needs_fit

    def fit(self, images: Tensor) -> None:
        """Fit the target.

        Args:
            images: (M, 3, H, W) float, normalised.
        """
        self.target.fit(images.to(self.head.head.weight.device))

    def count(self, batch: PretrainBatch) -> Tensor:
        """Return the number of masked patches.

        Args:
            batch: With ``patch_mask``.
        """
        return batch["patch_mask"].sum()

    def forward(self, outputs: FaceCLIPOutput, batch: PretrainBatch) -> ObjectiveResult:
        """Return the mean loss over all masked patches of all processes.

        Returns:
            For a discrete target ``logs`` has the accuracy over the same patches. ``details`` has ``predictions``, ids
            (M,) or values (M, P) of the M masked patches, and ``targets``, (B, N) or (B, N, P), of all patches.

        Raises:
            ConfigError: If the target has not been fitted.
        """
        assert outputs.masked_tokens is not None and outputs.patch_mask is not None  # noqa: S101, PT018 (for mypy)
        self._check_fitted()
        prediction = self.head(outputs.masked_tokens, outputs.patch_mask)
        with torch.no_grad():
            targets = self.target(batch["image"])
            wanted = targets[outputs.patch_mask]
        if not self.target.is_discrete:
            details = {"predictions": prediction.detach(), "targets": targets}
            return ObjectiveResult(masked_pixel_loss(prediction, wanted), {}, details)
        guesses = prediction.detach().argmax(-1)
        accuracy = global_mean((guesses == wanted).sum().float(), len(wanted))
        details = {"predictions": guesses, "targets": targets}
        return ObjectiveResult(masked_token_loss(prediction, wanted), {"accuracy": accuracy}, details)

    def _check_fitted(self) -> None:
        """Refuse to train towards a codebook of zeros."""
        if not self._fitted and self.needs_fit:
            raise ConfigError(
                f"the target {type(self.target).__name__} has not seen any images yet: call fit(images), or load a "
                "checkpoint that holds it"
            )
        self._fitted = True
