"""Clipping and optimiser states of a class matrix that is shared out; under two processes see test_verification."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from farl_lightning.models.heads.class_rows import ClassRows
from farl_lightning.tasks.sharded_head import clip_norm, cut_optimizers, gather_optimizers


def module(sharded: bool = True) -> nn.Module:
    torch.manual_seed(0)
    found = nn.ModuleDict({"layer": nn.Linear(3, 2), "rows": ClassRows(5, 2, sharded), "unused": nn.Linear(1, 1)})
    (found["layer"](torch.ones(1, 3)) @ found["rows"]().T).square().sum().backward()
    return found


@pytest.mark.parametrize("limit", [0.01, 1e6])
def test_on_one_process_it_clips_as_torch_does(limit):
    own, other = module(), module()
    norm = clip_norm(own, limit)
    expected = nn.utils.clip_grad_norm_(other.parameters(), limit)
    torch.testing.assert_close(norm, expected)
    for one, two in zip(own.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


def test_states_of_optimisers_are_marked_and_cut():
    found = module()
    optimizer = torch.optim.AdamW(found.parameters(), lr=0.1)
    optimizer.step()
    checkpoint = {"optimizer_states": [copy.deepcopy(optimizer.state_dict())]}
    gather_optimizers(found, [optimizer], checkpoint)
    assert checkpoint["sharded_rows"] == [[2]]  # after weight and bias of the layer
    kept = checkpoint["optimizer_states"][0]["state"][2]
    assert kept["exp_avg"].shape == (5, 2)
    rows = found["rows"]
    rows.first, rows.weight = 3, nn.Parameter(rows.weight[3:5].detach())  # as process 2 of 2 holds them
    expected = kept["exp_avg"][3:5].clone()
    cut_optimizers(rows, checkpoint)
    torch.testing.assert_close(checkpoint["optimizer_states"][0]["state"][2]["exp_avg"], expected)
    assert checkpoint["optimizer_states"][0]["state"][2]["step"] == 1
    assert checkpoint["optimizer_states"][0]["state"][0]["exp_avg"].shape == (2, 3)


def test_nothing_is_marked_where_nothing_is_shared_out():
    found = module(sharded=False)
    optimizer = torch.optim.AdamW(found.parameters(), lr=0.1)
    checkpoint = {"optimizer_states": [optimizer.state_dict()]}
    gather_optimizers(found, [optimizer], checkpoint)
    assert "sharded_rows" not in checkpoint
