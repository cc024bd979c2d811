"""Contrastive losses and raw per-rank gradients over one and several processes, against open_clip's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from farl_lightning.functional.distributed import rank, world_size
from farl_lightning.losses.contrastive import clip_loss, siglip_loss
from farl_lightning.testing.distributed import run_distributed
from tests.parity import Deviation, compare, compare_grad, fixture, tensor

PARTS = ("loss", "grad_image", "grad_text", "grad_logit_scale", "grad_logit_bias")


def _run(form: str, inputs: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
    """Return the loss of this process's pairs and its raw gradients, before any averaging."""
    image, text, scale, bias = inputs
    own = slice(rank() * len(image) // world_size(), (rank() + 1) * len(image) // world_size())
    leaves = [x.clone().requires_grad_() for x in (image[own], text[own], scale, bias)]
    loss = clip_loss(*leaves[:3]) if form == "clip" else siglip_loss(*leaves)
    loss.backward()
    gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
    return dict(zip(PARTS, [loss.detach(), *gradients], strict=False))


def _inputs(data: Mapping[str, Any], group: str) -> tuple[torch.Tensor, ...]:
    """Read the joint batch of one group of results."""
    names = (f"{group}/image", f"{group}/text", "logit_scale", "logit_bias")
    return tuple(tensor(data[name], torch.float64) for name in names)


def _compare_parts(prefix: str, suffix: str, ours: dict[str, torch.Tensor], data: Mapping[str, Any]) -> list[Deviation]:
    """Compare every part of a result that a loss has."""
    measured = []
    for part, value in ours.items():
        name = f"{prefix}/{part}{suffix}"
        measured.append((compare if part == "loss" else compare_grad)(name, value, data[name]))
    return measured


def _check_joint(data: Mapping[str, Any], group: str, ours: dict[str, torch.Tensor]) -> list[Deviation]:
    """What DDP makes of the ranks' results must be the answer of one process on the joint batch."""
    processes = len(ours["loss"])
    prefix = f"{group}/global_single_process"
    return [
        compare(f"{group}: mean of losses", ours["loss"].mean(), data[f"{prefix}/clip_loss"]),
        compare_grad(f"{group}: image", ours["grad_image"].flatten(0, 1) / processes, data[f"{prefix}/grad_image"]),
        compare_grad(f"{group}: text", ours["grad_text"].flatten(0, 1) / processes, data[f"{prefix}/grad_text"]),
        compare_grad(f"{group}: scale", ours["grad_logit_scale"].mean(), data[f"{prefix}/grad_logit_scale"]),
    ]


def _check_world(data: Mapping[str, Any], group: str, modes: set[str]) -> list[Deviation]:
    """Run one number of processes for real and compare with the exchanges that are exact."""
    inputs = _inputs(data, group)
    measured = []
    for form in ("clip", "siglip"):
        ranks = run_distributed(_run, int(group.removeprefix("world")), form, inputs)
        ours = {part: torch.stack([result[part] for result in ranks]) for part in ranks[0]}
        if form == "clip":
            exact = ["clip_local1_gradgather1"]
            measured += _check_joint(data, group, ours)
        else:
            exact = sorted({"siglip_gather"} | {mode for mode in modes if mode.startswith("siglip_")})
        for mode in exact:
            measured += _compare_parts(f"{group}/{mode}", "_per_rank", ours, data)
    return measured


@fixture("11_contrastive_losses")
def check(data: Mapping[str, Any]) -> list[Deviation]:
    """Compare one process, then every number of processes in the file."""
    measured = []
    for form in ("clip", "siglip"):
        measured += _compare_parts(f"single/{form}", "", _run(form, _inputs(data, "single")), data)
    for group in sorted({key.split("/")[0] for key in data if re.match(r"world\d+/", key)}):
        modes = {key.split("/")[1] for key in data if key.startswith(f"{group}/")}
        measured += _check_world(data, group, modes)
    return measured
