"""Which patches are hidden in masked image modelling."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from farl_lightning.errors import ConfigError

_TRIES = 10  # of one block, as in BEiT
_DRAWS = 256  # uniform numbers per call of the generator: one call nearly always suffices


def blockwise_mask(
    grid: tuple[int, int],
    num_masked: int,
    *,
    min_block: int = 16,
    max_block: int | None = None,
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mask rectangles until about ``num_masked`` patches are hidden (BEiT, Bao et al., arXiv:2106.08254, section 2.3).

    A rectangle whose ten tries all fail ends the drawing, so the count *varies*: of 75 on a 14 x 14 grid it is 74.5 on
    average, and exactly 75 in two of three draws. It never exceeds ``num_masked``.

    Args:
        grid: Patches (rows, columns).
        num_masked: Largest number of masked patches.
        min_block: Smallest area of a rectangle in patches, before rounding.
        max_block: Largest area of a rectangle in patches; None for ``num_masked``.
        aspect: Smallest and largest height / width; drawn evenly in the logarithm.
        generator: Source of randomness on the CPU; None for torch's own.

    Returns:
        (rows * columns,) bool, True = masked, row by row.

    Raises:
        ConfigError: If a number cannot work.
    """
    height, width = grid
    _check(height * width, num_masked)
    if min_block < 0 or (max_block is not None and max_block < 1) or not 0 < aspect[0] <= aspect[1]:
        raise ConfigError(
            "blocks need min_block >= 0, max_block >= 1, 0 < aspect[0] <= aspect[1]; "
            f"got {min_block=}, {max_block=}, {aspect=}"
        )
    draws = _uniforms(generator)
    limits = (min_block, math.log(aspect[0]), math.log(aspect[1]))
    rows, count = [0] * height, 0  # a row is a number with one bit per patch: counting a block is a few bit operations
    while count < num_masked:
        most = min(num_masked - count, max_block or num_masked)
        added = _add_block(rows, width, most, limits, draws)
        if not added:
            break
        count += added
    return torch.tensor([bool(row >> column & 1) for row in rows for column in range(width)])


def _add_block(rows: list[int], width: int, most: int, limits: tuple[int, float, float], draws: Iterator[float]) -> int:
    """Mask one rectangle that adds between 1 and ``most`` patches; return how many it added, 0 after ten failures."""
    smallest, log_low, log_high = limits
    height = len(rows)
    for _ in range(_TRIES):
        area = smallest + (most - smallest) * next(draws)
        ratio = math.exp(log_low + (log_high - log_low) * next(draws))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if h >= height or w >= width:
            continue
        top, left = int(next(draws) * (height - h + 1)), int(next(draws) * (width - w + 1))
        bits = ((1 << w) - 1) << left
        added = sum((bits & ~row).bit_count() for row in rows[top : top + h])
        if 0 < added <= most:
            rows[top : top + h] = [row | bits for row in rows[top : top + h]]
            return added
    return 0


def _uniforms(generator: torch.Generator | None) -> Iterator[float]:
    """Yield numbers on [0, 1); asking the generator one by one would be fifty times slower."""
    while True:
        yield from torch.rand(_DRAWS, generator=generator, dtype=torch.float64).tolist()


def random_mask(num_patches: int, num_masked: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Mask exactly ``num_masked`` patches, each set equally likely (MAE, He et al., arXiv:2111.06377).

    Args:
        num_patches: Number of patches.
        num_masked: Number of masked patches.
        generator: Source of randomness on the CPU; None for torch's own.

    Returns:
        (num_patches,) bool, True = masked.

    Raises:
        ConfigError: If more patches are to be masked than there are.
    """
    _check(num_patches, num_masked)
    mask = torch.zeros(num_patches, dtype=torch.bool)
    mask[torch.randperm(num_patches, generator=generator)[:num_masked]] = True
    return mask


def _check(num_patches: int, num_masked: int) -> None:
    if not 0 <= num_masked <= num_patches:
        raise ConfigError(f"cannot mask {num_masked} of {num_patches} patches; allowed: 0 to {num_patches}")
