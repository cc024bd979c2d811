"""Features of whole faces, several per face and each with a name: what probes, searches and tables start from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from typing_extensions import Self

from farl_lightning.errors import CheckpointError, ConfigError, did_you_mean
from farl_lightning.functional.resize import resize
from farl_lightning.models.checkpoint import override
from farl_lightning.models.dense_checkpoint import load_encoder, read_dense, read_encoder
from farl_lightning.models.image_encoder import ImageEncoder
from farl_lightning.types import FaceSpec

POOLS = ("class", "mean", "max")
"""How the tokens of a block become one vector: the class token, or the mean or maximum over the patches."""

FEATURE = "feature"
"""Name of the vector in the space that images share with captions."""

_FEATURE_PARTS = ("proj", "vit.norm.weight", "vit.norm.bias")


@runtime_checkable
class FeatureExtractor(Protocol):
    """Whatever turns face crops into named vectors."""

    spec: FaceSpec
    """How the faces have to be cropped, sized and normalised."""

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Return the features.

        Args:
            images: (B, 3, S, S), normalised as ``spec`` says.

        Returns:
            (B, D) float32 by name, such as ``"block11.mean"`` or ``"feature"``; always under the same names.
        """


class EncoderFeatures(nn.Module):
    """Features of an :class:`~farl_lightning.models.image_encoder.ImageEncoder`, without gradient.

    ``"block<i>.class"``, ``"block<i>.mean"`` and ``"block<i>.max"`` are read off the output of block i (from 0), as it
    is: the final norm stands before ``"feature"`` alone, which is the vector that is compared with captions (not yet of
    length 1). Nothing that is not asked for is computed.

    Args:
        encoder: The image tower; it is put in evaluation mode.
        spec: What it expects of faces.
        blocks: The blocks that are read; negative ones count from the end.
        pools: What is read of each block: ``"class"``, ``"mean"``, ``"max"``.
        feature: Whether ``"feature"`` is among the features; None means where the encoder has a projection.

    Attributes:
        names: The names of the features, in order.

    Raises:
        ConfigError: If a block or a pooling does not exist, or nothing is asked for.

    Example:
        >>> features = EncoderFeatures.from_checkpoint("farl.pth", blocks=[7, 11])  # doctest: +SKIP
        >>> features(images)["block11.mean"].shape  # doctest: +SKIP
        torch.Size([8, 768])
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        spec: FaceSpec,
        blocks: Sequence[int] = (-1,),
        pools: Sequence[str] = ("class", "mean"),
        feature: bool | None = None,
    ) -> None:
        super().__init__()
        for pool in pools:
            if pool not in POOLS:
                raise ConfigError(f"pooling '{pool}' is not known. {did_you_mean(pool, POOLS)}")
        for block in blocks:
            if not -encoder.depth <= block < encoder.depth:
                raise ConfigError(f"block {block} does not exist; this encoder has blocks 0 to {encoder.depth - 1}")
        if feature and encoder.proj is None:
            raise ConfigError("this file has no projection into the space of captions; read blocks, feature=False")
        self.encoder, self.spec = encoder.eval(), spec
        self.feature = encoder.proj is not None if feature is None else feature
        self.pools = tuple(dict.fromkeys(pools))
        self.blocks = tuple(sorted({block % encoder.depth for block in blocks})) if pools else ()
        self.names = tuple(f"block{block}.{pool}" for block in self.blocks for pool in self.pools)
        self.names += (FEATURE,) if self.feature else ()
        if not self.names:
            raise ConfigError("no feature is asked for; give blocks and pools, or feature=True")

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: features must not depend on dropout.

        Args:
            mode: Not used.
        """
        del mode
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the features of face crops.

        Args:
            images: (B, 3, H, W), normalised as ``spec`` says; resized to the encoder's input where they have another
                size.

        Returns:
            (B, D) float32 by name, in the order of ``names``.
        """
        size = (self.encoder.image_size, self.encoder.image_size)
        found = self.encoder(resize(images, size), taps=self.blocks, need_feature=self.feature)
        vectors = {
            f"block{block}.{pool}": _pool(tokens, pool).float()
            for block, tokens in zip(self.blocks, found.taps, strict=True)
            for pool in self.pools
        }
        return vectors | ({FEATURE: found.feature.float()} if self.feature else {})

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        blocks: Sequence[int] = (-1,),
        pools: Sequence[str] = ("class", "mean"),
        feature: bool | None = None,
        ema: bool = True,
        image: Mapping[str, Any] | None = None,
        spec: FaceSpec | None = None,
    ) -> Self:
        """Read the image tower of any file that this package knows.

        Args:
            path: A pretrained file (FaRL, OpenAI, open_clip, ours), a downstream one (any of our tasks, facer's), or
                the name of known weights.
            blocks: See the class, as all that follow.
            pools: What is read of each block.
            feature: Whether ``"feature"`` is among them.
            ema: Whether averaged weights are taken where a file holds both.
            image: Settings of ``ImageEncoderConfig`` that replace what the file says, such as ``{"image_size": 448}``.
            spec: What the encoder expects of faces; None takes what the file says, else whole pictures with CLIP's
                normalisation.

        Returns:
            On the CPU, without gradients.

        Raises:
            CheckpointError: If the file holds no image tower, or not all of it.
        """
        held = read_encoder(path, ema=ema)
        config = override(held.config, dict(image or {}))
        config = dataclasses.replace(config, pretrained=False)
        holder: Any = nn.Module()
        holder.face_spec = None
        projection = held.state.get("encoder.proj")
        width = projection.shape[1] if projection is not None and _has_feature(held.state) else None
        holder.encoder = encoder = ImageEncoder(config, width, mask_token=False)
        depth = _depth(held.state)
        if depth < encoder.depth:
            encoder.cut_after(depth - 1)
        load_encoder(holder, path, ema=ema)
        spec = spec or held.face_spec or _downstream_spec(path, ema) or FaceSpec(image_size=encoder.image_size)
        return cls(encoder.requires_grad_(False), spec, blocks, pools, feature)


def encoder_of(network: nn.Module) -> ImageEncoder:
    """Return the image tower of a network that has one.

    Args:
        network: Any module.

    Raises:
        ConfigError: If it has none, or several.
    """
    found = [module for module in network.modules() if isinstance(module, ImageEncoder)]
    if len(found) != 1:
        raise ConfigError(f"{type(network).__name__} has {len(found)} image encoders; one is needed")
    return found[0]


def _pool(tokens: Tensor, pool: str) -> Tensor:
    """Turn (B, 1 + N, D) tokens into (B, D)."""
    if pool == "class":
        return tokens[:, 0]
    return tokens[:, 1:].mean(1) if pool == "mean" else tokens[:, 1:].amax(1)


def _has_feature(state: Mapping[str, Tensor]) -> bool:
    """Whether a file holds all that stands between the last block and the shared space."""
    return all(f"encoder.{part}" in state for part in _FEATURE_PARTS)


def _depth(state: Mapping[str, Tensor]) -> int:
    """Count the blocks of a file; a downstream network keeps none behind the last one that it reads."""
    numbers = [int(name.split(".")[3]) for name in state if name.startswith("encoder.vit.blocks.")]
    if not numbers:
        raise CheckpointError(f"the image tower in this file has no blocks; it holds {', '.join(list(state)[:4])} ...")
    return max(numbers) + 1


def _downstream_spec(path: str | Path, ema: bool) -> FaceSpec | None:
    """Return what a downstream file says of its faces; None for a pretrained file that says nothing."""
    try:
        return read_dense(path, ema=ema).face_spec
    except CheckpointError:
        return None
