"""Counts against the networks themselves: parameters exactly, operations as torch counts them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from farl_lightning.models.config import FaceCLIPConfig, ImageEncoderConfig, TextEncoderConfig
from farl_lightning.models.face_clip import FaceCLIP
from farl_lightning.models.image_tokenizer import KMeansTokens, PixelTarget
from farl_lightning.objectives import Contrastive, MaskedImage, PretrainModel
from farl_lightning.planning import forward_flops, parameter_units, read_workload, step_flops
from farl_lightning.planning.arithmetic import (
    CODEBOOK_FLOPS,
    CODEBOOK_PARAMETERS,
    Collective,
    collectives,
)

IMAGE = {"image_size": 64, "patch_size": 16, "width": 48, "depth": 3, "heads": 2}
TEXT = {"context_length": 16, "vocab_size": 100, "width": 32, "depth": 2, "heads": 2, "eos_token_id": 99}


def settings(objectives=None, image=None, text=TEXT, embed_dim=24, **model):
    clip = {"embed_dim": embed_dim, "image": image or IMAGE, "text": text}
    arguments = {"clip": clip, "objectives": objectives, **model}
    return {
        "model": {"class_path": "PretrainTask", "init_args": arguments},
        "data": {"init_args": {"batch_size": 4, "transform": {"num_masked": 6}}},
    }


def mim(target="KMeansTokens", depth=1, **arguments):
    return {
        "class_path": "MaskedImage",
        "init_args": {"depth": depth, "target": {"class_path": target, "init_args": arguments}},
    }


def build(objectives, image=None, text=TEXT, device="meta"):
    config = FaceCLIPConfig(24, ImageEncoderConfig(**(image or IMAGE)), text and TextEncoderConfig(**text))
    with torch.device(device):
        clip = FaceCLIP(config, mask_token=any(isinstance(o, MaskedImage) for o in objectives.values()))
        return PretrainModel(clip, objectives)


def counts(work):
    units = parameter_units(work)
    return sum(u.total for u in units if u.trainable), sum(u.total for u in units if not u.trainable)


@pytest.mark.parametrize(
    ("given", "objectives"),
    [
        ({"a": "Contrastive"}, lambda: {"a": Contrastive()}),
        (
            {"a": {"class_path": "Contrastive", "init_args": {"form": "siglip"}}},
            lambda: {"a": Contrastive(form="siglip")},
        ),
        ({"m": mim("PixelTarget", 2)}, lambda: {"m": MaskedImage(target=PixelTarget(), depth=2)}),
        (
            {"a": "Contrastive", "m": mim(vocab_size=30)},
            lambda: {"a": Contrastive(), "m": MaskedImage(target=KMeansTokens(30))},
        ),
        ({"m": mim(vocab_size=30, depth=0)}, lambda: {"m": MaskedImage(target=KMeansTokens(30), depth=0)}),
    ],
    ids=["contrast", "siglip", "pixels", "farl", "no block"],
)
@pytest.mark.parametrize("image", [IMAGE, IMAGE | {"name": "vit_small_patch16_224"}], ids=["clip", "plain"])
def test_parameters_are_exact(given, objectives, image):
    model = build(objectives(), image, device="cpu")
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert counts(read_workload(settings(given, image))) == (trainable, frozen)


@pytest.mark.parametrize("name", ["tiny", "small", "base", "large"])
def test_named_architectures_are_exact(name):
    image = {"name": f"vit_{name}_patch16_224"}
    with torch.device("meta"):
        clip = FaceCLIP(FaceCLIPConfig(image=ImageEncoderConfig(**image)), mask_token=False)
    work = read_workload(settings({"a": "Contrastive"}, image, text={}, embed_dim=512))
    assert counts(work)[0] == sum(p.numel() for p in clip.parameters())


def batch(count=4):
    mask = torch.zeros(count, 16, dtype=torch.bool)
    mask[:, :6] = True
    text = torch.randint(98, (count, 16))
    text[:, -1] = 99
    return {"image": torch.randn(count, 3, 64, 64), "text": text, "patch_mask": mask, "key": [""] * count}


def farl(depth=1):
    tokens = KMeansTokens(30)
    model = build({"a": Contrastive(), "m": MaskedImage(target=tokens, depth=depth)}, device="cpu")
    model.fit(torch.randn(30, 3, 64, 64))
    return model.train()


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_operations_are_those_that_torch_counts(depth, checkpointing):
    model, work = (
        farl(depth),
        read_workload(
            settings({"a": "Contrastive", "m": mim(vocab_size=30, depth=depth)}, grad_checkpointing=checkpointing)
        ),
    )
    model.clip.set_grad_checkpointing(checkpointing)
    model.objectives["m"].head.set_grad_checkpointing(checkpointing)
    target = model.objectives["m"].target
    tokens = target(batch()["image"])
    target.forward = lambda images: tokens  # k-means is not counted
    with FlopCounterMode(display=False) as forward:
        result = model(batch())
    with FlopCounterMode(display=False) as backward:
        result.loss.backward()
    assert forward.get_total_flops() / 4 == pytest.approx(forward_flops(work).forward, rel=0.01)
    total = (forward.get_total_flops() + backward.get_total_flops()) / 4
    assert total == pytest.approx(step_flops(work)[0], rel=0.03)


def test_the_codebook_is_counted_as_torch_counts_it():
    from transformers import FlavaImageCodebook, FlavaImageCodebookConfig

    with torch.device("meta"):
        network, image = FlavaImageCodebook(FlavaImageCodebookConfig()), torch.zeros(1, 3, 112, 112)
    assert sum(p.numel() for p in network.parameters()) == CODEBOOK_PARAMETERS
    with FlopCounterMode(display=False) as counter:
        network.get_codebook_indices(image)
    assert counter.get_total_flops() == CODEBOOK_FLOPS * 196


def test_the_wire_by_hand():
    assert Collective("g", "all-reduce", 100.0, True).wire(4) == 150
    assert Collective("g", "all-gather", 100.0, True).wire(4) == 75
    work = read_workload(settings({"a": "Contrastive"}))
    trainable = counts(work)[0]
    gradients, features, back = collectives(work, 2, sharded=False)
    assert gradients == ("gradients", "all-reduce", 4.0 * trainable, True)
    assert features.payload == back.payload == 2 * 8 * 24 * 4  # two towers, 8 pairs, 24 channels
    assert collectives(work, 1, sharded=False) == collectives(work, 1, sharded=True) == []
    parameters, scattered, *_ = collectives(dataclasses.replace(work, half=True), 2, sharded=True)
    blocks = sum(u.total for u in parameter_units(work) if u.is_block)
    assert scattered.payload == 4 * trainable
    assert parameters.payload == 2 * (2 * blocks + 4 * (trainable - blocks)) - 4  # the temperature is gathered once
    parts = collectives(dataclasses.replace(work, micro_batches=3), 2, sharded=True)
    assert parts[0].payload == 3 * (3 * 4 * trainable - 2 * 4)  # embedded, then forward and backward, three times
    assert parts[1].payload == 3 * 4 * trainable
