"""One step of the running average of weights, for fixture 09."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from farl_lightning.callbacks.ema import ModelAverage
from tests.parity import Deviation, compare


def ema_deviation(data: Mapping[str, Any]) -> list[Deviation]:
    """Average the weights ``ema/online`` into ``ema/before``, and compare with ``ema/after``.

    Args:
        data: The fixture: state dicts of a linear layer and a batch norm, and ``ema/decay``.
    """
    states = {part: _state(data, f"ema/{part}/") for part in ("before", "online", "after")}
    root = nn.Module()
    root.model = _network(states["before"])
    average = ModelAverage(root.model, float(data["ema/decay"]))
    root.model.load_state_dict(states["online"])
    average.update_parameters(root)
    return [compare(f"ema/{name}", average.tensors[name], value) for name, value in states["after"].items()]


def _state(data: Mapping[str, Any], prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors below a prefix."""
    return {name[len(prefix) :]: torch.as_tensor(data[name]) for name in data if name.startswith(prefix)}


def _network(state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Build the linear layer and the batch norm of a state dict."""
    channels, width = state["0.weight"].shape
    network = nn.Sequential(nn.Linear(width, channels, bias="0.bias" in state), nn.BatchNorm1d(channels))
    network.load_state_dict(dict(state))
    return network
