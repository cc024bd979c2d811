"""The image tower: one vision transformer that sees the clean and the masked picture in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import timm
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.layers.activation import QuickGELU
from farl_lightning.layers.init import init_farl_
from farl_lightning.models.block import QueryBlock
from farl_lightning.models.config import ImageEncoderConfig

_POOLS = ("token", "average", "linear")


class ImageEncoderOutput(NamedTuple):
    """What an :class:`ImageEncoder` returns; B pictures, N patches, D channels, E shared channels.

    A named tuple, because sharding finds the tensors in tuples but not in dataclasses.
    """

    feature: Tensor | None
    """(B, E) feature of the clean pictures, not normalised; None when not asked for."""
    tokens: Tensor | None
    """(B, 1 + N, D) output of the last block on the clean pictures; None when not asked for."""
    masked_tokens: Tensor | None
    """(B, 1 + N, D) output of the last block on the masked pictures; None without a mask."""
    taps: tuple[Tensor, ...]
    """(B, 1 + N, D) outputs of the blocks asked for, on the clean pictures, in the order asked for."""


class ImageEncoder(nn.Module):
    """FaRL's image tower (Zheng et al., arXiv:2112.03109): a ViT around timm, with a bias-free projection.

    Masked image modelling replaces the embeddings of masked patches by one learned token, after the patch projection
    and before the position embedding. The masked pictures run behind the clean ones in the same batch.

    Args:
        config: The architecture and its sizes.
        embed_dim: Channels of the shared space; None for an encoder without final norm and projection, of which tokens
            and taps alone are read.
        mask_token: Whether there is a learned token for masked patches.

    Attributes:
        width: Channels D of a token.
        depth: Number of blocks.
        heads: Number of attention heads.
        image_size: Side of the input in pixels.
        patch_size: Side of a patch in pixels.
        grid: Patches (rows, columns).
        num_patches: Number of patches N.

    Raises:
        ConfigError: If the architecture is unknown or its insides do not allow this.
    """

    def __init__(self, config: ImageEncoderConfig, embed_dim: int | None, mask_token: bool = True) -> None:
        super().__init__()
        self.config = config
        self.vit = _build_vit(config)
        self._read_sizes()
        scale = self.width**-0.5
        self.proj = None if embed_dim is None else nn.Parameter(scale * torch.randn(self.width, embed_dim))
        if embed_dim is None:
            self.vit.norm = nn.Identity()  # a parameter that nobody reads would stop training on several devices
        self.mask_token = nn.Parameter(scale * torch.randn(self.width)) if mask_token else None
        self.conv_pool = self._build_pool()
        self.grad_checkpointing = False
        self.init_weights()

    def _read_sizes(self) -> None:
        """Take the sizes from the built network."""
        self.width: int = self.vit.embed_dim
        self.depth = len(self.vit.blocks)
        self.heads: int = self.vit.blocks[0].attn.num_heads
        self.grid: tuple[int, int] = tuple(self.vit.patch_embed.grid_size)
        self.num_patches: int = self.vit.patch_embed.num_patches
        self.patch_size: int = self.vit.patch_embed.patch_size[0]
        self.image_size: int = self.vit.patch_embed.img_size[0]

    def _build_pool(self) -> nn.Conv1d | None:
        """Return the learned pooling: one weight per token and channel."""
        if self.config.pool != "linear":
            return None
        tokens = self.num_patches + (0 if self.config.pool_patches_only else 1)
        return nn.Conv1d(self.width, self.width, tokens, groups=self.width)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Draw fresh weights as FaRL does; weights that timm downloaded stay."""
        if self.config.pretrained:
            return
        init_farl_(self)
        embeddings = [self.vit.cls_token, self.vit.pos_embed, self.proj, self.mask_token]
        for parameter in embeddings:
            if parameter is not None:
                nn.init.normal_(parameter, std=self.width**-0.5)

    def cut_after(self, block: int) -> None:
        """Remove the blocks behind one, for an encoder of which only taps are read.

        Args:
            block: The last block that stays, from 0.
        """
        del self.vit.blocks[block + 1 :]
        self.depth = len(self.vit.blocks)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of storing its activations."""
        self.grad_checkpointing = enable

    def forward(
        self,
        images: Tensor,
        *,
        patch_mask: Tensor | None = None,
        taps: Sequence[int] = (),
        need_tokens: bool = False,
        need_feature: bool = True,
    ) -> ImageEncoderOutput:
        """Encode pictures, clean and, when there is a mask, masked as well.

        Only what is read is computed: the last block of the clean pictures answers for the class token alone when
        nobody asks for more, clean pictures are left out when nothing of them is asked for, and blocks behind the
        last one that is read do not run.

        Args:
            images: (B, 3, H, W), normalised; H and W are ``image_size``.
            patch_mask: (B, N) bool, True = masked, patches row by row; None for clean pictures only.
            taps: Blocks whose outputs are returned, from 0; negative ones count from the end.
            need_tokens: Whether ``tokens`` is returned.
            need_feature: Whether ``feature`` is returned.

        Raises:
            ConfigError: If a shape, a dtype or a tap does not fit.
        """
        self._check_inputs(images, patch_mask)
        blocks = self._tap_indices(taps)
        clean = images.shape[0] if need_feature or need_tokens or blocks else 0
        x = self._embed(images, patch_mask, clean)
        kept: dict[int, Tensor] = {}
        x, rope = self._positions(x)
        runs_all = need_feature or need_tokens or patch_mask is not None
        last = self.depth - 1 if runs_all else max(blocks, default=-1)
        for index in range(last):
            x = self._run(index, x, rope)
            if index in blocks:
                kept[index] = x[:clean]
        trim = self._reads_class_only(need_tokens, need_feature and last not in blocks)
        pooled, masked = self._last(last, x, rope, clean, trim)
        kept[last] = pooled
        return ImageEncoderOutput(
            feature=self._pool(pooled) if need_feature else None,
            tokens=pooled if need_tokens else None,
            masked_tokens=masked if patch_mask is not None else None,
            taps=tuple(kept[index] for index in blocks),
        )

    def _reads_class_only(self, need_tokens: bool, need_feature: bool) -> bool:
        """Whether the class token is all that is read of the clean pictures' last block."""
        partial = isinstance(self.vit.blocks[-1], QueryBlock)
        return partial and need_feature and not need_tokens and self.config.pool == "token"

    def _embed(self, images: Tensor, patch_mask: Tensor | None, clean: int) -> Tensor:
        """Project patches once and stack [clean ; masked]: (clean + B, N, D)."""
        x: Tensor = self.vit.patch_embed(images)
        if patch_mask is None:
            return x
        if self.mask_token is None:
            raise ConfigError("this image encoder has no mask token; build it with mask_token=True to use patch_mask")
        masked = torch.where(patch_mask.unsqueeze(-1), self.mask_token.to(x.dtype), x)
        return torch.cat([x, masked]) if clean else masked

    def _positions(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Prepend the class token, add positions, normalise; the second result is a rotary embedding or None."""
        placed = self.vit._pos_embed(x)
        tokens, rope = placed if isinstance(placed, tuple) else (placed, None)
        return self.vit.norm_pre(tokens), rope

    def _run(self, index: int, x: Tensor, rope: Tensor | None, **options: Any) -> Any:
        """Run one block, checkpointed if set."""
        block = self.vit.blocks[index]
        if rope is not None:
            options["rope"] = rope
        if self.grad_checkpointing and self.training:
            return checkpoint(block, x, use_reentrant=False, **options)
        return block(x, **options)

    def _last(self, index: int, x: Tensor, rope: Tensor | None, clean: int, trim: bool) -> tuple[Tensor, Tensor]:
        """Run the last block that is read and part the clean from the masked pictures."""
        if trim:
            pair: tuple[Tensor, Tensor] = self._run(index, x, rope, class_only=clean)
            return pair
        if index >= 0:
            x = self._run(index, x, rope)
        return x[:clean], x[clean:]

    def _pool(self, tokens: Tensor) -> Tensor:
        """Turn (B, L, D) tokens into (B, E) features."""
        if self.proj is None:
            raise ConfigError("this image encoder has no projection; call it with need_feature=False")
        if self.config.pool == "token":
            pooled = tokens[:, 0]
        else:
            read = tokens[:, 1:] if self.config.pool_patches_only else tokens
            pooled = read.mean(1) if self.conv_pool is None else self.conv_pool(read.transpose(1, 2)).squeeze(-1)
        feature: Tensor = self.vit.norm(pooled) @ self.proj
        return feature

    def _tap_indices(self, taps: Sequence[int]) -> tuple[int, ...]:
        """Resolve negative taps."""
        for tap in taps:
            if not -self.depth <= tap < self.depth:
                raise ConfigError(f"tap {tap} does not exist; this encoder has blocks 0 to {self.depth - 1}")
        return tuple(tap % self.depth for tap in taps)

    def _check_inputs(self, images: Tensor, patch_mask: Tensor | None) -> None:
        """Say plainly what does not fit."""
        size = self.image_size
        if images.ndim != 4 or images.shape[1:] != (3, size, size):
            raise ConfigError(
                f"images have shape {tuple(images.shape)}; this encoder is built for (B, 3, {size}, {size}). "
                "Resize them, or set image_size"
            )
        if patch_mask is None:
            return
        if patch_mask.dtype != torch.bool or patch_mask.shape != (images.shape[0], self.num_patches):
            raise ConfigError(
                f"patch_mask is {patch_mask.dtype} of shape {tuple(patch_mask.shape)}; it must be torch.bool of shape "
                f"{(images.shape[0], self.num_patches)}: one value per patch"
            )


def _build_vit(config: ImageEncoderConfig) -> Any:
    """Build timm's network without its classifier."""
    _check_config(config)
    sizes = {
        "patch_size": config.patch_size,
        "embed_dim": config.width,
        "depth": config.depth,
        "num_heads": config.heads,
    }
    options: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
    if config.pretrained and options:
        raise ConfigError(f"pretrained=True needs the architecture's own sizes; remove {', '.join(options)}")
    options |= {"img_size": config.image_size, "drop_path_rate": config.drop_path, "num_classes": 0}
    try:
        vit = timm.create_model(config.name, pretrained=config.pretrained, global_pool="token", **options)
    except (TypeError, AssertionError, ValueError) as error:
        raise ConfigError(
            f"image encoder '{config.name}' cannot be built with {options}: {error}. {_ALLOWED}"
        ) from error
    _check_insides(config.name, vit)
    _use_query_blocks(vit)
    return vit


_ALLOWED = (
    "Allowed: timm's VisionTransformer (vit_*, deit_*, such as vit_base_patch16_clip_quickgelu_224) and Eva "
    "(eva_*, eva02_*), with a class token, learned positions, no register tokens and at least one block"
)


def _check_config(config: ImageEncoderConfig) -> None:
    """Refuse what no architecture allows."""
    if config.pool not in _POOLS:
        raise ConfigError(f"image pool '{config.pool}' is not known. {did_you_mean(config.pool, _POOLS)}")
    if not timm.is_model(config.name):
        near = did_you_mean(config.name, timm.list_models(["vit_*", "deit_*", "eva*"]))
        raise ConfigError(f"timm has no architecture '{config.name}'. {near}")
    if config.patch_size is not None and config.image_size % config.patch_size:
        raise ConfigError(f"image_size {config.image_size} is not a multiple of patch_size {config.patch_size}")
    if config.width is not None and config.heads is not None and config.width % config.heads:
        raise ConfigError(f"image width {config.width} is not a multiple of its {config.heads} heads")


def _check_insides(name: str, vit: nn.Module) -> None:
    """Refuse networks that the forward pass here does not describe."""
    problems = []
    if not isinstance(vit, VisionTransformer | Eva) or type(vit).forward_features not in (
        VisionTransformer.forward_features,
        Eva.forward_features,
    ):
        problems.append(f"its class is {type(vit).__name__}")
    else:
        if vit.num_prefix_tokens != 1 or vit.cls_token is None:
            problems.append(f"it has {vit.num_prefix_tokens} prefix tokens")
        if getattr(vit, "rope_mixed", False):
            problems.append("its rotary positions differ from block to block")
        if vit.pos_embed is None:
            problems.append("it has no learned positions")
        elif vit.pos_embed.shape[1] != vit.patch_embed.num_patches + 1:
            problems.append("its class token has no position")
        if not len(vit.blocks):
            problems.append("it has no block")
    if problems:
        raise ConfigError(f"image encoder '{name}' cannot be used: {'; '.join(problems)}. {_ALLOWED}")


def _use_query_blocks(vit: Any) -> None:
    """Let timm's plain blocks answer for single tokens, and use the lean activation.

    A block keeps its parameters and names: only its class, and with it the ``forward``, changes.
    """
    for block in vit.blocks:
        plain = type(block) is Block and type(block.attn).__name__ == "Attention"
        if plain and getattr(block.attn, "gate", None) is None:
            block.__class__ = QueryBlock
        if type(getattr(block.mlp, "act", None)).__name__ == "QuickGELU":
            block.mlp.act = QuickGELU(inplace=True)  # nobody else reads what goes in
