"""Peaks counted by hand."""

from __future__ import annotations

import torch
import torch.distributed as dist

from farl_lightning.testing.distributed import run_distributed
from farl_lightning.testing.memory import LiveMemory, peak_bytes


def test_what_lives_at_once_counts_and_what_is_gone_does_not():
    assert peak_bytes(lambda: [torch.zeros(1000) for _ in range(3)]) == 12_000
    assert peak_bytes(lambda: [torch.zeros(1000).shape for _ in range(3)]) == 4_000


def test_what_was_there_before_and_views_do_not_count():
    x = torch.zeros(1000)
    assert peak_bytes(lambda: x[:10].add_(1)) == 0
    assert peak_bytes(lambda: (x + 1)[5:]) == 4_000


def test_saved_tensors_and_gradients_count():
    x = torch.zeros(1000, requires_grad=True)
    assert peak_bytes(lambda: x.exp().sin()) == 8_000  # exp's result is kept
    assert peak_bytes(lambda: x.exp().sum().backward()) >= 8_000  # and the gradient
    assert x.grad is not None


def test_what_is_noted_counts_once_and_what_ends_is_given_back():
    first = torch.zeros(1000)
    both = {"all": [first, first[10:]]}
    with LiveMemory() as watch:
        watch.note(both)
        assert watch.living == 4_000
        second = first + 1
        first.add_(second)  # known
        del second
        assert (watch.living, watch.peak) == (4_000, 8_000)


def test_what_was_there_before_counts_when_it_is_noted_alone():
    first = torch.zeros(1000)
    with LiveMemory() as watch:
        first.mul_(2)
        first.view(10, 100).add_(1)
        assert watch.living == watch.peak == 0


def _send():
    x = torch.zeros(1000)
    with LiveMemory() as watch:
        dist.all_reduce(x)
        dist.all_gather_into_tensor(torch.zeros(2000), x)
    return dict(watch.sent)


def test_collectives_count_whole_tensors():
    for sent in run_distributed(_send, 2):
        assert sent == {"allreduce": 4_000, "_allgather_base": 8_000}
