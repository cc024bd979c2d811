"""The masked image objective: targets, selection of patches, fitting, frozen networks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from farl_lightning.errors import ConfigError
from farl_lightning.models.face_clip import FaceCLIP
from farl_lightning.models.image_tokenizer import DVAETokens, KMeansTokens, PixelTarget
from farl_lightning.objectives import MaskedImage, PretrainModel
from farl_lightning.testing.models import tiny_config, write_random_codebook
from farl_lightning.types import FaceSpec


def _batch(count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(count, 16, generator=generator) < 0.4
    mask[0] = False  # an image without a masked patch
    return {"image": torch.randn(count, 3, 32, 32, generator=generator), "patch_mask": mask}


def _model(target, **settings):
    torch.manual_seed(0)
    return PretrainModel(FaceCLIP(tiny_config()), {"mim": MaskedImage(target=target, **settings)}).eval()


def test_token_loss_is_the_mean_over_masked_patches():
    model, batch = _model(KMeansTokens(vocab_size=8, iterations=2)), _batch()
    model.fit(batch["image"])
    result = model(batch).results["mim"]
    objective, mask = model.objectives["mim"], batch["patch_mask"]
    tokens = model.clip(batch["image"], patch_mask=mask).masked_tokens
    logits = objective.head(tokens)[mask]  # from all positions, then selected
    targets = objective.target(batch["image"])
    torch.testing.assert_close(result.loss, F.cross_entropy(logits, targets[mask]))
    assert result.details["predictions"].tolist() == logits.argmax(-1).tolist()
    assert torch.equal(result.details["targets"], targets)
    assert result.logs["accuracy"] == (logits.argmax(-1) == targets[mask]).float().mean()


def test_pixel_loss_is_the_mean_over_masked_patches():
    model, batch = _model(PixelTarget(normalize=False), depth=0), _batch()
    result = model(batch).results["mim"]
    errors = (result.details["predictions"] - result.details["targets"][batch["patch_mask"]]).square().mean()
    torch.testing.assert_close(result.loss, errors)
    assert result.logs == {}


@pytest.mark.parametrize("target", [KMeansTokens(vocab_size=8, iterations=2), PixelTarget()])
def test_nothing_masked_gives_zero_and_gradients(target):
    model, batch = _model(target), _batch()
    model.fit(batch["image"])
    batch["patch_mask"][:] = False
    loss = model(batch).loss
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters() if p.requires_grad)


def test_a_target_that_has_seen_nothing_is_refused():
    model, batch = _model(KMeansTokens(vocab_size=8)), _batch()
    assert model.needs_fit
    with pytest.raises(ConfigError, match=r"KMeansTokens has not seen any images yet: call fit\(images\)"):
        model(batch)
    model.fit(batch["image"])
    assert not model.needs_fit
    model(batch)


def test_a_fitted_codebook_is_saved_and_survives_a_new_specification():
    model, batch = _model(KMeansTokens(vocab_size=8)), _batch()
    model.fit(batch["image"])
    before = model(batch).loss
    model.set_spec(FaceSpec(image_size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
    torch.testing.assert_close(model(batch).loss, before)
    fresh = _model(KMeansTokens(vocab_size=8))
    fresh.load_state_dict(model.state_dict())
    assert not fresh.needs_fit
    torch.testing.assert_close(fresh(batch).loss, before)


def test_a_frozen_target_network_is_neither_trained_nor_saved(tmp_path):
    model, batch = _model(DVAETokens(str(write_random_codebook(tmp_path)))), _batch()
    objective = model.objectives["mim"]
    assert not any("target" in name for name, _ in model.named_parameters())
    assert not any("target" in name for name in model.state_dict())
    result = model(batch).results["mim"]
    assert result.details["targets"].shape == (3, 16)
    assert objective.head.head.out_features == objective.target.out_features == 64
    result.loss.backward()
    assert objective.head.head.weight.grad.abs().sum() > 0


def test_default_target_and_settings_as_plain_data():
    objective = MaskedImage(weight=2.0)
    assert isinstance(objective.target, KMeansTokens)
    config = MaskedImage(target=PixelTarget(normalize=False), depth=3).to_config()
    assert config["init_args"] == {
        "weight": 1.0,
        "target": {
            "class_path": "farl_lightning.models.image_tokenizer.PixelTarget",
            "init_args": {"normalize": False},
        },
        "depth": 3,
    }
