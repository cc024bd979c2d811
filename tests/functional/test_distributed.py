"""Gathers and sums over real gloo processes."""

from __future__ import annotations

import pytest
import torch

from farl_lightning.functional.distributed import (
    all_gather_cat,
    all_gather_with_grad,
    broadcast_from,
    global_max,
    global_sum,
    rank,
    world_size,
)
from farl_lightning.testing.distributed import run_distributed


def test_one_process_needs_no_process_group():
    x = torch.randn(3, 2, requires_grad=True)
    assert (world_size(), rank()) == (1, 0)
    assert all_gather_with_grad(x) is x
    assert torch.equal(all_gather_cat(x), x)
    assert not all_gather_cat(x).requires_grad


def test_global_sum_shares_no_memory():
    x = torch.ones(2)
    total = global_sum(x)
    total += 1
    assert x.tolist() == [1.0, 1.0]


def _extremes():
    own = torch.tensor([float(rank()), -float(rank()), 5.0])
    rows = torch.full((2 + rank(), 3), float(rank()), requires_grad=True)
    return global_max(own), own, [broadcast_from(rows, source, 2 + source) for source in range(world_size())]


def test_highest_values_and_rows_of_each_process():
    for own, (highest, values, rows) in enumerate(run_distributed(_extremes, 2)):
        assert highest.tolist() == [1.0, 0.0, 5.0]
        assert values.tolist() == [own, -own, 5.0]  # untouched
        assert [part.tolist() for part in rows] == [[[0.0] * 3] * 2, [[1.0] * 3] * 3]
        assert not any(part.requires_grad for part in rows)
    alone = torch.ones(2, 1, requires_grad=True)
    assert broadcast_from(alone, 0, 2).data_ptr() == alone.data_ptr()
    assert global_max(alone).data_ptr() != alone.data_ptr()


def _sizes():
    return world_size(), rank(), global_sum(torch.tensor([rank() + 1])).item()


@pytest.mark.parametrize("processes", [2, 3])
def test_sizes_and_sums(processes):
    total = processes * (processes + 1) // 2
    assert run_distributed(_sizes, processes) == [(processes, i, total) for i in range(processes)]


def _gather_uneven(counts, dtype):
    return all_gather_cat(torch.arange(counts[rank()] * 2).reshape(-1, 2).to(dtype) + 10 * rank())


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float64])
@pytest.mark.parametrize("counts", [(2, 1), (0, 3), (0, 0)])
def test_gather_of_uneven_rows(counts, dtype):
    expected = torch.cat([torch.arange(n * 2).reshape(-1, 2).to(dtype) + 10 * i for i, n in enumerate(counts)])
    for gathered in run_distributed(_gather_uneven, 2, counts, dtype):
        assert gathered.dtype == expected.dtype
        assert torch.equal(gathered, expected)


def _gradient(weights):
    x = torch.full((2, 3), float(rank()), dtype=torch.float64, requires_grad=True)
    gathered = all_gather_with_grad(x.T.contiguous().T)  # not contiguous on purpose
    (gathered * weights[rank()]).sum().backward()
    return gathered.detach(), x.grad


def test_backward_sums_what_every_process_asks_for():
    weights = torch.randn(2, 4, 3, dtype=torch.float64)
    for own, (gathered, grad) in enumerate(run_distributed(_gradient, 2, weights)):
        assert gathered[:, 0].tolist() == [0, 0, 1, 1]
        torch.testing.assert_close(grad, weights.sum(0)[2 * own : 2 * own + 2], rtol=0, atol=1e-14)
