"""How fresh weights are drawn."""

from __future__ import annotations

import torch
from torch import nn

from farl_lightning.layers.init import init_farl_
from farl_lightning.models.block import QueryBlock


def test_statistics():
    torch.manual_seed(0)
    block = QueryBlock(128, 4, qkv_bias=True)
    for parameter in block.parameters():
        nn.init.constant_(parameter, 7.0)
    init_farl_(block)
    for linear in (block.attn.proj, block.mlp.fc1, block.mlp.fc2):
        assert 0.019 < linear.weight.std() < 0.021
        assert not linear.bias.any()
    bound = (6 / (4 * 128)) ** 0.5
    assert 0.98 * bound < block.attn.qkv.weight.abs().max() <= bound
    assert not block.attn.qkv.bias.any()
    assert (block.norm1.weight == 7).all(), "norms keep what their constructor gave them"


def test_convolutions():
    conv = nn.Conv2d(3, 64, 8)
    init_farl_(conv)
    assert 0.018 < conv.weight.std() < 0.022
    assert not conv.bias.any()
