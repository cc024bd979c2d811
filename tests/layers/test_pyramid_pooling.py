"""Pyramid pooling."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from farl_lightning.layers.pyramid_pooling import PyramidPooling
from tests.models.conftest import shake


def test_values():
    torch.manual_seed(0)
    module = shake(PyramidPooling(3, 4, (1, 2, 5))).double().eval()
    x = torch.randn(2, 3, 3, 4, dtype=torch.float64)  # smaller than a grid of 5
    parts = [x]
    for scale, branch in zip((1, 2, 5), module.branches, strict=True):
        parts.append(F.interpolate(branch(F.adaptive_avg_pool2d(x, scale)), (3, 4), mode="bilinear"))
    torch.testing.assert_close(module(x), module.fuse(torch.cat(parts, 1)))
    whole = module.branches[0](x.mean((2, 3), keepdim=True)).expand(-1, -1, 3, 4)
    torch.testing.assert_close(parts[1], whole)


def test_a_single_small_picture_can_be_trained_on():
    module = PyramidPooling(3, 4).train()
    module(torch.randn(1, 3, 4, 4)).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
