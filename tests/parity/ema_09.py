"""One step of the weight average."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from torch import nn

from farl_lightning.callbacks.ema import ModelAverage
from tests.parity import Deviation, compare, tensor


def ema_deviation(data: Mapping[str, Any]) -> list[Deviation]:
    """Average from one state to the next: floats (buffers as well) are averaged, integers copied.

    Args:
        data: The fixture; ``ema/before``, ``ema/online`` and ``ema/after`` are states by name.
    """
    before, online, after = (_state(data, part) for part in ("before", "online", "after"))
    model = _Model(before)
    average = ModelAverage(model, decay=float(data["ema/decay"]))
    for name, value in online.items():
        model.state[name].copy_(tensor(value))
    average.update_parameters(SimpleNamespace(model=model))  # type: ignore[arg-type]  # reads .model alone
    return [compare(f"ema/{name}", average.tensors[model.names[name]], value) for name, value in after.items()]


def _state(data: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Return one state of the file."""
    prefix = f"ema/{part}/"
    state = {name.removeprefix(prefix): data[name] for name in data if name.startswith(prefix)}
    if not state:
        raise LookupError(f"no key begins with '{prefix}'")
    return state


class _Model(nn.Module):
    """Whatever state the file has: what BatchNorm keeps as buffers is a buffer here, the rest is trained."""

    def __init__(self, state: dict[str, Any]) -> None:
        super().__init__()
        self.names = {name: name.replace(".", "_") for name in state}
        for name, value in state.items():
            value = tensor(value)
            if "running" in name or not value.is_floating_point():
                self.register_buffer(self.names[name], value)
            else:
                self.register_parameter(self.names[name], nn.Parameter(value))
        self.state = {name: self.get_parameter_or_buffer(self.names[name]) for name in state}

    def get_parameter_or_buffer(self, name: str) -> Any:
        """Return the tensor of a name, outside of the graph."""
        return self.state_dict(keep_vars=True)[name].detach()
