"""A batch in parts has the gradients of the whole batch: values, randomness, precision, memory."""

from __future__ import annotations

import pytest
import torch

from farl_lightning.errors import ConfigError
from farl_lightning.models.config import FaceCLIPConfig, ImageEncoderConfig, TextEncoderConfig
from farl_lightning.models.face_clip import FaceCLIP
from farl_lightning.models.image_tokenizer import KMeansTokens
from farl_lightning.objectives import Contrastive, ContrastiveAccumulation, MaskedImage, Objective, PretrainModel
from farl_lightning.objectives.accumulate import split_batch, take_rows
from farl_lightning.objectives.base import ObjectiveResult
from farl_lightning.testing.memory import peak_bytes


class Spread(Objective):
    """Compares samples through tokens, clean and masked."""

    needs = frozenset({"tokens", "masked"})

    def forward(self, outputs, batch):
        assert len(outputs.patch_mask) == len(outputs.tokens) == len(batch["image"])
        mean = (outputs.tokens.mean((0, 1)) * outputs.masked_tokens.mean((0, 1))).sum()
        return ObjectiveResult(mean.square(), {"mean": mean.detach()})


def config(drop_path=0.0, width=24, depth=2):
    image = ImageEncoderConfig(image_size=32, patch_size=8, width=width, depth=depth, heads=2, drop_path=drop_path)
    text = TextEncoderConfig(context_length=8, vocab_size=64, width=16, depth=1, heads=2, eos_token_id=63)
    return FaceCLIPConfig(embed_dim=16, image=image, text=text)


def make_batch(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(1, 60, (count, 8), generator=generator)
    text[:, 6] = 63
    mask = torch.rand(count, 16, generator=generator) < torch.rand(count, 1, generator=generator)
    mask[0] = False
    image = torch.randn(count, 3, 32, 32, generator=generator)
    return {"image": image, "text": text, "patch_mask": mask, "key": [f"{i}" for i in range(count)]}


def make_model(objectives=None, dtype=torch.float64, **changes):
    torch.manual_seed(0)
    objectives = objectives or {
        "contrastive": Contrastive(0.7, form="siglip", init_bias=-3.0),
        "masked_image": MaskedImage(1.5, KMeansTokens(8)),
    }
    model = PretrainModel(FaceCLIP(config(**changes)), objectives)
    if model.needs_fit:
        model.fit(make_batch(4, seed=9)["image"])
    return model.to(dtype)


def as_double(batch):
    return {**batch, "image": batch["image"].double()}


def run(model, batch, parts, seed=5):
    """Loss, results and gradients of a step in parts."""
    model.zero_grad()
    torch.manual_seed(seed)
    result = ContrastiveAccumulation(parts)(model, batch, torch.Tensor.backward)
    result.loss.backward()
    return result, {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def assert_same(found, expected, rtol=1e-9):
    largest = max(gradient.norm() for gradient in expected.values())
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= rtol * (gradient.norm() + 1e-3 * largest), name


@pytest.mark.parametrize("count", [8, 7])
@pytest.mark.parametrize("parts", [3, 20])
def test_parts_have_the_gradients_of_the_whole(count, parts):
    model, batch = make_model(), as_double(make_batch(count))
    whole, expected = run(model, batch, 1)
    result, found = run(model, batch, parts)
    assert_same(found, expected)
    torch.testing.assert_close(result.loss, whole.loss, rtol=1e-12, atol=0)
    assert list(result.results) == list(whole.results)
    for name, part in whole.results.items():
        torch.testing.assert_close(result.results[name].loss, part.loss, rtol=1e-12, atol=0)
        torch.testing.assert_close(result.results[name].logs, part.logs, rtol=1e-6, atol=0)
    assert 0 < whole.results["masked_image"].logs["accuracy"] < 1


@pytest.mark.parametrize(
    "objectives",
    [
        {"mim": MaskedImage(target=KMeansTokens(8))},  # nothing compares samples: plain micro-batches
        {"itc": Contrastive()},
        {"itc": Contrastive(chunk_rows=3), "spread": Spread(0.1), "mim": MaskedImage(target=KMeansTokens(8))},
    ],
)
def test_any_mix_of_objectives(objectives):
    model, batch = make_model(objectives), as_double(make_batch(6))
    expected = run(model, batch, 1)[1]
    assert_same(run(model, batch, 3)[1], expected)


def test_both_passes_draw_the_same_random_numbers():
    model, batch, parts = make_model(drop_path=0.4), as_double(make_batch(8)), 4
    found = run(model, batch, parts)[1]
    model.zero_grad()
    torch.manual_seed(5)
    outputs = [model.run_passes(part, model.needs) for part in split_batch(batch, parts)]
    joined = {
        name: torch.cat([getattr(output, name) for output in outputs])
        for name in ("image_features", "text_features", "masked_tokens", "patch_mask")
    }
    union = outputs[0]._replace(**joined)
    model.weighted_loss({name: model.objective(name)(union, batch) for name in model.objectives}).backward()
    assert_same(found, {name: parameter.grad for name, parameter in model.named_parameters()})
    other = run(model, batch, parts, seed=6)[1]
    proj = "clip.image_encoder.proj"
    assert not torch.allclose(other[proj], found[proj])


@pytest.mark.parametrize(("drop_path", "expected"), [(0.0, 2 * [2, 2, 4, 4]), (0.4, [2, 2, *8 * [4]])])
def test_the_first_pass_leaves_masked_pictures_out_unless_the_network_draws(drop_path, expected):
    model, batch, rows = make_model(drop_path=drop_path), as_double(make_batch(4)), []
    model.clip.image_encoder.vit.blocks[0].register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    step = ContrastiveAccumulation(2)
    for _ in range(2):  # that it draws is found out once
        step(model, batch, torch.Tensor.backward).loss.backward()
    assert rows == expected


def test_autocast_trains_every_parameter():
    model, batch = make_model(dtype=torch.float32), make_batch(8)

    def gradients(parts):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return run(model, batch, parts)[1]

    expected, found = gradients(1), gradients(4)
    assert_same(found, expected, rtol=0.05)
    names = [name for name, gradient in expected.items() if gradient.norm() > 0]
    assert all(found[name].norm() > 0 for name in names)


def test_a_frozen_tower_is_no_obstacle():
    model, batch = make_model({"itc": Contrastive()}), as_double(make_batch(6))
    model.clip.image_encoder.requires_grad_(False)
    expected = run(model, batch, 1)[1]
    assert_same(run(model, batch, 3)[1], expected)
    assert not any("image_encoder" in name for name in expected)


def test_activations_in_memory_are_those_of_one_part():
    model, batch = make_model(dtype=torch.float32, depth=4, width=48), make_batch(64)
    run(model, batch, 8)  # gradients exist from now on, in both measurements
    peaks = {parts: peak_bytes(lambda parts=parts: run(model, batch, parts)) for parts in (1, 8)}
    assert peaks[1] > 3 * peaks[8]


def test_split_keeps_order_and_what_is_not_per_sample():
    batch = make_batch(7) | {"dropped": [{"key": "x"}] * 7, "labels": torch.arange(7)}
    parts = split_batch(batch, 3)
    assert [part["key"] for part in parts] == [["0", "1"], ["2", "3", "4"], ["5", "6"]]
    assert torch.equal(torch.cat([part["labels"] for part in parts]), batch["labels"])
    assert all(len(part["dropped"]) == 7 for part in parts)
    kept = take_rows(batch, batch["labels"] > 4)
    assert kept["key"] == ["5", "6"]
    assert torch.equal(kept["image"], batch["image"][5:])


def test_no_parts_are_refused():
    with pytest.raises(ConfigError, match="accumulate_contrastive is 0, it must be 1 or more"):
        ContrastiveAccumulation(0)
