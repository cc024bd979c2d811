"""The contrastive objective: numbers, temperature limits, the sigmoid form."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from farl_lightning.errors import ConfigError
from farl_lightning.losses import clip_loss, siglip_loss
from farl_lightning.models.face_clip import FaceCLIPOutput
from farl_lightning.objectives import Contrastive
from farl_lightning.objectives.contrastive import bounded


def _outputs(log_scale=2.0, count=6):
    generator = torch.Generator().manual_seed(0)
    image, text = (3 * torch.randn(count, 5, generator=generator) for _ in range(2))
    scale = torch.tensor([log_scale], requires_grad=True)
    return FaceCLIPOutput(image, text, None, None, None, (), scale)


def test_features_are_normalised_and_the_scale_exponentiated():
    outputs = _outputs()
    result = Contrastive()(outputs, {})
    image, text = F.normalize(outputs.image_features), F.normalize(outputs.text_features)
    torch.testing.assert_close(result.loss, clip_loss(image, text, torch.tensor(math.exp(2.0))))
    hits = ((image @ text.T).argmax(1) == torch.arange(6)).float().mean()
    assert result.logs["accuracy"] == hits
    assert result.logs["logit_scale"].item() == pytest.approx(math.exp(2.0))
    assert not any(value.requires_grad for value in result.logs.values())


def test_sigmoid_form_owns_a_bias():
    objective = Contrastive(form="siglip", init_bias=-4.0)
    outputs = _outputs()
    result = objective(outputs, {})
    image, text = F.normalize(outputs.image_features), F.normalize(outputs.text_features)
    expected = siglip_loss(image, text, torch.tensor(math.exp(2.0)), torch.tensor(-4.0))
    torch.testing.assert_close(result.loss, expected)
    result.loss.backward()
    assert objective.logit_bias.grad.abs() > 0
    assert [name for name, _ in objective.named_parameters()] == ["logit_bias"]
    assert not list(Contrastive().parameters())


@pytest.mark.parametrize("form", ["clip", "siglip"])
def test_chunks_change_nothing(form):
    found = []
    for chunk_rows in (None, 4):
        objective, outputs = Contrastive(form=form, init_bias=-4.0, chunk_rows=chunk_rows).double(), _outputs()
        leaves = [x.detach().double().requires_grad_() for x in (outputs.image_features, outputs.text_features)]
        scale = outputs.logit_scale.detach().double().requires_grad_()
        result = objective(FaceCLIPOutput(*leaves, None, None, None, (), scale), {})
        result.loss.backward()
        grads = [x.grad for x in (*leaves, scale, *objective.parameters())]
        found.append([result.loss.detach(), result.logs["accuracy"], *grads])
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("log_scale", "expected"), [(9.0, 100.0), (-3.0, 1.0), (math.log(50), 50.0)])
def test_scale_is_clamped(log_scale, expected):
    assert Contrastive()(_outputs(log_scale), {}).logs["logit_scale"].item() == pytest.approx(expected, rel=1e-5)


def test_a_scale_outside_its_limits_finds_back():
    x = torch.tensor([-1.0, -1.0, 0.5, 0.5, 2.0, 2.0], requires_grad=True)
    value = bounded(x, 0.0, 1.0)
    assert value.tolist() == [0, 0, 0.5, 0.5, 1, 1]
    (value * torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])).sum().backward()
    assert x.grad.tolist() == [0, -1, 1, -1, 1, 0]  # descent moves against the gradient


def test_training_at_the_limit_stays_there():
    scale = torch.nn.Parameter(torch.tensor([math.log(99)]))
    features = torch.eye(4)  # perfect pairs always ask for a larger scale
    optimizer = torch.optim.SGD([scale], lr=1e38)
    for _ in range(3):
        outputs = FaceCLIPOutput(features, features + 0.1, None, None, None, (), scale)
        result = Contrastive(max_scale=100.0)(outputs, {})
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
    assert result.logs["logit_scale"].item() == pytest.approx(100, rel=1e-5)
    assert scale.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"form": "siglipp"}, "Did you mean 'siglip'"),
        ({"max_scale": 0.5}, "max_scale=0.5"),
        ({"chunk_rows": 0}, "chunk_rows=0 must be 1 or more"),
        ({"weight": -1.0}, "weight -1.0"),
    ],
)
def test_mistakes_are_explained(settings, message):
    with pytest.raises(ConfigError, match=message):
        Contrastive(**settings)


def test_settings_are_kept_as_plain_data():
    assert Contrastive(0.5, form="siglip").to_config() == {
        "class_path": "farl_lightning.objectives.contrastive.Contrastive",
        "init_args": {"weight": 0.5, "form": "siglip", "max_scale": 100.0, "init_bias": -10.0, "chunk_rows": None},
    }
