"""How fresh weights are drawn."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def init_farl_(module: nn.Module) -> None:
    """Draw the weights of an image transformer as FaRL's released model code does.

    Linear and convolution weights are normal with standard deviation 0.02, cut at +-2, with zero biases. The packed
    query-key-value projection is Xavier-uniform over its joint (3 D, D) matrix: FaRL's initialiser does not reach it,
    so it keeps the default of ``nn.MultiheadAttention``. Normalisation layers start as the identity.

    Args:
        module: Whose submodules are initialised in place.
    """
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear | nn.Conv1d | nn.Conv2d):
            if name.rpartition(".")[2] == "qkv":
                nn.init.xavier_uniform_(child.weight)
            else:
                nn.init.trunc_normal_(child.weight, std=0.02, a=-2.0, b=2.0)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
