"""Face parser and face aligner."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from farl_lightning.errors import ConfigError
from farl_lightning.functional.heatmaps import denormalize_points
from farl_lightning.models.config import DenseConfig, ImageEncoderConfig, resolve_taps
from farl_lightning.models.dense import FaceAligner, FaceParser
from tests.models import dense
from tests.models.conftest import shake


@pytest.fixture
def parser() -> FaceParser:
    torch.manual_seed(0)
    return shake(FaceParser(dense.tiny(), 5)).double().eval()


@pytest.mark.parametrize(("patch_size", "image_size"), [(8, 64), (16, 64), (14, 42)])
@pytest.mark.parametrize("shape", [(64, 64), (50, 71)])
def test_parser_values(patch_size, image_size, shape):
    torch.manual_seed(0)
    network = shake(FaceParser(dense.tiny(image_size, patch_size, taps=(0, 3, -3, 2)), 5)).double().eval()
    assert network.taps == (0, 3, 1, 2)
    images = torch.randn(2, 3, *shape, dtype=torch.float64)
    plain = dense.logits(network, images)
    torch.testing.assert_close(network.logits(images), plain)
    torch.testing.assert_close(network(images), dense.up(plain, shape))
    torch.testing.assert_close(network(images, 33), dense.up(plain, (33, 33)))
    torch.testing.assert_close(network(images, (20, 31)), dense.up(plain, (20, 31)))


def test_every_parameter_has_a_gradient_and_the_right_one(parser):
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    grads = []
    for run in (parser.logits, lambda images: dense.logits(parser, images)):
        parser.zero_grad()
        run(images).square().sum().backward()
        grads.append({name: parameter.grad for name, parameter in parser.named_parameters()})
    for name, grad in grads[0].items():
        assert grad is not None, f"{name} is not used: training on several devices would stop"
        torch.testing.assert_close(grad, grads[1][name], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("activation", ["sigmoid", "sigmoid_x", "relu"])
def test_aligner_reads_points_off_its_heatmaps(activation):
    torch.manual_seed(0)
    network = FaceAligner(dense.tiny(), 3, activation).double().eval()
    logits = torch.full((1, 3, 16, 16), -14.0, dtype=torch.float64)
    logits[0, 0, 4, 11] = logits[0, 1, 0, 0] = logits[0, 2, 15, 3] = 40.0
    network.head = nn.Identity()
    network.neck = nn.Identity()
    network.tap_maps = lambda images: logits
    points, raw = network(torch.zeros(1, 3, 80, 80, dtype=torch.float64))
    assert raw is logits
    pixels = denormalize_points(points, (80, 80))[0]
    expected = torch.tensor([[57.0, 22.0], [2.0, 2.0], [17.0, 77.0]], dtype=torch.float64)
    assert (pixels - expected).abs().max() < 0.02  # the sigmoid of -14 still has a little mass


@pytest.mark.parametrize("mode", ["finetune", "linear"])
def test_heatmaps_begin_nearly_empty(mode):
    torch.manual_seed(0)
    network = FaceAligner(dense.tiny(), 3).set_tuning(mode).train()
    mass = network(torch.randn(8, 3, 64, 64)).logits.sigmoid()
    assert 0.002 < mass.mean() < 0.1
    assert FaceAligner(dense.tiny(), 3, "relu").head.classify.bias.abs().max() < 1  # empty, it would never learn


def test_points_stay_precise_under_autocast():
    torch.manual_seed(0)
    network, images = FaceAligner(dense.tiny(), 3).eval(), torch.randn(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(images)
    assert output.logits.dtype == torch.bfloat16
    assert output.points.dtype == torch.float32
    torch.testing.assert_close(output.points, network(images).points, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("depth", "taps"),
    [
        (12, (3, 5, 7, 11)),
        (24, (7, 11, 15, 23)),
        (32, (8, 14, 20, 31)),
        (8, (1, 3, 5, 7)),
        (6, (1, 2, 4, 5)),
        (2, (0, 0, 1, 1)),
        (1, (0, 0, 0, 0)),
    ],
)
def test_usual_taps(depth, taps):
    assert resolve_taps(None, depth) == taps


def test_blocks_behind_the_last_tap_are_not_there():
    network = FaceParser(dense.tiny(taps=(0, 1, 1, 2)), 5)
    assert network.encoder.depth == len(network.encoder.vit.blocks) == 3
    assert sorted(set(network.layer_groups().values())) == [0, 1, 2, 3, 4]
    assert network.layer_groups()["encoder.vit.blocks.2.mlp.fc1.bias"] == 3
    assert network.layer_groups()["encoder.vit.pos_embed"] == 0
    assert network.layer_groups()["head.classify.bias"] == 4
    assert network.no_weight_decay() == {"encoder.vit.pos_embed", "encoder.vit.cls_token"}


def test_grad_checkpointing_changes_no_gradient(parser):
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    grads = []
    for enable in (False, True):
        parser.zero_grad()
        parser.encoder.train()
        parser.set_grad_checkpointing(enable)
        parser(images).square().sum().backward()
        grads.append(parser.encoder.vit.patch_embed.proj.weight.grad.clone())
    torch.testing.assert_close(*grads)


def test_one_picture_can_be_trained_on():
    FaceParser(dense.tiny(), 2).train()(torch.randn(1, 3, 64, 64)).sum().backward()


def test_synchronised_norms_have_the_same_names_and_numbers(parser):
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    before = parser(images)
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(FaceParser(dense.tiny(), 5)).double().eval()
    synchronised.load_state_dict(parser.state_dict())
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in synchronised.modules()) == 12
    torch.testing.assert_close(synchronised(images), before)
    parser.load_state_dict(synchronised.state_dict())


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "deit_tiny_patch16_224", "eva02_tiny_patch14_224", "vit_small_patch32_224"]
)
def test_other_towers_of_timm(name):
    image = ImageEncoderConfig(name=name, image_size=112 if "14" in name else 128, depth=4)
    network = FaceParser(DenseConfig(image, channels=8), 3).train()
    assert network(torch.randn(2, 3, 60, 60)).shape == (2, 3, 60, 60)
    network.set_tuning("frozen")
    network(torch.randn(2, 3, 60, 60)).sum().backward()


@pytest.mark.parametrize(
    ("config", "outputs", "message"),
    [
        (dense.tiny(taps=(0, 1, 2)), 2, r"taps \(0, 1, 2\): the pyramid reads 4 blocks"),
        (dense.tiny(taps=(0, 1, 2, 4)), 2, "tap 4 does not exist; the encoder has blocks 0 to 3"),
        (dense.tiny(taps=()), 2, "taps is empty"),
        (dense.tiny(image_size=24), 2, "image_size 24 is 3 patches; the pyramid for patches of 8 pixels needs 4"),
        (dense.tiny(), 0, "FaceParser needs 1 or more outputs; got 0"),
    ],
)
def test_what_does_not_fit(config, outputs, message):
    with pytest.raises(ConfigError, match=message):
        FaceParser(config, outputs)


def test_unknown_activation_and_plain_settings():
    with pytest.raises(ConfigError, match=r"'sigmoidx' is not known. Did you mean 'sigmoid"):
        FaceAligner(dense.tiny(), 2, "sigmoidx")
    config = DenseConfig.from_dict({"image": {"width": 24, "heads": 3}, "taps": [0, 1, 2, 3], "channels": 4})
    assert config.taps == (0, 1, 2, 3)
    assert config.image == ImageEncoderConfig(width=24, heads=3)
    assert DenseConfig.from_dict({}).image.image_size == 448
    with pytest.raises(ConfigError, match=r"DenseConfig has no 'chanels'. Did you mean 'channels'"):
        DenseConfig.from_dict({"chanels": 3})
