"""Masked token accuracy against counting by hand, alone and over two processes."""

from __future__ import annotations

import pytest
import torch

from farl_lightning.errors import ConfigError
from farl_lightning.functional.distributed import rank
from farl_lightning.metrics import MaskedTokenAccuracy
from farl_lightning.testing.distributed import run_distributed

TARGETS = torch.tensor([[0, 0, 0, 1], [2, 1, 1, 2], [3, 3, 3, 3]])
MASK = torch.tensor([[True, False, False, True], [True, True, True, False], [True, True, True, True]])
GUESSES = torch.tensor([0, 0, 2, 1, 3, 3, 3, 3, 3])  # right: 1 of 2, 2 of 3, 4 of 4
VALID = torch.tensor([True, True, False])


def _compute(parts):
    metric = MaskedTokenAccuracy(5)
    for part in parts:
        metric.update(*part)
    return metric.compute()


def test_counts_by_hand():
    values = _compute([(GUESSES, TARGETS, MASK, VALID)])  # masked and valid: 0 1 | 2 1 1
    assert values["accuracy"].item() == pytest.approx(3 / 5)
    assert values["majority"].item() == pytest.approx(3 / 5)  # token 1
    assert values["majority_share"].item() == pytest.approx(3 / 8)  # tokens 0 and 1
    assert _compute([(GUESSES, TARGETS, MASK)])["accuracy"].item() == pytest.approx(7 / 9)


def test_logits_are_accepted():
    logits = torch.nn.functional.one_hot(GUESSES, 5).float()
    assert _compute([(logits, TARGETS, MASK)]) == _compute([(GUESSES, TARGETS, MASK)])


def _on_rank(parts):
    return _compute([parts[rank()]])


def test_uneven_processes_count_every_patch_once():
    parts = [(GUESSES[:2], TARGETS[:1], MASK[:1]), (GUESSES[2:], TARGETS[1:], MASK[1:], VALID[1:])]
    expected = _compute([(GUESSES, TARGETS, MASK, VALID)])
    assert run_distributed(_on_rank, 2, parts) == [expected, expected]


def test_nothing_masked_is_not_a_number():
    nothing = torch.zeros_like(MASK)
    values = _compute([(GUESSES[:0], TARGETS, nothing)])
    assert values["accuracy"].isnan()
    assert values["majority_share"].item() == pytest.approx(4 / 12)


def test_an_empty_vocabulary_is_refused():
    with pytest.raises(ConfigError, match="vocab_size=0"):
        MaskedTokenAccuracy(0)
