"""Distribution of block-wise masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from farl_lightning.functional.masking import blockwise_mask
from tests.parity import Deviation, fixture

_DRAWS = 10_000
_MEAN, _FREQUENCY = 0.03, 0.02  # stated tolerances for two samples of 10 000 masks each
_SIGMAS = 5.0  # the stated tolerances are for the reference's sizes; sampling noise of other sizes may be larger


@fixture("12_blockwise_masking")
def check(data: Mapping[str, Any]) -> list[Deviation]:
    """Count and frequency per patch of 10 000 masks per setting."""
    settings = sorted({name.split("/")[0] for name in data if name.endswith("/cfg_h_w_num_min_max_aspect")})
    return [deviation for setting in settings for deviation in _compare(data, setting)]


def _compare(data: Mapping[str, Any], setting: str) -> list[Deviation]:
    masks = _draw(data[f"{setting}/cfg_h_w_num_min_max_aspect"])
    counts = masks.sum(axis=(1, 2))

    def get(name: str) -> Any:
        return data[f"{setting}/{name}"]

    noise = _SIGMAS * float(get("count_std")) * (2 / _DRAWS) ** 0.5
    frequency = get("per_patch_frequency")
    share = float(get("fraction_exactly_target"))
    target = int(get("cfg_h_w_num_min_max_aspect")[2])
    histogram = np.bincount(counts, minlength=len(get("count_hist")))
    quantiles = np.quantile(counts, [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
    second = get("second_impl_count_mean_std_min_max")
    facts = [
        ("count_mean", abs(counts.mean() - float(get("count_mean"))), max(_MEAN, noise)),
        ("count_mean of second implementation", abs(counts.mean() - second[0]), max(_MEAN, noise)),
        ("count_std", abs(counts.std() - float(get("count_std"))), max(_MEAN, 2 * noise)),
        ("count_max", abs(int(counts.max()) - int(get("count_max"))), 0.5),
        ("count_min", abs(int(counts.min()) - int(get("count_min"))), max(4.5, 5 * float(get("count_std")))),
        ("count quantiles", float(np.abs(quantiles - get("count_quantiles_1_5_25_50_75_95_99")).max()), 1.5),
        ("fraction_exactly_target", abs(float((counts == target).mean()) - share), _limit(share)),
        ("count_hist", float(np.abs(histogram - get("count_hist")).max()) / _DRAWS, _limit(0.5)),
        ("per_patch_frequency", float(np.abs(masks.mean(0) - frequency).max()), max(_FREQUENCY, _limit(0.5))),
    ]
    return [Deviation(f"{setting}/{name}", value, tolerance) for name, value, tolerance in facts]


def _limit(share: float) -> float:
    """Largest plausible difference of a share between two samples."""
    return _SIGMAS * (2 * share * (1 - share) / _DRAWS) ** 0.5 + 1e-4


def _draw(settings: Any) -> Any:
    height, width, num, smallest, largest, aspect = (float(value) for value in settings)
    grid = (int(height), int(width))
    generator = torch.Generator().manual_seed(0)
    masks = [
        blockwise_mask(
            grid,
            int(num),
            min_block=int(smallest),
            max_block=None if largest < 0 else int(largest),
            aspect=(aspect, 1 / aspect),
            generator=generator,
        )
        for _ in range(_DRAWS)
    ]
    return torch.stack(masks).view(_DRAWS, *grid).numpy()
