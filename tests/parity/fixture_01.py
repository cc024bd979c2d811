"""Image encoder and masked image modelling branch of FaRL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from farl_lightning.models.config import FaceCLIPConfig, ImageEncoderConfig
from farl_lightning.models.face_clip import FaceCLIP
from farl_lightning.models.masked_image import MaskedImageHead
from tests.parity import Deviation, compare, fixture, tensor
from tests.parity.towers import build, build_head, compare_grads, file_grads, file_state


def _config(data: Mapping[str, Any], **pool: Any) -> FaceCLIPConfig:
    size, patch, width, layers, heads, out = (int(value) for value in data["cfg"][:6])
    image = ImageEncoderConfig(image_size=size, patch_size=patch, width=width, depth=layers, heads=heads, **pool)
    return FaceCLIPConfig(embed_dim=out, image=image, text=None)


@fixture("01_vit_mim")
def check(data: Mapping[str, Any]) -> list[Deviation]:
    """Features, tokens after every block, logits in every form, gradients, pooling variants."""
    state = file_state(data, rename="visual.")
    width, _, heads, _, depth, outputs = (int(value) for value in data["cfg"][2:8])
    clip = build(_config(data), state)
    head = build_head(width, heads, depth, outputs, state)
    found = _forward(data, clip, head)
    found += _gradients(data, clip, head)
    for pool in ("average", "linear"):
        for skip in (0, 1):
            found.append(_pooled(data, state, pool, skip))
    return found


@torch.no_grad()
def _forward(data: Mapping[str, Any], clip: FaceCLIP, head: MaskedImageHead) -> list[Deviation]:
    images, mask = tensor(data["in/image"]), tensor(data["in/bool_masked_pos"])
    encoder = clip.image_encoder.eval()
    head.eval()
    blocks = encoder(images, taps=range(encoder.depth), need_tokens=True)
    both = encoder(images, patch_mask=mask)
    masked_only = encoder(images, patch_mask=mask, need_feature=False)
    return [
        compare("feature", encoder(images).feature, data["out/feature"]),
        compare("feature with all tokens", blocks.feature, data["out/feature"]),
        compare("block_tokens", torch.stack(blocks.taps), data["out/block_tokens"]),
        compare("last tokens", blocks.tokens, data["out/block_tokens"][-1]),
        compare("mim_feature", both.feature, data["out/mim_feature"]),
        compare("mim_logits", head(both.masked_tokens, mask), data["out/mim_logits"]),
        compare("mim_all_tokens_logits", head(both.masked_tokens), data["out/mim_all_tokens_logits"]),
        compare("mim_disable_vlc_logits", head(masked_only.masked_tokens, mask), data["out/mim_disable_vlc_logits"]),
    ]


def _gradients(data: Mapping[str, Any], clip: FaceCLIP, head: MaskedImageHead) -> list[Deviation]:
    """Gradients in training mode, plainly and with every block recomputed in the backward pass."""
    found = []
    for checkpointing in (False, True):
        for module in (clip, head):
            module.train()
            module.zero_grad()
            module.set_grad_checkpointing(checkpointing)
        loss, entropy = _loss(data, clip, head)
        loss.backward()
        label = "checkpointed " if checkpointing else ""
        found += [
            compare(f"{label}mim_ce", entropy, data["out/mim_ce"]),
            compare(f"{label}loss", loss, data["out/loss"]),
        ]
        found += compare_grads(data, file_grads(clip, head), rename="visual.")
    return found


def _loss(data: Mapping[str, Any], clip: FaceCLIP, head: MaskedImageHead) -> tuple[Tensor, Tensor]:
    mask = tensor(data["in/bool_masked_pos"])
    output = clip(tensor(data["in/image"]), patch_mask=mask)
    entropy = F.cross_entropy(head(output.masked_tokens, mask), tensor(data["in/mim_target"]))
    return entropy + (output.image_features * tensor(data["in/feature_cotangent"])).sum(), entropy


@torch.no_grad()
def _pooled(data: Mapping[str, Any], state: dict[str, Tensor], pool: str, skip: int) -> Deviation:
    name = f"pool_{pool}_skip{skip}"
    own = file_state(data, f"{name}/conv_pool.", "visual.conv_pool.")
    clip = build(_config(data, pool=pool, pool_patches_only=bool(skip)), state | own).eval()
    features = clip(tensor(data["in/image"])).image_features
    # the reference loses the batch axis of a single picture, which is no result to reproduce
    return compare(name, features, data[f"{name}/feature"].reshape(len(features), -1))
