"""Landmarks to heatmaps and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from farl_lightning.functional.heatmaps import (
    denormalize_points,
    heatmap_to_points,
    normalize_points,
    points_to_heatmap,
    sigmoid_x,
    splat_cosine,
)
from tests.parity import Deviation, compare, fixture, tensor


@fixture("06_heatmaps")
def check(data: Mapping[str, Any]) -> list[Deviation]:
    """Every group of arrays."""
    found = []
    for group in sorted({name.rpartition("/")[0] for name in data if name.startswith("points2heatmap/")}):
        found += _drawn(data, group)
    for group in sorted({name.rpartition("/")[0] for name in data if name.startswith("heatmap2points/")}):
        scale = float(data[f"{group}/t_scale"]) if f"{group}/t_scale" in data else None
        points = heatmap_to_points(tensor(data[f"{group}/heatmap"]), scale)
        found.append(compare(group, points, data[f"{group}/points_normalized"]))
    return [*found, *_normalized(data), *_others(data)]


def _drawn(data: Mapping[str, Any], group: str) -> list[Deviation]:
    height, width = (int(side) for side in data[f"{group}/size_hw"])
    points, radius = tensor(data[f"{group}/points_normalized"]), float(data[f"{group}/radius"])
    found = []
    for name, given in (("ref_kernel_float32", points), ("independent_numpy_float64", points.double())):
        drawn = points_to_heatmap(given, (height, width), radius)
        found.append(compare(f"{group}/{name}", drawn, data[f"{group}/heatmap_{name}"]))
    return found


def _normalized(data: Mapping[str, Any]) -> list[Deviation]:
    height, width = (int(side) for side in data["normalize/hw"])
    normalized = normalize_points(tensor(data["normalize/points"]), (width, height))
    return [
        compare("normalized", normalized, data["normalize/normalized"]),
        compare("roundtrip", denormalize_points(normalized, (width, height)), data["normalize/roundtrip"]),
    ]


def _others(data: Mapping[str, Any]) -> list[Deviation]:
    dots = {name.rpartition("/")[2]: data[name] for name in data if name.startswith("p2i_sum_cos/")}
    splat = splat_cosine(
        tensor(dots["background"]),
        tensor(dots["points_xy"]),
        tensor(dots["features"]),
        tensor(dots["batch_inds"]),
        float(dots["radius"]),
    )
    stretched = sigmoid_x(tensor(data["activation_sigmoid_x/in"]))
    return [
        compare("p2i_sum_cos", splat, dots["out"]),
        compare("sigmoid_x", stretched, data["activation_sigmoid_x/out"]),
    ]
