"""Parts of a dataset, drawn once per seed: a share for low-data runs, held-out samples where no split is official."""

from __future__ import annotations

import math
from collections import Counter

import torch

from farl_lightning.datasets.faces import FaceDataset, FaceSubset
from farl_lightning.errors import ConfigError
from farl_lightning.functional.random import keyed_generator

_EXACT = 1e-9  # 0.29 of 100 is 28.999999999999996 in floating point, and means 29


def take_fraction(dataset: FaceDataset, fraction: float, seed: int = 0) -> FaceDataset:
    """Keep a share of the samples, in their own order.

    ``floor(fraction * n)`` samples, as in FaRL's low-data tables. The draw depends on number of samples and seed alone;
    a smaller share of the same seed is a part of a larger one.

    Args:
        dataset: The whole.
        fraction: Share in (0, 1]; 1 returns the dataset itself.
        seed: Which samples are kept.

    Raises:
        ConfigError: If the share is out of range or so small that nothing is left.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"train_fraction is a share above 0 and up to 1, got {fraction}")
    if fraction == 1:
        return dataset
    count = math.floor(fraction * len(dataset) + _EXACT)
    if count < 1:
        raise ConfigError(
            f"train_fraction {fraction} of {len(dataset)} samples keeps none; give a larger share, such as "
            f"{1 / max(len(dataset), 1):.2g}"
        )
    return FaceSubset(dataset, sorted(_order(dataset, "train_fraction", seed)[:count]))


def hold_out(dataset: FaceDataset, *fractions: float, seed: int = 0) -> list[FaceDataset]:
    """Split a dataset that has no official split: the rest, then one held-out part per fraction.

    ``round(fraction * n)`` samples each, or a few more: photographs are drawn whole until there are as many, because
    another face or version of the same picture would tell what is held out. Adding a fraction at the end leaves the
    parts before it as they were.

    Args:
        dataset: The whole.
        fractions: Shares to hold out, each at least 0; together they leave something.
        seed: Which samples go where.

    Returns:
        The rest and the held-out parts, without common samples, each in the order of the dataset.

    Raises:
        ConfigError: If a share is negative, or nothing would be left.
    """
    counts = [round(fraction * len(dataset)) for fraction in fractions]
    if min(fractions, default=0) < 0 or (sum(fractions) > 0 and sum(counts) >= len(dataset)):
        raise ConfigError(f"held-out fractions {fractions} of {len(dataset)} samples leave nothing to train on")
    photographs, order, parts = dataset.photographs, _order(dataset, "hold_out", seed), []
    for count in counts:
        held = _draw_photographs(order, photographs, count)
        parts.append(FaceSubset(dataset, [index for index in sorted(order) if photographs[index] in held]))
        order = [index for index in order if photographs[index] not in held]
    if any(counts) and not order:
        raise ConfigError(f"held-out fractions {fractions} leave no photograph to train on")
    return [FaceSubset(dataset, sorted(order)) if any(counts) else dataset, *parts]


def _draw_photographs(order: list[int], photographs: list[str], count: int) -> set[str]:
    """Return the first photographs of an order that together have so many samples."""
    sizes = Counter(photographs[index] for index in order)
    held: set[str] = set()
    for index in order:
        if count <= 0:
            break
        if photographs[index] not in held:
            held.add(photographs[index])
            count -= sizes[photographs[index]]
    return held


def _order(dataset: FaceDataset, purpose: str, seed: int) -> list[int]:
    """Return the samples' numbers in an order keyed by purpose, number of samples and seed."""
    order: list[int] = torch.randperm(len(dataset), generator=keyed_generator(seed, purpose, len(dataset))).tolist()
    return order
