"""Dense networks built from the arrays of a fixture, through the layouts that files have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from farl_lightning.models import dense_layout
from farl_lightning.models.config import DenseConfig, ImageEncoderConfig

NOT_READ = dense_layout.NEVER_USED
"""Weights of the reference that no dense network reads: final norm and projection."""


def encoder_config(cfg: Any, image_size: int) -> ImageEncoderConfig:
    """Read [pretraining size, patch, width, layers, heads, ...]."""
    _, patch, width, layers, heads = (int(value) for value in cfg[:5])
    return ImageEncoderConfig(image_size=image_size, patch_size=patch, width=width, depth=layers, heads=heads)


def dense_config(data: Mapping[str, Any]) -> DenseConfig:
    """Read ``cfg`` and the taps of a task fixture."""
    cfg = data["cfg"]
    taps = tuple(int(tap) for tap in data["cfg_output_indices"])
    return DenseConfig(encoder_config(cfg, int(cfg[6])), taps, channels=int(cfg[7]))


def load_state(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Load every tensor of a file's layout; whatever is missing or left over is an error."""
    renamed = dense_layout.to_ours(state)
    if renamed.unknown:
        raise ValueError(f"unknown names: {renamed.unknown}")
    own = {name: value for name, value in renamed.state.items() if name not in NOT_READ}
    depth = len(module.encoder.vit.blocks) if hasattr(module, "encoder") else 0
    behind = [name for name in own if _block(name) >= depth > 0]
    module.load_state_dict({name: value for name, value in own.items() if name not in behind})


def _block(name: str) -> int:
    parts = name.split(".")
    return int(parts[parts.index("blocks") + 1]) if "blocks" in parts else -1


def normalize(images_hwc: Tensor, state: dict[str, Tensor]) -> Tensor:
    """Turn pictures in [0, 1], channels last, into the input of a network, with the mean and std of its file."""
    return (images_hwc.permute(0, 3, 1, 2) - state["backbone.image_mean"]) / state["backbone.image_std"]


def without_dropout(module: nn.Module) -> nn.Module:
    """Set every rate of dropout to 0, and training mode."""
    for child in module.modules():
        if isinstance(child, nn.Dropout | nn.Dropout2d):
            child.p = 0.0
    return module.train()


def pixel_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return each picture's mean cross entropy."""
    return F.cross_entropy(logits, labels.long(), reduction="none").flatten(1).mean(1)


def zeros_like_grad(parameter: Tensor) -> Tensor:
    """Return the gradient, or zeros."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
