"""Networks built from the arrays of a fixture, through the layouts that files have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from farl_lightning.models.config import FaceCLIPConfig
from farl_lightning.models.face_clip import FaceCLIP
from farl_lightning.models.layout import HEAD, to_file, to_ours
from farl_lightning.models.masked_image import MaskedImageHead
from tests.parity import Deviation, compare_grad, tensor


def file_state(data: Mapping[str, Any], prefix: str = "w/", rename: str = "") -> dict[str, Tensor]:
    """Return the arrays under a prefix by the names that a weights file gives them."""
    return {rename + name[len(prefix) :]: tensor(data[name]) for name in data if name.startswith(prefix)}


def build(config: FaceCLIPConfig, state: dict[str, Tensor]) -> FaceCLIP:
    """Build both towers and load every weight of a file's layout that is theirs."""
    ours, unknown = to_ours(state)
    if unknown:
        raise ValueError(f"unknown names: {unknown}")
    clip = FaceCLIP(config, mask_token="visual.mask_token" in state)
    own = {name: value for name, value in ours.items() if not name.startswith(HEAD)}
    if config.text is None:
        own.pop("logit_scale", None)
    clip.load_state_dict(own)
    return clip


def build_head(width: int, heads: int, depth: int, outputs: int, state: dict[str, Tensor]) -> MaskedImageHead:
    """Build and load the masked image head."""
    head = MaskedImageHead(width, heads, depth, outputs)
    ours, _ = to_ours(state)
    head.load_state_dict({name[len(HEAD) :]: value for name, value in ours.items() if name.startswith(HEAD)})
    return head


def file_grads(clip: nn.Module, head: nn.Module | None = None) -> dict[str, Tensor]:
    """Return the gradients by the names that a weights file gives the parameters."""
    grads = {name: _grad(parameter) for name, parameter in clip.named_parameters()}
    if head is not None:
        grads |= {f"{HEAD}{name}": _grad(parameter) for name, parameter in head.named_parameters()}
    return to_file(grads)


def _grad(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def compare_grads(data: Mapping[str, Any], grads: dict[str, Tensor], rename: str = "") -> list[Deviation]:
    """Compare every gradient that a fixture holds; a parameter that we do not have is an error."""
    names = [name for name in data if name.startswith("grad/")]
    return [compare_grad(name, grads[rename + name[5:]], data[name]) for name in names]
