"""Names of tensors in FaRL's downstream files and facer's, and in our modules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from farl_lightning.models import layout

_ENCODER = re.compile(r"(?:.*\.)?(visual\..+)")
_BARE_ENCODER = re.compile(
    r"backbone\.((?:class_embedding|positional_embedding|conv1|ln_pre|ln_post|proj|transformer)\b.*)"
)
_PYRAMID = re.compile(r"(?:.*\.)?fpns\.(?P<level>\d+)\.(?:(?P<layer>\d+)\.)?(?P<rest>\w+)")
_STATISTICS = re.compile(r"(?:.*\.)?(image_(?:mean|std))")
_ATTRIBUTES = {
    r"head\.weights": "head.weights",
    r"head\.norm_(\d+)\.(\w+)": r"head.norms.\1.\2",
    r"head\.final_fc\.(\w+)": r"head.classify.\1",
}
_UPERNET = {
    r"psp_modules\.(\d+)\.1\.(.+)": r"head.pooling.branches.\1.\2",
    r"bottleneck\.(.+)": r"head.pooling.fuse.\1",
    r"lateral_convs\.(\d+)\.(.+)": r"head.laterals.\1.\2",
    r"fpn_convs\.(\d+)\.(.+)": r"head.smooth.\1.\2",
    r"fpn_bottleneck\.(.+)": r"head.fuse.\1",
    r"conv_seg\.(\w+)": r"head.classify.\1",
}
_LAYERS = {None: "convs.0", "0": "convs.0", "1": "norms.0", "3": "convs.1"}

NEVER_USED = frozenset({"encoder.proj", "encoder.vit.norm.weight", "encoder.vit.norm.bias"})
"""What files of FaRL hold although no dense network reads it."""


class Renamed(NamedTuple):
    """Tensors of a file, sorted."""

    state: dict[str, Tensor]
    """By our names: ``encoder.``, ``neck.``, ``head.``."""
    unknown: tuple[str, ...]
    """Names in the file that belong to no such network."""
    statistics: dict[str, tuple[float, ...]]
    """``image_mean`` and ``image_std`` of RGB in [0, 1], where the file has them."""


def to_ours(state: Mapping[str, Tensor]) -> Renamed:
    """Rename tensors of a FaRL downstream state, or of a file of facer.

    The three parts are known by their own names, whatever stands before them: files differ in that.

    Args:
        state: Tensors by the file's names.
    """
    ours: dict[str, Tensor] = {}
    unknown: list[str] = []
    statistics: dict[str, tuple[float, ...]] = {}
    for name, tensor in state.items():
        if match := _STATISTICS.fullmatch(name):
            statistics[match[1]] = tuple(tensor.flatten().tolist())
        elif encoder := encoder_name(name):
            renamed, lost = layout.to_ours({encoder: tensor})
            ours |= {f"encoder.{key.removeprefix(layout.IMAGE)}": value for key, value in renamed.items()}
            unknown += [name] * len(lost)
        elif own := _head_name(name):
            ours[own] = tensor
        else:
            unknown.append(name)
    return Renamed(ours, tuple(unknown), statistics)


def encoder_name(name: str) -> str | None:
    """Return ``visual.`` and the rest for a tensor of the image tower, None for any other."""
    if match := _ENCODER.fullmatch(name):
        return match[1]
    match = _BARE_ENCODER.fullmatch(name)
    return None if match is None else f"visual.{match[1]}"


def _head_name(name: str) -> str | None:
    """Return our name of a tensor of pyramid or head."""
    if match := _PYRAMID.fullmatch(name):
        layer = _LAYERS.get(match["layer"])
        return None if layer is None else f"neck.levels.{match['level']}.{layer}.{match['rest']}"
    for theirs, ours in _ATTRIBUTES.items():
        if match := re.fullmatch(theirs, name):
            return match.expand(ours)
    for theirs, ours in _UPERNET.items():
        if match := re.fullmatch(rf"(?:.*\.)?{theirs}", name):
            return re.sub(r"\.bn\.", ".norm.", re.sub(rf"^(?:.*\.)?{theirs}$", ours, name))
    return None


def kind_of(names: Mapping[str, Tensor]) -> str | None:
    """Tell what a file of FaRL or facer is for, by its names.

    Returns:
        ``"parsing"``, ``"alignment"`` or ``"attributes"``; None when the names do not say.
    """
    if "head.final_fc.weight" in names:
        return "attributes"
    if any(".heatmap_head." in f".{name}" for name in names):
        return "alignment"
    return "parsing" if any(".head.head." in f".{name}" for name in names) else None
