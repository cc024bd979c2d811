"""Small networks in double precision."""

from __future__ import annotations

import pytest
import torch

from farl_lightning.models.face_clip import FaceCLIP
from farl_lightning.models.image_encoder import ImageEncoder
from farl_lightning.testing.models import tiny_config


def shake(module: torch.nn.Module) -> torch.nn.Module:
    """Move norms and biases away from 1 and 0, where mistakes would not show."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


@pytest.fixture
def encoder() -> ImageEncoder:
    torch.manual_seed(0)
    return shake(ImageEncoder(tiny_config(depth=3).image, 32).double())


@pytest.fixture
def clip() -> FaceCLIP:
    torch.manual_seed(0)
    config = tiny_config()
    config.text.vocab_size, config.text.eos_token_id, config.text.context_length = 90, 89, 12
    return shake(FaceCLIP(config))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def patch_mask() -> torch.Tensor:
    """Another number of masked patches in each picture, none in the second."""
    mask = torch.rand(3, 16, generator=torch.Generator().manual_seed(2)) < 0.4
    mask[1] = False
    mask[2, :9] = True
    return mask
