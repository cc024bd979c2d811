"""Both towers and the temperature: the network that FaRL pretrains."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from farl_lightning.errors import ConfigError
from farl_lightning.models.config import FaceCLIPConfig
from farl_lightning.models.image_encoder import ImageEncoder
from farl_lightning.models.text_encoder import TextEncoder
from farl_lightning.types import FaceSpec


class FaceCLIPOutput(NamedTuple):
    """What :class:`FaceCLIP` returns; B pictures or captions, N patches, D channels, E shared channels."""

    image_features: Tensor | None
    """(B, E), not normalised; None without pictures, or when not asked for."""
    text_features: Tensor | None
    """(B, E), not normalised; None without captions."""
    masked_tokens: Tensor | None
    """(B, 1 + N, D) last tokens of the masked pictures; None without a mask."""
    patch_mask: Tensor | None
    """(B, N) bool, as given."""
    tokens: Tensor | None
    """(B, 1 + N, D) last tokens of the clean pictures; None when not asked for."""
    taps: tuple[Tensor, ...]
    """(B, 1 + N, D) outputs of the blocks asked for."""
    logit_scale: Tensor | None
    """(1,) logarithm of the inverse temperature; None without a text tower."""


class FaceCLIP(nn.Module):
    """Image tower, text tower and temperature of CLIP and FaRL.

    Args:
        config: Sizes of both towers.
        mask_token: Whether the image tower has a learned token for masked patches.

    Attributes:
        image_encoder: The image tower.
        text_encoder: The text tower, or None.
        logit_scale: (1,) logarithm of the inverse temperature; None without a text tower. It has one dimension,
            because sharding has no place for a number without any; files hold it without.
        face_spec: What the checkpoint that the weights came from says of its faces, or None.
    """

    def __init__(self, config: FaceCLIPConfig | None = None, mask_token: bool = True) -> None:
        super().__init__()
        self.config = config or FaceCLIPConfig()
        self.face_spec: FaceSpec | None = None
        self.image_encoder = ImageEncoder(self.config.image, self.config.embed_dim, mask_token)
        text = self.config.text
        self.text_encoder = None if text is None else TextEncoder(text, self.config.embed_dim)
        self.logit_scale = None if text is None else nn.Parameter(torch.tensor([self.config.init_logit_scale]))

    @classmethod
    def from_checkpoint(cls, path: str | Path, **overrides: Any) -> FaceCLIP:
        """Build the network that a file holds, and load it.

        Args:
            path: A file, or the name of known weights such as ``"farl-b16-ep16"``, which are downloaded once.
            **overrides: ``image`` and ``text``: dicts of settings that replace what the file says, such as
                ``image={"image_size": 448, "drop_path": 0.1}``; ``text=None`` leaves the text tower out;
                ``mask_token``: whether there is one (default: as in the file).

        Raises:
            CheckpointError: If the file is not a checkpoint of such a network.
        """
        from farl_lightning.models.checkpoint import build_clip

        return build_clip(path, **overrides)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block of both towers in the backward pass instead of storing its activations."""
        self.image_encoder.set_grad_checkpointing(enable)
        if self.text_encoder is not None:
            self.text_encoder.set_grad_checkpointing(enable)

    def forward(
        self,
        images: Tensor | None = None,
        text: Tensor | None = None,
        *,
        patch_mask: Tensor | None = None,
        taps: Sequence[int] = (),
        need_tokens: bool = False,
        need_feature: bool = True,
    ) -> FaceCLIPOutput:
        """Encode pictures and captions.

        Args:
            images: (B, 3, H, W), normalised, or None.
            text: (B, L) int64 token ids, or None.
            patch_mask: (B, N) bool, True = masked; pictures are then encoded clean and masked in one pass.
            taps: Blocks of the image tower whose outputs are returned.
            need_tokens: Whether the clean pictures' last tokens are returned.
            need_feature: Whether the pictures' features are returned; masked image modelling alone needs none.

        Raises:
            ConfigError: If captions come without a text tower, or a shape does not fit.
        """
        image = text_features = None
        if images is not None:
            image = self.image_encoder(
                images, patch_mask=patch_mask, taps=taps, need_tokens=need_tokens, need_feature=need_feature
            )
        if text is not None:
            if self.text_encoder is None:
                raise ConfigError(
                    "captions were given, but this FaceCLIP has no text tower (its config has text: null)"
                )
            text_features = self.text_encoder(text)
        return FaceCLIPOutput(
            image_features=image.feature if image else None,
            text_features=text_features,
            masked_tokens=image.masked_tokens if image else None,
            patch_mask=patch_mask,
            tokens=image.tokens if image else None,
            taps=image.taps if image else (),
            logit_scale=self.logit_scale,
        )

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay must not touch, besides biases and norms: embeddings, temperature."""
        ends = (
            "cls_token",
            "pos_embed",
            "mask_token",
            "logit_scale",
            "position_embedding.weight",
            "token_embedding.weight",
        )
        return {name for name, _ in self.named_parameters() if name.endswith(ends)}

    def layer_groups(self) -> dict[str, int]:
        """Map each parameter to its depth, for learning rates that decay from the top to the bottom.

        The top of both towers (final norm, projection, temperature) has the largest index, and a block k steps below
        it has an index k smaller in either tower, however deep the towers are. The embeddings of the deeper tower
        have index 0.
        """
        depths = {"image_encoder": self.image_encoder.depth}
        if self.text_encoder is not None:
            depths["text_encoder"] = self.text_encoder.config.depth
        top = max(depths.values()) + 1
        return {name: _layer_index(name, depths, top) for name, _ in self.named_parameters()}


_STEM = ("cls_token", "pos_embed", "patch_embed", "norm_pre", "mask_token", "embeddings", "rope")


def _layer_index(name: str, depths: dict[str, int], top: int) -> int:
    """Return the depth of one parameter: ``top`` for what lies behind the blocks."""
    tower, *parts = name.split(".")
    if tower not in depths:
        return top
    bottom = top - depths[tower] - 1
    for before, number in pairwise(parts):
        if before in ("blocks", "layers") and number.isdigit():
            return bottom + 1 + int(number)
    return bottom if any(part in _STEM for part in parts) else top
