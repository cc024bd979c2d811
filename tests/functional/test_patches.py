"""Pictures as patches."""

from __future__ import annotations

import torch

from farl_lightning.functional.patches import patchify, unpatchify


def test_order():
    image = torch.arange(2 * 4 * 6).view(1, 2, 4, 6)
    patches = patchify(image, 2)
    assert patches.shape == (1, 6, 8)
    # second patch of the first row: pixels (0, 2), (0, 3), (1, 2), (1, 3), both channels of each
    assert patches[0, 1].tolist() == [2, 26, 3, 27, 8, 32, 9, 33]


def test_round_trip():
    image = torch.randn(3, 3, 8, 12)
    assert torch.equal(unpatchify(patchify(image, 4), (2, 3)), image)
