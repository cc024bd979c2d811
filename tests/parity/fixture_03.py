"""The UPerNet head: logits in both modes, gradients, running statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from farl_lightning.models import dense_layout
from farl_lightning.models.upernet import UPerHead
from tests.parity import Deviation, compare, compare_grad, fixture, tensor
from tests.parity.dense import without_dropout
from tests.parity.towers import file_state

_TRAIN = "out_train_nodropout/"


@fixture("03_uperhead")
def check(data: Mapping[str, Any]) -> list[Deviation]:
    """The number of levels and every width are read off the arrays."""
    renamed = dense_layout.to_ours(file_state(data))
    if renamed.unknown:
        raise ValueError(f"unknown names: {renamed.unknown}")
    state = {name.removeprefix("head."): value for name, value in renamed.state.items()}
    maps = [tensor(data[f"in/feature{level}"]) for level in range(sum(name.startswith("in/feature") for name in data))]
    outputs, channels = state["classify.weight"].shape[:2]
    head = UPerHead(outputs, [one.shape[1] for one in maps], channels)
    head.load_state_dict(state)
    with torch.no_grad():
        found = [compare("logits", head.eval()(maps), data["out/logits"])]
    return found + _train(data, head, maps)


def _train(data: Mapping[str, Any], head: UPerHead, maps: list[Tensor]) -> list[Deviation]:
    logits = without_dropout(head)(maps)
    (logits * tensor(data["in/cotangent"])).sum().backward()
    found = [compare("train logits", logits, data[f"{_TRAIN}logits"])]
    grads = {name: parameter.grad for name, parameter in head.named_parameters()}
    own = head.state_dict()
    for name in data:
        if name.startswith(f"{_TRAIN}grad/"):
            found.append(compare_grad(name, grads[_ours(name.removeprefix(f"{_TRAIN}grad/"))], data[name]))
        elif name.startswith(f"{_TRAIN}head."):
            found.append(compare(name, own[_ours(name.removeprefix(_TRAIN))], data[name]))
    return found


def _ours(name: str) -> str:
    """Translate one name."""
    return next(iter(dense_layout.to_ours({name: torch.empty(0)}).state)).removeprefix("head.")
