"""Plain settings of the networks, as they stand in YAML files and checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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


def _dense_image() -> ImageEncoderConfig:
    return ImageEncoderConfig(image_size=448)


@dataclass
class DenseConfig:
    """An encoder whose patches are read at several depths, a feature pyramid and a head: parsing and alignment.

    Attributes:
        image: The encoder; crops of another size are resized to its ``image_size`` inside the network. FaRL uses 448.
        taps: The four blocks that are read, from 0; negative ones count from the end. ``None`` for FaRL's: 3, 5, 7, 11
            of 12 blocks; 7, 11, 15, 23 of 24; 8, 14, 20, 31 of 32; and every quarter of other depths.
        channels: Channels inside the head.
        dropout: Rate at which whole channels are dropped before the last layer.
    """

    image: ImageEncoderConfig = field(default_factory=_dense_image)
    taps: tuple[int, ...] | None = None
    channels: int = 768
    dropout: float = 0.1

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> DenseConfig:
        """Rebuild a configuration from plain data, as checkpoints hold it.

        Args:
            plain: Names and values; ``image`` is a dict itself.

        Raises:
            ConfigError: If a name is unknown.
        """
        values = dict(plain)
        values["image"] = _build(ImageEncoderConfig, values.get("image") or _dense_image())
        values["taps"] = tuple(values["taps"]) if values.get("taps") is not None else None
        return _build(cls, values)


HEADS = ("mix", "linear")
"""Names of the heads of :class:`GlobalConfig`."""


@dataclass
class GlobalConfig:
    """An encoder whose tokens are pooled, and a head: attributes, classes, age.

    Attributes:
        image: The encoder; crops of another size are resized to its ``image_size`` inside the network.
        taps: The blocks that are read, from 0; negative ones count from the end. facer reads the last alone.
        head: ``"mix"`` (facer's: mean, maximum and class token of each tap, each normalised, mixed by learned weights)
            or ``"linear"`` (a batch norm and a linear layer on pooled tokens).
        pool: What the linear head reads of each tap: ``"token"`` (the class token) or ``"average"`` (mean of patches).
        dropout: Rate at which channels are dropped before the last layer.
        shared: Whether all outputs share one weight vector; the age task sets it for ordinal regression.

    Raises:
        ConfigError: If the head is unknown.
    """

    image: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    taps: tuple[int, ...] = (-1,)
    head: str = "mix"
    pool: str = "token"
    dropout: float = 0.0
    shared: bool = False

    def __post_init__(self) -> None:
        """Refuse an unknown head."""
        if self.head not in HEADS:
            raise ConfigError(f"head '{self.head}' is not known. {did_you_mean(self.head, HEADS)}")

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> GlobalConfig:
        """Rebuild a configuration from plain data, as checkpoints hold it.

        Args:
            plain: Names and values; ``image`` is a dict itself.

        Raises:
            ConfigError: If a name is unknown.
        """
        values = dict(plain)
        values["image"] = _build(ImageEncoderConfig, values.get("image") or {})
        values["taps"] = tuple(values.get("taps") or (-1,))
        return _build(cls, values)


_FARL_TAPS = {12: (3, 5, 7, 11), 24: (7, 11, 15, 23), 32: (8, 14, 20, 31)}


def resolve_taps(taps: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    """Say which blocks are read.

    Args:
        taps: Blocks, negative ones from the end; None for the usual four.
        depth: Number of blocks.

    Raises:
        ConfigError: If there is no such block.
    """
    if taps is None:
        return _FARL_TAPS.get(depth) or tuple(math.ceil(quarter * depth / 4) - 1 for quarter in range(1, 5))
    for tap in taps:
        if not -depth <= tap < depth:
            raise ConfigError(f"tap {tap} does not exist; the encoder has blocks 0 to {depth - 1}")
    if not taps:
        raise ConfigError("taps is empty; name the blocks to be read, or leave it out (null) for the usual four")
    return tuple(tap % depth for tap in taps)


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
