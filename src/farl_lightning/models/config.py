"""Plain settings of the networks, as they stand in YAML files and checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from farl_lightning.errors import ConfigError, did_you_mean

T = TypeVar("T")


@dataclass
class ImageEncoderConfig:
    """A vision transformer of timm. ``None`` leaves a size to the architecture.

    Attributes:
        name: timm's name of the architecture; a ``VisionTransformer``, or an ``Eva`` with a class token.
        image_size: Side of the square input in pixels, a multiple of the patch size.
        patch_size: Side of a patch in pixels.
        width: Channels of a token.
        depth: Number of blocks.
        heads: Number of attention heads.
        drop_path: Stochastic depth rate of the last block; it rises linearly from 0 at the first.
        pool: Where the feature comes from: ``"token"`` (class token), ``"average"`` (mean of the tokens) or
            ``"linear"`` (a learned weight per token and channel).
        pool_patches_only: Whether ``"average"`` and ``"linear"`` leave the class token out.
        pretrained: Whether timm downloads the architecture's own weights.
    """

    name: str = "vit_base_patch16_clip_quickgelu_224"
    image_size: int = 224
    patch_size: int | None = None
    width: int | None = None
    depth: int | None = None
    heads: int | None = None
    drop_path: float = 0.0
    pool: str = "token"
    pool_patches_only: bool = False
    pretrained: bool = False


@dataclass
class TextEncoderConfig:
    """CLIP's text transformer.

    Attributes:
        context_length: Tokens of a caption, start and end marks included.
        vocab_size: Number of token ids.
        width: Channels of a token.
        depth: Number of blocks.
        heads: Number of attention heads.
        eos_token_id: Id of the end mark; the feature is read at its first occurrence.
        trim_padding: Whether columns that no caption of the batch reaches are left out. The numbers are the same,
            since attention is causal.
    """

    context_length: int = 77
    vocab_size: int = 49408
    width: int = 512
    depth: int = 12
    heads: int = 8
    eos_token_id: int = 49407
    trim_padding: bool = True


@dataclass
class FaceCLIPConfig:
    """Both towers and their shared space.

    Attributes:
        embed_dim: Channels of the shared space.
        image: The image tower.
        text: The text tower; ``None`` for an image tower alone.
        init_logit_scale: Start of the logarithm of the inverse temperature.
    """

    embed_dim: int = 512
    image: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    text: TextEncoderConfig | None = field(default_factory=TextEncoderConfig)
    init_logit_scale: float = math.log(1 / 0.07)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> FaceCLIPConfig:
        """Rebuild a configuration from plain data, as checkpoints hold it.

        Args:
            plain: Names and values; ``image`` and ``text`` are dicts themselves.

        Raises:
            ConfigError: If a name is unknown.
        """
        values = dict(plain)
        values["image"] = _build(ImageEncoderConfig, values.get("image") or {})
        if values.get("text", {}) is not None:
            values["text"] = _build(TextEncoderConfig, values.get("text") or {})
        return _build(cls, values)


def _build(kind: type[T], plain: Mapping[str, Any] | T) -> T:
    """Make a dataclass of a dict; name what it does not know."""
    if isinstance(plain, kind):
        return plain
    known = [item.name for item in fields(kind)]  # type: ignore[arg-type]
    values: dict[str, Any] = dict(plain)  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise ConfigError(f"{kind.__name__} has no '{name}'. {did_you_mean(name, known)}")
    return kind(**values)
