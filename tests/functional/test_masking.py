"""Block-wise and random masks."""

from __future__ import annotations

import time

import pytest
import torch

from farl_lightning.errors import ConfigError
from farl_lightning.functional.masking import blockwise_mask, random_mask


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_blockwise_is_repeatable_and_follows_the_generator():
    first, again, other = (blockwise_mask((14, 14), 75, generator=_generator(seed)) for seed in (1, 1, 2))
    assert first.dtype == torch.bool
    assert first.shape == (196,)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_blockwise_statistics_of_beit():
    generator = _generator()
    masks = torch.stack([blockwise_mask((14, 14), 75, generator=generator) for _ in range(2000)])
    counts = masks.sum(1).double()
    assert abs(counts.mean() - 74.48) < 0.1
    assert abs(counts.std() - 0.99) < 0.12
    assert counts.max() == 75
    assert 0.62 < (counts == 75).double().mean() < 0.72
    frequency = masks.double().mean(0).view(14, 14)
    assert frequency[0, 0] < 0.08
    assert 0.66 < frequency[6:8, 6:8].mean() < 0.78


def test_one_block_is_a_rectangle_within_its_limits():
    generator = _generator()
    for _ in range(300):
        mask = blockwise_mask((10, 12), 20, min_block=20, aspect=(0.5, 2.0), generator=generator).view(10, 12)
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        h, w = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        if int(mask.sum()) == h * w:  # one block: a second one may fill up what the first left
            assert h * w <= 20
            assert 0.25 <= h / w <= 4.0
        assert int(mask.sum()) <= 20


def test_blocks_never_span_the_grid():
    generator = _generator()
    masks = torch.stack([blockwise_mask((4, 4), 12, min_block=9, generator=generator) for _ in range(200)])
    assert masks.any()
    first = [blockwise_mask((3, 3), 9, min_block=9, aspect=(1.0, 1.0), generator=generator) for _ in range(20)]
    assert not torch.stack(first).any(), "a block as large as the grid is not allowed, so nothing fits"


def test_max_block_limits_each_block():
    generator = _generator()
    sizes = [int(blockwise_mask((14, 14), 40, min_block=1, max_block=2, generator=generator).sum()) for _ in range(50)]
    assert max(sizes) == 40


def test_small_grids_and_nothing_to_mask():
    assert not blockwise_mask((2, 3), 0).any()
    assert blockwise_mask((1, 1), 1).shape == (1,)
    assert not blockwise_mask((1, 5), 5).any(), "a block must be lower than the grid"


def test_without_generator_uses_the_global_one():
    torch.manual_seed(5)
    first = blockwise_mask((8, 8), 20)
    torch.manual_seed(5)
    assert torch.equal(first, blockwise_mask((8, 8), 20))


def test_fast_enough_for_a_loader():
    generator = _generator()
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(40):
            blockwise_mask((14, 14), 75, generator=generator)
        best = min(best, (time.perf_counter() - start) / 40)
    assert best < 600e-6, "about 100 us on an idle core"


def test_random_mask_counts_and_is_even():
    generator = _generator()
    masks = torch.stack([random_mask(20, 5, generator=generator) for _ in range(4000)])
    assert (masks.sum(1) == 5).all()
    assert (masks.double().mean(0) - 0.25).abs().max() < 0.035
    assert torch.equal(random_mask(9, 4, generator=_generator(3)), random_mask(9, 4, generator=_generator(3)))
    assert random_mask(4, 4).all()


@pytest.mark.parametrize(
    "call", [lambda: random_mask(4, 5), lambda: random_mask(4, -1), lambda: blockwise_mask((2, 2), 5)]
)
def test_impossible_counts(call):
    with pytest.raises(ConfigError, match=r"cannot mask .* of 4 patches; allowed: 0 to 4"):
        call()


@pytest.mark.parametrize(
    "options", [{"min_block": -1}, {"max_block": 0}, {"aspect": (0.0, 1.0)}, {"aspect": (2.0, 1.0)}]
)
def test_impossible_blocks(options):
    with pytest.raises(ConfigError, match=r"blocks need"):
        blockwise_mask((4, 4), 4, **options)
