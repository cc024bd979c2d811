"""The augmentations with their draws recorded, the distribution of the draws, and one step of the weight average."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from farl_lightning.functional import photometric
from farl_lightning.functional.geometry import compose_matrices
from farl_lightning.functional.random import keyed_rng
from farl_lightning.transforms.augment import NoiseFusion, RandomFaceAffine, RandomGamma, RandomGray, RandomOcclusion
from farl_lightning.transforms.augment import affine_matrix as affine
from farl_lightning.transforms.dense_config import alignment_recipe, parsing_recipe
from farl_lightning.types import FaceRecord
from tests.parity import Deviation, compare, fixture, tensor
from tests.parity.ema_09 import ema_deviation

_DRAWS = 8_000
_REFERENCE_DRAWS = 4000
_SIGMAS = 5.0


@fixture("09_augment_ema")
def check(data: Mapping[str, Any]) -> list[Deviation]:
    """Every result of the file."""
    parts = (_pictures, _occlusions, _matrices, _draw_statistics, _probabilities)
    return [deviation for part in parts for deviation in part(data)] + ema_deviation(data)


def _chw(array: Any) -> torch.Tensor:
    return tensor(array).permute(2, 0, 1)


def _pictures(data: Mapping[str, Any]) -> Iterator[Deviation]:
    image = _chw(data["in/image"])
    yield compare("normalize255", _normalize255(data["normalize255/in"]), data["normalize255/out"])
    yield compare("gray", photometric.to_gray(image), _chw(data["gray/out"]))
    source = _chw(data["gamma/in"])
    for octave in (-1, 0, 1):
        yield compare(f"gamma/{octave}", photometric.change_gamma(source, octave), _chw(data[f"gamma/{octave}"]))
    for name in sorted(name for name in data if name.startswith("blur/ksize")):
        size = int(name.removeprefix("blur/ksize"))
        yield compare(name, photometric.box_blur(image, size), _chw(data[name]))
    alpha = NoiseFusion().strength * float(data["noise/u"])
    fused = photometric.fuse_noise(image, _chw(data["noise/noise"]).to(image.dtype), alpha)
    yield compare("noise", fused, _chw(data["noise/out"]))


def _normalize255(pixels: Any) -> torch.Tensor:
    """Run the whole transform with a crop that changes nothing, for the square in the corner."""
    from farl_lightning.transforms.dense import DenseTransform, DenseTransformConfig

    height, width = pixels.shape[:2]
    size = max(height, width)
    padded = np.zeros((size, size, 3), np.uint8)
    padded[:height, :width] = pixels
    config = DenseTransformConfig(size=size, crop="none", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    image = DenseTransform(config, train=False)(FaceRecord("a", padded))["image"]
    return image[:, :height, :width].permute(1, 2, 0)


def _occlusions(data: Mapping[str, Any]) -> Iterator[Deviation]:
    image = _chw(data["in/image"])
    height, width = image.shape[-2:]
    for run in sorted({name.split("/")[1] for name in data if re.match(r"occlusion/\d+/", name)}):
        draws = data[f"occlusion/{run}/uniform4"].tolist()
        # the reference scales the column by the height and the row by the width, which only squares forgive
        draws[2] *= (height - 1) / (width - 1)
        draws[3] *= (width - 1) / (height - 1)
        ours = photometric.occlude(image, photometric.occlusion_rectangle(draws, (height, width)))
        yield compare(f"occlusion/{run}", ours, _chw(data[f"occlusion/{run}/out"]))


def _matrices(data: Mapping[str, Any]) -> Iterator[Deviation]:
    for recipe in ("parsing", "alignment"):
        key = f"random_matrix/{recipe}"
        draws, before = data[f"{key}/draws_shiftx_shifty_rot_scale"], tensor(data[f"{key}/in"])
        size = _side(draws, data[f"{key}/in"], data[f"{key}/out"])
        ours = compose_matrices(before, affine(draws.tolist(), (size, size)))
        yield compare(key, ours, data[f"{key}/out"], rtol=1e-5, atol=2e-4)


def _side(draws: Any, before: Any, after: Any) -> int:
    """Find the crop's side, which the file does not state: the whole number that the column's shift asks for."""
    x, _, turn, scale = draws.tolist()
    cos, sin = scale * math.cos(turn), scale * math.sin(turn)
    # after = c - R c + shift side + R before, with c = (side - 1) / 2 in both coordinates
    fixed = (1 - cos + sin) / 2
    moved = after[0, 2] - cos * before[0, 2] + sin * before[1, 2]
    return round((moved + fixed) / (fixed + x))


def _draw_statistics(data: Mapping[str, Any]) -> Iterator[Deviation]:
    for recipe, config in (("parsing", parsing_recipe()), ("alignment", alignment_recipe())):
        key = f"random_matrix/{recipe}/draw_stats"
        center = float(data[f"{key}_mean"][3])
        # 300W and WFLW zoom out to 0.8, AFLW-19 does not
        zoom_mean = min((config.zoom_mean, 1.0), key=lambda value: abs(value - center))
        change = RandomFaceAffine(config.shift, config.rotation, config.zoom, config.distribution, zoom_mean)
        with keyed_rng(0, recipe):
            draws = np.array([change.draw() for _ in range(_DRAWS)])
        spread = draws.std(0)
        noise = _SIGMAS * spread * (1 / _DRAWS + 1 / _REFERENCE_DRAWS) ** 0.5
        for column, name in enumerate(("shift x", "shift y", "turn", "zoom")):
            values, limit = draws[:, column], float(noise[column])
            yield Deviation(f"{key} {name} mean", abs(values.mean() - float(data[f"{key}_mean"][column])), limit)
            yield Deviation(f"{key} {name} std", abs(spread[column] - float(data[f"{key}_std"][column])), limit)
            bounded = column < 2 or config.distribution == "uniform"
            for end, found in (("min", values.min()), ("max", values.max())):
                # extremes: of an even distribution sharp, of a normal one some sigmas
                tolerance = (0.01 if bounded else 2.0) * float(spread[column])
                yield Deviation(f"{key} {name} {end}", abs(found - float(data[f"{key}_{end}"][column])), tolerance)


def _probabilities(data: Mapping[str, Any]) -> Iterator[Deviation]:
    image = torch.zeros(3, 512, 512)
    with keyed_rng(0, "probabilities"):
        gray = np.mean([RandomGray().make_params([image])["gray"] for _ in range(_DRAWS)])
        octaves = [RandomGamma().make_params([image])["octave"] for _ in range(_DRAWS)]
    yield Deviation("prob/gray", abs(float(gray) - float(data["prob/gray"])), _limit(0.1, 4000))
    for octave, share in zip((-1, 0, 1), data["prob/gamma_sqrt_same_square"].tolist(), strict=True):
        yield Deviation(f"prob/gamma {octave}", abs(octaves.count(octave) / _DRAWS - share), _limit(1 / 3, 1000))
    yield from _occlusion_statistics(data)


def _limit(share: float, draws: int) -> float:
    """Largest plausible difference between our share and the reference's."""
    return _SIGMAS * (share * (1 - share) * (1 / _DRAWS + 1 / draws)) ** 0.5


def _occlusion_statistics(data: Mapping[str, Any]) -> Iterator[Deviation]:
    keys = {end: next(n for n in data if re.fullmatch(rf"prob/occlusion\d+_h_w_area_{end}", n)) for end in _ENDS}
    side = int(re.search(r"\d+", keys["mean"]).group())  # type: ignore[union-attr]
    with keyed_rng(0, "occlusion"):
        boxes = [RandomOcclusion().make_params([torch.empty(3, side, side)])["rectangle"] for _ in range(_DRAWS)]
    left, top, right, bottom = np.array(boxes).T
    heights, widths = bottom - top, right - left
    values = np.stack([heights, widths, heights * widths / side**2], 1)
    noise = _SIGMAS * values.std(0) * (1 / _DRAWS + 1 / 400) ** 0.5
    for column, name in enumerate(("height", "width", "area")):
        difference = abs(values[:, column].mean() - float(data[keys["mean"]][column]))
        yield Deviation(f"{keys['mean']} {name}", difference, float(noise[column]))
        # no rectangle of the reference is larger, or smaller, than ours can be
        beyond = max(
            float(data[keys["max"]][column]) - values[:, column].max(),
            values[:, column].min() - float(data[keys["min"]][column]),
        )
        yield Deviation(f"{name} beyond ours", max(beyond, 0.0), 0.02 * float(values[:, column].max()))


_ENDS = ("mean", "max", "min")
