"""Peaks counted by hand."""

from __future__ import annotations

import torch

from farl_lightning.testing.memory import peak_bytes


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
