"""Both towers and the contrastive loss of CLIP, and its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from farl_lightning.losses.contrastive import clip_loss
from farl_lightning.models.config import FaceCLIPConfig, ImageEncoderConfig, TextEncoderConfig
from farl_lightning.models.face_clip import FaceCLIP
from farl_lightning.text import Tokenizer
from tests.parity import Deviation, compare, fixture, tensor
from tests.parity.towers import build, compare_grads, file_grads, file_state


def _config(data: Mapping[str, Any]) -> FaceCLIPConfig:
    embed, size, patch, width, depth, heads, context, vocab, text_width, text_depth, text_heads = map(int, data["cfg"])
    return FaceCLIPConfig(
        embed_dim=embed,
        image=ImageEncoderConfig(image_size=size, patch_size=patch, width=width, depth=depth, heads=heads),
        text=TextEncoderConfig(
            context_length=context,
            vocab_size=vocab,
            width=text_width,
            depth=text_depth,
            heads=text_heads,
            eos_token_id=int(data["in/tokens"].max()),  # the end mark is the largest id
        ),
    )


@fixture("10_clip_joint")
def check(data: Mapping[str, Any]) -> list[Deviation]:
    """Features, logits both ways, loss, gradients, and the fresh temperature."""
    config = _config(data)
    found = [compare("init_logit_scale", FaceCLIP(config).logit_scale, data["out/init_logit_scale"].reshape(1))]
    for checkpointing in (False, True):
        clip = build(config, file_state(data)).train()
        clip.set_grad_checkpointing(checkpointing)
        output = clip(tensor(data["in/image"]), tensor(data["in/tokens"]))
        found += _compare_outputs(data, output.image_features, output.text_features, output.logit_scale)
        loss = clip_loss(
            F.normalize(output.image_features, dim=-1),
            F.normalize(output.text_features, dim=-1),
            output.logit_scale.exp(),
        )
        loss.backward()
        found.append(compare("clip_loss", loss, data["out/clip_loss"]))
        found += compare_grads(data, file_grads(clip))
    return found


@torch.no_grad()
def _compare_outputs(data: Mapping[str, Any], image: Tensor, text: Tensor, scale: Tensor) -> list[Deviation]:
    unit_image, unit_text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
    logits = scale.exp() * unit_image @ unit_text.T
    return [
        compare("image_features", image, data["out/image_features"]),
        compare("text_features", text, data["out/text_features"]),
        compare("image_features_normalized", unit_image, data["out/image_features_normalized"]),
        compare("text_features_normalized", unit_text, data["out/text_features_normalized"]),
        compare("logits_per_image", logits, data["out/logits_per_image"]),
        compare("logits_per_text", logits.T, data["out/logits_per_text"]),
    ]


@fixture("10_tokenizer.json")
def check_tokenizer(data: Mapping[str, Any]) -> list[Deviation]:
    """Token ids at both context lengths, exactly."""
    found = []
    for suffix in ("", "_short"):
        ids = Tokenizer(data[f"context_length{suffix}"])(data["captions"])
        found.append(compare(f"ids{suffix}", ids, data[f"ids{suffix}"], rtol=0, atol=0.5))
    constants = (Tokenizer.sot_id, Tokenizer.eot_id, Tokenizer.vocab_size)
    found.append(compare("marks", constants, [data["sot"], data["eot"], data["vocab_size"]], rtol=0, atol=0.5))
    return found
