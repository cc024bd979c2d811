from __future__ import annotations

import pytest
import torch

from farl_lightning.errors import CheckpointError, ConfigError
from farl_lightning.models import EncoderFeatures, FaceCLIP, FeatureExtractor, GlobalConfig, ImageEncoderConfig
from farl_lightning.models.attributes import FaceAttributes
from farl_lightning.models.checkpoint import save_farl
from farl_lightning.models.features import encoder_of
from farl_lightning.testing.models import random_dense_state, tiny_config
from farl_lightning.types import FaceSpec


@pytest.fixture(scope="module")
def clip() -> FaceCLIP:
    torch.manual_seed(0)
    return FaceCLIP(tiny_config(depth=3)).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_features_are_what_the_encoder_gives(clip, images):
    encoder = clip.image_encoder
    extractor = EncoderFeatures(encoder, FaceSpec(image_size=32), blocks=(0, -1), pools=("class", "mean", "max"))
    found = extractor(images)
    assert isinstance(extractor, FeatureExtractor)
    blocks = ["block0.class", "block0.mean", "block0.max", "block2.class", "block2.mean", "block2.max"]
    assert list(found) == list(extractor.names) == [*blocks, "feature"]
    with torch.no_grad():
        whole = encoder(images, taps=(0, 2))
    torch.testing.assert_close(found["feature"], whole.feature)
    torch.testing.assert_close(found["block0.class"], whole.taps[0][:, 0])
    torch.testing.assert_close(found["block2.mean"], whole.taps[1][:, 1:].mean(1))
    torch.testing.assert_close(found["block2.max"], whole.taps[1][:, 1:].max(1).values)
    assert not any(feature.requires_grad for feature in found.values())


def test_only_what_is_asked_for_is_there(clip, images):
    spec = FaceSpec(image_size=32)
    assert list(EncoderFeatures(clip.image_encoder, spec, blocks=())(images)) == ["feature"]
    assert list(EncoderFeatures(clip.image_encoder, spec, pools=("mean",), feature=False)(images)) == ["block2.mean"]
    assert list(EncoderFeatures(clip.image_encoder, spec, blocks=(2, -1), pools=("max", "max"))(images))[:-1] == [
        "block2.max"
    ]


def test_other_sizes_are_resized(clip):
    found = EncoderFeatures(clip.image_encoder, FaceSpec(image_size=48))(torch.randn(1, 3, 48, 48))
    assert found["feature"].shape == (1, 32)


def test_features_ignore_training_mode(clip, images):
    extractor = EncoderFeatures(clip.image_encoder, FaceSpec(image_size=32))
    assert not extractor.train().encoder.training


def test_a_pretrained_file_gives_the_same_features(tmp_path, clip, images):
    spec = FaceSpec(image_size=32, mean=(0.5, 0.5, 0.5), std=(0.1, 0.2, 0.3))
    clip.face_spec = spec
    save_farl(tmp_path / "farl.pth", clip)
    loaded = EncoderFeatures.from_checkpoint(tmp_path / "farl.pth")
    want = EncoderFeatures(clip.image_encoder, spec)(images)
    for name, feature in loaded(images).items():
        torch.testing.assert_close(feature, want[name])
    assert loaded.spec == spec
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_downstream_file_keeps_the_blocks_that_it_reads(tmp_path, images):
    state = random_dense_state("attributes", outputs=40, depth=3, grid=4)
    torch.save(state, tmp_path / "facer.pt")
    loaded = EncoderFeatures.from_checkpoint(tmp_path / "facer.pt")
    assert loaded.names == ("block2.class", "block2.mean")
    network = FaceAttributes.from_checkpoint(tmp_path / "facer.pt")
    (tokens,) = network.tap_tokens(images)
    torch.testing.assert_close(loaded(images)["block2.class"], tokens[:, 0])
    with pytest.raises(ConfigError, match="no projection"):
        EncoderFeatures.from_checkpoint(tmp_path / "facer.pt", feature=True)


def test_a_task_of_ours_says_how_its_faces_are_cropped(tmp_path):
    spec = FaceSpec(image_size=32, crop="align", template=((0.0, 0.0),) * 5, attributes=("a", "b"))
    config = GlobalConfig(ImageEncoderConfig(image_size=32, patch_size=8, width=48, depth=3, heads=3), taps=(1,))
    network = FaceAttributes(config, 2)
    plain = {
        "network": {"image": vars(config.image), "taps": [1]},
        "num_attributes": 2,
    }
    content = {
        "state_dict": {f"model.{name}": value for name, value in network.state_dict().items()},
        "hyper_parameters": plain,
        "face_spec": spec.to_dict(),
    }
    torch.save(content, tmp_path / "task.ckpt")
    loaded = EncoderFeatures.from_checkpoint(tmp_path / "task.ckpt")
    assert loaded.spec == spec
    assert loaded.names == ("block1.class", "block1.mean")


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"pools": ("maen",)}, "Did you mean 'mean'"),
        ({"blocks": (3,)}, "blocks 0 to 2"),
        ({"blocks": (), "feature": False}, "no feature is asked for"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(clip, wish, said):
    with pytest.raises(ConfigError, match=said):
        EncoderFeatures(clip.image_encoder, FaceSpec(), **wish)


def test_files_without_a_tower_are_refused(tmp_path):
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError):
        EncoderFeatures.from_checkpoint(tmp_path / "other.pt")


def test_the_tower_of_a_network_is_found(clip):
    assert encoder_of(clip) is clip.image_encoder
    with pytest.raises(ConfigError, match="0 image encoders"):
        encoder_of(torch.nn.Linear(1, 1))
