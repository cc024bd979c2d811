"""The image tower against the slow way, and its settings."""

from __future__ import annotations

import pytest
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

from farl_lightning.errors import ConfigError
from farl_lightning.layers.activation import QuickGELU
from farl_lightning.models.config import ImageEncoderConfig
from farl_lightning.models.image_encoder import ImageEncoder
from farl_lightning.testing.models import tiny_config
from tests.models import plain


def _grads(encoder, *outputs):
    encoder.zero_grad()
    sum(
        (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)).sum() for output in outputs
    ).backward()
    return {name: parameter.grad for name, parameter in encoder.named_parameters() if parameter.grad is not None}


def _assert_same_grads(ours, slow):
    assert ours.keys() == slow.keys()
    for name in ours:
        torch.testing.assert_close(
            ours[name], slow[name], rtol=1e-9, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_clean_values_and_gradients(encoder, images):
    feature = encoder(images).feature
    expected = plain.feature(encoder, images)
    torch.testing.assert_close(feature, expected)
    _assert_same_grads(_grads(encoder, feature), _grads(encoder, expected))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_doubled_batch_values_and_gradients(encoder, images, patch_mask, checkpointing):
    encoder.set_grad_checkpointing(checkpointing)
    output = encoder(images, patch_mask=patch_mask)
    slow = plain.feature(encoder, images), plain.tokens(encoder, images, patch_mask)[-1]
    torch.testing.assert_close(output.feature, slow[0])
    torch.testing.assert_close(output.masked_tokens, slow[1])
    assert output.tokens is None
    ours = _grads(encoder, output.feature, output.masked_tokens)
    _assert_same_grads({k: v.clone() for k, v in ours.items()}, _grads(encoder, *slow))


def test_taps_and_tokens_are_of_the_clean_pictures(encoder, images, patch_mask):
    output = encoder(images, patch_mask=patch_mask, taps=(2, 0, -2), need_tokens=True)
    blocks = plain.tokens(encoder, images)
    for ours, slow in zip(output.taps, (blocks[2], blocks[0], blocks[1]), strict=True):
        torch.testing.assert_close(ours, slow)
    torch.testing.assert_close(output.tokens, blocks[-1])
    torch.testing.assert_close(output.feature, plain.feature(encoder, images))


def test_masked_alone_equals_masked_half(encoder, images, patch_mask):
    alone = encoder(images, patch_mask=patch_mask, need_feature=False)
    assert alone.feature is None
    torch.testing.assert_close(alone.masked_tokens, encoder(images, patch_mask=patch_mask).masked_tokens)


def test_only_what_is_read_is_computed(encoder, images, patch_mask):
    rows = []
    for block in encoder.vit.blocks:
        block.mlp.register_forward_hook(
            lambda module, given, output: rows.append(given[0].shape[0] * given[0].shape[1])
        )

    def run(*args, **kwargs):
        rows.clear()
        encoder(*args, **kwargs)
        return list(rows)

    assert run(images) == [51, 51, 3]
    assert run(images, need_tokens=True) == [51, 51, 51]
    assert run(images, taps=(-1,)) == [51, 51, 51]
    assert run(images, patch_mask=patch_mask) == [102, 102, 3, 51]
    assert run(images, patch_mask=patch_mask, need_feature=False) == [51, 51, 51]
    assert run(images, taps=(0,), need_feature=False) == [51]
    assert run(images, need_feature=False) == []


def test_patches_are_projected_once(encoder, images, patch_mask):
    calls = []
    encoder.vit.patch_embed.register_forward_hook(lambda *args: calls.append(1))
    encoder(images, patch_mask=patch_mask)
    assert len(calls) == 1


def test_nothing_masked_changes_nothing(encoder, images):
    output = encoder(images, patch_mask=torch.zeros(3, 16, dtype=torch.bool), need_tokens=True)
    torch.testing.assert_close(output.masked_tokens, output.tokens)


@pytest.mark.parametrize("patches_only", [False, True])
@pytest.mark.parametrize("pool", ["average", "linear"])
def test_pooling(images, pool, patches_only):
    config = tiny_config().image
    config.pool, config.pool_patches_only = pool, patches_only
    encoder = ImageEncoder(config, 32).double()
    read = plain.tokens(encoder, images)[-1][:, 1 if patches_only else 0 :]
    if pool == "average":
        pooled = read.mean(1)
    else:
        pooled = (read * encoder.conv_pool.weight[:, 0].T).sum(1) + encoder.conv_pool.bias
    torch.testing.assert_close(encoder(images).feature, encoder.vit.norm(pooled) @ encoder.proj)
    assert encoder(images[:1]).feature.shape == (1, 32), "a single picture keeps its batch axis"


def test_default_architecture_is_farls():
    with torch.device("meta"):
        encoder = ImageEncoder(ImageEncoderConfig(), 512)
    assert (encoder.width, encoder.depth, encoder.heads, encoder.grid) == (768, 12, 12, (14, 14))
    assert (encoder.patch_size, encoder.image_size, encoder.num_patches) == (16, 224, 196)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 86_192_640 + 768, (
        "CLIP's, and the mask token"
    )
    norms = [module for module in encoder.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert len(norms) == 26
    assert {norm.eps for norm in norms} == {1e-5}
    assert all(type(block.mlp.act) is QuickGELU for block in encoder.vit.blocks)
    assert encoder.vit.patch_embed.proj.bias is None


def test_fresh_weights_are_farls():
    torch.manual_seed(0)
    encoder = ImageEncoder(tiny_config(width=192, heads=3).image, 64)
    for parameter in (encoder.proj, encoder.mask_token, encoder.vit.cls_token, encoder.vit.pos_embed):
        assert 0.8 < parameter.std() * 192**0.5 < 1.2
    assert 0.018 < encoder.vit.patch_embed.proj.weight.std() < 0.022
    assert 0.018 < encoder.vit.blocks[0].mlp.fc1.weight.std() < 0.022
    assert 0.9 < encoder.vit.blocks[0].attn.qkv.weight.abs().max() / (6 / (4 * 192)) ** 0.5 <= 1


def test_drop_path_rises_and_acts_in_training_only(images):
    config = tiny_config(depth=3).image
    config.drop_path = 0.6
    encoder = ImageEncoder(config, 32).double()
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in encoder.vit.blocks]
    assert rates == pytest.approx([0.0, 0.3, 0.6])
    assert torch.equal(encoder.eval()(images).feature, encoder(images).feature)
    assert not torch.equal(encoder.train()(images).feature, encoder(images).feature)


def test_positions_method_of_timm_does_what_we_rely_on():
    """``_pos_embed`` is private: class token in front, then positions; Eva adds a rotary part."""
    vit = VisionTransformer(img_size=8, patch_size=4, embed_dim=6, depth=1, num_heads=1, num_classes=0)
    x = torch.randn(2, 4, 6)
    expected = torch.cat([vit.cls_token.expand(2, -1, -1), x], 1) + vit.pos_embed
    assert torch.equal(vit._pos_embed(x), expected)
    eva = Eva(img_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=1, num_classes=0, global_pool="token")
    x = torch.randn(2, 4, 8)
    tokens, rope = eva._pos_embed(x)
    assert torch.equal(tokens, torch.cat([eva.cls_token.expand(2, -1, -1), x], 1) + eva.pos_embed)
    assert rope is None


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "deit_tiny_patch16_224", "vit_tiny_patch16_224"])
def test_other_architectures(name):
    torch.manual_seed(0)
    encoder = ImageEncoder(ImageEncoderConfig(name, image_size=28, patch_size=7, width=48, depth=2, heads=3), 16).eval()
    images, mask = torch.randn(2, 3, 28, 28), torch.zeros(2, 16, dtype=torch.bool)
    mask[:, ::3] = True
    output = encoder(images, patch_mask=mask, taps=(0,))
    with torch.no_grad():
        timms = encoder.vit.forward_features(images)[:, 0] @ encoder.proj
    torch.testing.assert_close(output.feature, timms, rtol=1e-4, atol=1e-5)
    assert output.masked_tokens.shape == (2, 17, 48)
    changed = images.clone()
    changed[:, :, :7, :7] += 1  # the first patch is masked
    again = encoder(changed, patch_mask=mask)
    torch.testing.assert_close(again.masked_tokens, output.masked_tokens)
    assert not torch.allclose(again.feature, output.feature)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_base_patch16_siglip_224", "needs the class token"),
        ("vit_small_patch14_reg4_dinov2", "5 prefix tokens"),
        ("deit_tiny_distilled_patch16_224", "2 prefix tokens"),
        ("deit3_small_patch16_224", "its class token has no position"),
        ("resnet18", "cannot be built with"),
    ],
)
def test_other_insides_are_refused(name, reason):
    with pytest.raises(ConfigError, match=reason) as error:
        ImageEncoder(ImageEncoderConfig(name, image_size=224), 16)
    assert "Allowed: timm's VisionTransformer" in str(error.value)


def test_unknown_names_get_the_nearest():
    with pytest.raises(ConfigError, match=r"Did you mean 'vit_base_patch16_clip_quickgelu_224'"):
        ImageEncoder(ImageEncoderConfig("vit_base_patch16_clip_quikgelu_224"), 16)
    with pytest.raises(ConfigError, match=r"pool 'avg' is not known"):
        ImageEncoder(ImageEncoderConfig(pool="avg"), 16)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ImageEncoderConfig(image_size=65, patch_size=8), "image_size 65 is not a multiple of patch_size 8"),
        (ImageEncoderConfig(width=50, heads=3), "width 50 is not a multiple of its 3 heads"),
        (
            ImageEncoderConfig(pretrained=True, width=64),
            "pretrained=True needs the architecture's own sizes; remove embed_dim",
        ),
    ],
)
def test_impossible_sizes(config, message):
    with pytest.raises(ConfigError, match=message):
        ImageEncoder(config, 16)


def test_wrong_inputs_are_named(encoder, images, patch_mask):
    with pytest.raises(ConfigError, match=r"shape \(3, 3, 16, 16\); this encoder is built for \(B, 3, 32, 32\)"):
        encoder(images[..., :16, :16])
    with pytest.raises(ConfigError, match=r"patch_mask is torch.int64 of shape \(3, 16\); it must be torch.bool"):
        encoder(images, patch_mask=patch_mask.long())
    with pytest.raises(ConfigError, match=r"must be torch.bool of shape \(3, 16\)"):
        encoder(images, patch_mask=patch_mask[:, :4])
    with pytest.raises(ConfigError, match=r"tap 3 does not exist; this encoder has blocks 0 to 2"):
        encoder(images, taps=(3,))
    with pytest.raises(ConfigError, match=r"no mask token"):
        ImageEncoder(tiny_config().image, 32, mask_token=False).double()(images, patch_mask=patch_mask)


def test_compiles_without_breaks(encoder, images, patch_mask):
    compiled = torch.compile(encoder, backend="eager", fullgraph=True)
    ours, eager = compiled(images, patch_mask=patch_mask), encoder(images, patch_mask=patch_mask)
    torch.testing.assert_close(ours.feature, eager.feature)
    torch.testing.assert_close(ours.masked_tokens, eager.masked_tokens)
    _assert_same_grads(_grads(encoder, ours.feature), _grads(encoder, eager.feature))


def test_bfloat16_autocast(encoder, images, patch_mask):
    encoder = encoder.float()
    images = images.float()
    exact = encoder(images, patch_mask=patch_mask)
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder(images, patch_mask=patch_mask)
    for ours, reference in ((rough.feature, exact.feature), (rough.masked_tokens, exact.masked_tokens)):
        error = (ours.float() - reference).norm() / reference.norm()
        assert 0 < error < 0.05
    rough.feature.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters() if parameter.grad is not None)
