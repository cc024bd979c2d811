"""Targets of masked image modelling."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import FlavaImageCodebook

from farl_lightning.errors import CheckpointError, ConfigError
from farl_lightning.functional.patches import patchify, unpatchify
from farl_lightning.models.image_tokenizer import DVAETokens, ImageTarget, KMeansTokens, PixelTarget
from farl_lightning.testing.models import write_random_codebook
from farl_lightning.types import CLIP_MEAN, CLIP_STD, from_config


@pytest.fixture(scope="module")
def codebook(tmp_path_factory):
    return write_random_codebook(tmp_path_factory.mktemp("codebook"))


def _normalised(*shape, seed=0):
    """Pictures of coloured squares."""
    *rest, height, width = shape
    cells = torch.rand(*rest, height // 8, width // 8, generator=torch.Generator().manual_seed(seed))
    raw = cells.repeat_interleave(8, -2).repeat_interleave(8, -1)
    return (raw - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)


def _dvae(codebook, grid=(14, 14), patch_size=16):
    target = DVAETokens(str(codebook))
    target.build(patch_size, grid, CLIP_MEAN, CLIP_STD)
    return target


def test_dvae_tokens_are_those_of_the_network(codebook):
    target, images = _dvae(codebook), _normalised(2, 3, 224, 224)
    network = FlavaImageCodebook.from_pretrained(codebook)
    tokens = target(images)
    assert tokens.shape == (2, 196)
    assert tokens.dtype == torch.int64
    assert torch.equal(tokens, network.get_codebook_indices(target.pixels(images)).flatten(1))
    assert tokens.unique().numel() > 10, "the random codebook must not answer with one token"
    assert target.out_features == 64
    assert target.is_discrete
    assert not target.needs_fit


def test_dvae_pixels():
    target = DVAETokens("unused")
    ImageTarget.build(target, 16, (2, 3), CLIP_MEAN, CLIP_STD)
    flat = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1).expand(1, 3, 32, 48)
    images = (flat - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)
    pixels = target.pixels(images)
    assert pixels.shape == (1, 3, 16, 24)
    torch.testing.assert_close(pixels[0, :, 0, 0], torch.tensor([0.1, 0.5, 0.9]))
    wild = target.pixels(100 * torch.randn(1, 3, 32, 48))
    assert wild.min() >= 0.1 - 1e-6
    assert wild.max() <= 0.9 + 1e-6


def test_dvae_other_grids(codebook):
    assert _dvae(codebook, (4, 6), 8)(_normalised(1, 3, 32, 48)).shape == (1, 24)


def test_dvae_is_frozen_and_outside_of_everything(codebook):
    target = _dvae(codebook)
    assert list(target.parameters()) == []
    assert target.state_dict() == {}
    twin = copy.deepcopy(target)
    assert twin._frozen is target._frozen, "averaging weights must not copy 54 million frozen ones"
    images = _normalised(1, 3, 224, 224).requires_grad_()
    assert not target.train()(images).requires_grad
    assert not target._frozen.network.training


def test_dvae_tokens_do_not_change_under_autocast(codebook):
    target, images = _dvae(codebook), _normalised(1, 3, 224, 224)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(target(images), target(images.float()))
    assert torch.equal(target(images), _dvae(codebook)(images))


def test_dvae_errors(tmp_path):
    with pytest.raises(
        CheckpointError, match=rf"no folder '{tmp_path}/none' \(a path\). Give a folder with config.json"
    ):
        _dvae(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"holds no FlavaImageCodebook.*KMeansTokens is the target to use"):
        _dvae(tmp_path)
    with pytest.raises(ConfigError, match=r"was not built"):
        DVAETokens(str(tmp_path))(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("./codebook", "a path"),
        ("~/no_such_codebook", "a path"),
        ("here/codebook", "a path, since there is a folder 'here'"),
        ("data/models/codebook", "and no id of the hub, which is NAME or OWNER/NAME"),
        ("my codebook", "and no id of the hub, which is NAME or OWNER/NAME"),
    ],
)
def test_what_cannot_be_on_the_hub_is_not_asked_for(tmp_path, monkeypatch, name, reason):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(FlavaImageCodebook, "from_pretrained", lambda path: pytest.fail(f"asked for {path}"))
    with pytest.raises(CheckpointError) as error:
        _dvae(name)
    assert str(error.value).startswith(f"no folder '{name}' ({reason}). Give a folder with config.json")


def test_the_hub_is_asked_for_what_it_may_hold(tmp_path, monkeypatch):
    asked = []

    def refuse(path):
        asked.append(path)
        raise OSError("no connection.\nSee the manual.")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(FlavaImageCodebook, "from_pretrained", refuse)
    for name in ("facebook/flava-image-codebook", "codebook"):
        with pytest.raises(CheckpointError, match=r"See the manual\. Give a folder") as error:
            _dvae(name)
        assert ".." not in str(error.value)
    assert asked == ["facebook/flava-image-codebook", "codebook"]


def _blobs(count=60):
    """Pictures of 2 x 2 patches, each patch one of five flat colours with a little noise."""
    generator = torch.Generator().manual_seed(0)
    colours = torch.tensor([[-2.0, 0, 0], [2, 0, 0], [0, 2, 0], [0, -2, 2], [1, 1, -2]])
    kinds = torch.randint(5, (count, 4), generator=generator)
    patches = colours[kinds].repeat(1, 1, 16) + 0.05 * torch.randn(count, 4, 48, generator=generator)
    return unpatchify(patches, (2, 2)), kinds


def _kmeans(**options):
    target = KMeansTokens(**({"vocab_size": 5, "num_patches": 240, "iterations": 10} | options))
    target.build(4, (2, 2), CLIP_MEAN, CLIP_STD)
    return target


def test_kmeans_finds_the_clusters():
    images, kinds = _blobs()
    target = _kmeans()
    assert target.needs_fit
    target.fit(images)
    assert not target.needs_fit
    tokens = target(images)
    assert tokens.shape == (60, 4)
    pairs = {(int(a), int(b)) for a, b in zip(tokens.flatten(), kinds.flatten(), strict=True)}
    assert len(pairs) == 5, "each token stands for one colour, and each colour for one token"
    shown = target.to_patches(tokens, images)
    assert (shown - patchify(images, 4)).abs().max() < 0.3


def test_kmeans_is_repeatable_and_saved():
    images, _ = _blobs()
    first, second = _kmeans(vocab_size=20), _kmeans(vocab_size=20)
    first.fit(images)
    second.fit(images)
    assert torch.equal(first.codebook, second.codebook)
    loaded = _kmeans(vocab_size=20)
    loaded.load_state_dict(first.state_dict())
    assert not loaded.needs_fit
    assert torch.equal(loaded(images), first(images))
    other = _kmeans(vocab_size=20, seed=1)
    other.fit(images)
    assert not torch.equal(other.codebook, first.codebook)


def test_kmeans_tokens_are_the_nearest_centres():
    images, _ = _blobs()
    target = _kmeans(vocab_size=30)
    target.fit(images)
    nearest = torch.cdist(patchify(images, 4), target.codebook).argmin(-1)
    assert (target(images) == nearest).all()
    assert target(images).unique().numel() >= 20, "no cluster may run empty for long"


def test_kmeans_with_fewer_patches_than_clusters():
    with pytest.raises(ConfigError, match=r"4 patches cannot make 5 clusters"):
        _kmeans().fit(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ConfigError, match=r"needs positive numbers"):
        KMeansTokens(vocab_size=0)


def test_kmeans_on_identical_patches_does_not_fail():
    target = _kmeans()
    target.fit(torch.ones(10, 3, 8, 8))
    assert target.codebook.isfinite().all()


def test_pixels_by_hand():
    images = torch.arange(48.0).view(1, 3, 4, 4)
    target = PixelTarget()
    target.build(4, (1, 1), CLIP_MEAN, CLIP_STD)
    patch = images.permute(0, 2, 3, 1).reshape(48)
    expected = (patch - 23.5) / (patch.var() + 1e-6).sqrt()
    assert target.out_features == 48
    assert not target.is_discrete
    torch.testing.assert_close(target(images)[0, 0], expected)
    torch.testing.assert_close(target.to_patches(target(images), images)[0, 0], patch)
    raw = PixelTarget(normalize=False)
    raw.build(4, (1, 1), CLIP_MEAN, CLIP_STD)
    assert torch.equal(raw(images)[0, 0], patch)


@pytest.mark.parametrize("target", [DVAETokens("folder"), KMeansTokens(32, seed=4), PixelTarget(normalize=False)])
def test_targets_are_saved_as_plain_data(target):
    twin = from_config(target.to_config(), ImageTarget)
    assert type(twin) is type(target)
    assert twin.to_config() == target.to_config()


def test_own_targets_need_a_forward():
    class Lazy(ImageTarget):
        pass

    with pytest.raises(NotImplementedError, match=r"Lazy must implement forward"):
        Lazy()(torch.zeros(1))
    assert Lazy().to_patches(torch.zeros(1), torch.zeros(1)) is None
