"""How much of an encoder is trained: all of it, nothing, or low-rank adapters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from farl_lightning.errors import ConfigError, did_you_mean, require

TUNINGS = ("finetune", "frozen", "linear", "lora")
"""``finetune``: everything is trained. ``frozen``: neck and head are. ``linear``: a linear layer on the frozen
encoder's tokens is. ``lora``: low-rank adapters of the encoder are, with neck and head."""

_ADAPTER = re.compile(r"(?P<layer>.+)\.lora_(?P<side>[AB])\.[^.]+\.weight")


def check_tuning(mode: str) -> None:
    """Refuse an unknown mode.

    Raises:
        ConfigError: With the nearest one.
    """
    if mode not in TUNINGS:
        raise ConfigError(f"tuning '{mode}' is not known. {did_you_mean(mode, TUNINGS)}")


def add_lora(encoder: nn.Module, rank: int) -> None:
    """Put low-rank adapters (Hu et al., arXiv:2106.09685) beside every linear layer of the blocks, in place.

    Their sum starts at 0, so the encoder computes what it did before. They are added unscaled (alpha = rank). All
    other parameters are frozen.

    Args:
        encoder: The encoder; its blocks are found by ``blocks.<number>`` in their names.
        rank: Rank of each adapter, 1 or more.

    Raises:
        ConfigError: If the rank is below 1, or there is no linear layer.
        MissingDependencyError: If peft is not installed.
    """
    if rank < 1:
        raise ConfigError(f"LoRA rank is {rank}; it must be 1 or more, such as 8")
    targets = [name for name, layer in encoder.named_modules() if _is_target(encoder, name, layer)]
    if not targets:
        raise ConfigError(f"{type(encoder).__name__} has no linear layers in blocks, so LoRA has nothing to adapt")
    peft: Any = require("peft", "lora")
    peft.inject_adapter_in_model(peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), encoder)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_("lora_" in name)


def _is_target(encoder: nn.Module, name: str, layer: nn.Module) -> bool:
    """Whether a module is a linear layer of a block that is called (timm's Eva may use its weight alone)."""
    if not isinstance(layer, nn.Linear) or not re.search(r"(^|\.)blocks\.\d+\.", name):
        return False
    parent, _, own = name.rpartition(".")
    return not (own == "qkv" and getattr(encoder.get_submodule(parent), "q_bias", None) is not None)


@torch.no_grad()
def merge_lora(encoder: nn.Module) -> None:
    """Add the adapters of :func:`add_lora` to the weights beside them, and remove them, in place."""
    for name, layer in list(encoder.named_modules()):
        if hasattr(layer, "base_layer") and hasattr(layer, "merge"):
            layer.merge()
            parent, _, own = name.rpartition(".")
            setattr(encoder.get_submodule(parent), own, layer.base_layer)


def has_lora(names: Mapping[str, Any]) -> bool:
    """Whether a state dict has adapters."""
    return any(_ADAPTER.fullmatch(name) for name in names)


def merge_lora_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Merge adapters inside a state dict, which needs no peft: the weights of the same network without adapters.

    Args:
        state: Tensors by name; without adapters they come back as they are.
    """
    merged = {name.replace(".base_layer.", "."): value for name, value in state.items() if not _ADAPTER.fullmatch(name)}
    for name, value in state.items():
        adapter = _ADAPTER.fullmatch(name)
        if adapter is not None and adapter["side"] == "B":
            up, down = value, state[name.replace(".lora_B.", ".lora_A.")]
            weight = merged[f"{adapter['layer']}.weight"]
            merged[f"{adapter['layer']}.weight"] = (weight.float() + up.float() @ down.float()).to(weight.dtype)
    return merged
