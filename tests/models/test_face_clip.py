"""Both towers together."""

from __future__ import annotations

import math

import pytest
import torch

from farl_lightning.errors import ConfigError
from farl_lightning.models.config import FaceCLIPConfig
from farl_lightning.models.face_clip import FaceCLIP
from farl_lightning.testing.models import tiny_config
from farl_lightning.types import to_plain


def _captions():
    text = torch.zeros(3, 12, dtype=torch.int64)
    text[:, :4] = torch.tensor([5, 6, 7, 89])
    return text


def test_one_call_runs_what_was_given(clip, images, patch_mask):
    images = images.float()
    output = clip(images, _captions(), patch_mask=patch_mask, taps=(0,))
    assert output.image_features.shape == output.text_features.shape == (3, 32)
    assert output.masked_tokens.shape == (3, 17, 48)
    assert output.patch_mask is patch_mask
    assert len(output.taps) == 1
    assert output.tokens is None
    assert output.logit_scale is clip.logit_scale
    assert clip(images).text_features is None
    assert clip(text=_captions()).image_features is None
    assert clip(images, patch_mask=patch_mask, need_feature=False).image_features is None


def test_features_are_not_normalised(clip, images):
    norms = clip(images.float()).image_features.norm(dim=-1)
    assert not torch.allclose(norms, torch.ones(3), atol=0.1)


def test_temperature():
    clip = FaceCLIP(tiny_config())
    assert clip.logit_scale.shape == (1,)
    assert clip.logit_scale.item() == pytest.approx(math.log(1 / 0.07))


def test_image_tower_alone(images):
    config = tiny_config()
    config.text = None
    clip = FaceCLIP(config, mask_token=False)
    assert clip.logit_scale is None
    assert clip(images.float()).image_features.shape == (3, 32)
    with pytest.raises(ConfigError, match=r"has no text tower"):
        clip(text=_captions())
    assert all(parameter.requires_grad for parameter in clip.parameters())


def test_every_parameter_learns_in_farls_step(clip, images, patch_mask):
    output = clip(images.float(), _captions(), patch_mask=patch_mask)
    loss = (
        output.image_features * output.text_features
    ).sum() * output.logit_scale.exp() + output.masked_tokens.square().sum()
    loss.sum().backward()
    idle = [name for name, parameter in clip.named_parameters() if parameter.grad is None]
    assert idle == [], "distributed training stops at a parameter without gradient"


def test_no_weight_decay_names_embeddings_and_temperature(clip):
    assert clip.no_weight_decay() == {
        "logit_scale",
        "image_encoder.mask_token",
        "image_encoder.vit.cls_token",
        "image_encoder.vit.pos_embed",
        "text_encoder.model.text_model.embeddings.token_embedding.weight",
        "text_encoder.model.text_model.embeddings.position_embedding.weight",
    }


def test_layer_groups_align_the_tops_of_both_towers():
    config = tiny_config(depth=2)
    config.image.depth = 4
    clip = FaceCLIP(config)
    groups = clip.layer_groups()
    assert groups.keys() == dict(clip.named_parameters()).keys()
    expected = {
        "image_encoder.vit.patch_embed.proj.weight": 0,
        "image_encoder.vit.cls_token": 0,
        "image_encoder.mask_token": 0,
        "image_encoder.vit.norm_pre.weight": 0,
        "image_encoder.vit.blocks.0.norm1.weight": 1,
        "image_encoder.vit.blocks.3.mlp.fc2.bias": 4,
        "image_encoder.vit.norm.weight": 5,
        "image_encoder.proj": 5,
        "logit_scale": 5,
        "text_encoder.model.text_model.embeddings.token_embedding.weight": 2,
        "text_encoder.model.text_model.encoder.layers.0.self_attn.q_proj.weight": 3,
        "text_encoder.model.text_model.encoder.layers.1.mlp.fc1.weight": 4,
        "text_encoder.model.text_model.final_layer_norm.bias": 5,
        "text_encoder.model.text_projection.weight": 5,
    }
    assert {name: groups[name] for name in expected} == expected


def test_checkpointing_reaches_both_towers(clip, images):
    clip.train().set_grad_checkpointing(True)
    calls = []
    clip.image_encoder.vit.blocks[0].mlp.register_forward_pre_hook(lambda *args: calls.append("image"))
    clip.text_encoder.model.text_model.encoder.layers[0].mlp.register_forward_pre_hook(
        lambda *args: calls.append("text")
    )
    output = clip(images.float(), _captions())
    (output.image_features * output.text_features).sum().backward()
    assert sorted(calls) == ["image", "image", "text", "text"]


def test_config_survives_as_plain_data():
    config = tiny_config()
    assert FaceCLIPConfig.from_dict(to_plain(config)) == config
    config.text = None
    assert FaceCLIPConfig.from_dict(to_plain(config)) == config
    assert FaceCLIPConfig.from_dict({}) == FaceCLIPConfig()
    with pytest.raises(ConfigError, match=r"TextEncoderConfig has no 'widht'. Did you mean 'width'"):
        FaceCLIPConfig.from_dict({"text": {"widht": 3}})
    with pytest.raises(ConfigError, match=r"FaceCLIPConfig has no 'embed'"):
        FaceCLIPConfig.from_dict({"embed": 3})
