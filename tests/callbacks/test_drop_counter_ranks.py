"""Counting over processes; apart from the other tests, because processes import as little as this."""

from __future__ import annotations

import torch

from farl_lightning.callbacks.drop_counter import DropCounter
from farl_lightning.functional.distributed import rank
from farl_lightning.testing.distributed import run_distributed


def batch(good: int, *bad: tuple[str, str]) -> dict:
    """A batch of good samples, with what was left out on the way."""
    return {
        "key": [f"good-{i}" for i in range(good)],
        "dropped": [{"key": key, "reason": reason, "detail": f"about {key}"} for key, reason in bad],
    }


def _gather_on_ranks() -> tuple[dict, int, list]:
    device = torch.device("cpu")
    counter = DropCounter()
    if rank() == 1:
        counter.add(batch(2, ("ключ", "truncated"), ("b\nc", "no_caption")))
    counter.add(batch(1, (f"rank {rank()}", "truncated")))
    counter.synchronise(device)
    counter.add(batch(1))
    counter.synchronise(device)
    return dict(counter.counts), counter.samples, list(counter.listed)


def test_two_processes_agree():
    first, second = run_distributed(_gather_on_ranks, 2)
    assert first == second
    counts, samples, listed = first
    assert counts == {"truncated": 3, "no_caption": 1}
    assert samples == 6
    assert set(listed) == {
        ("truncated", "rank 0"),
        ("truncated", "ключ"),
        ("no_caption", "b\nc"),
        ("truncated", "rank 1"),
    }
