"""From the tokens of a vision transformer to the four resolutions of a convolutional network."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from farl_lightning.errors import ConfigError
from farl_lightning.layers.upsample import Upsample

LEVELS = 4


class FeaturePyramid(nn.Module):
    """FaRL's neck: four feature maps of one resolution become four resolutions.

    The levels have strides of about 4, 8, 16 and 32 pixels. For patches of 16 and 14 pixels they are enlarged 4 and 2
    times, kept, and max-pooled 2 times; for patches of 8 pixels enlarged 2 times, kept, and max-pooled 2 and 4 times;
    for other patches accordingly.

    Args:
        width: Channels C of the maps.
        patch_size: Side of a patch in pixels.

    Attributes:
        levels: What is done to each map.
        smallest_grid: Patches along a side that it takes at least: fewer leave nothing of the last level.

    Raises:
        ConfigError: If the patch size is not above 0.
    """

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        if patch_size < 1:
            raise ConfigError(f"a feature pyramid needs a patch_size above 0, such as 16; got {patch_size}")
        top = 2 + round(math.log2(patch_size / 16))
        self.levels = nn.ModuleList(_level(width, top - index) for index in range(LEVELS))
        self.smallest_grid = 2 ** max(LEVELS - 1 - top, 0)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Change the resolutions.

        Args:
            maps: Four (B, C, h, w), from the earliest block to the latest.

        Returns:
            Four maps of C channels, from the finest to the coarsest. Pooling drops an odd row or column.

        Raises:
            ConfigError: If there are not four maps, or they are too small.
        """
        if len(maps) != LEVELS:
            raise ConfigError(
                f"a feature pyramid takes {LEVELS} maps, one per level; got {len(maps)}: set {LEVELS} taps"
            )
        if min(maps[-1].shape[-2:]) < self.smallest_grid:
            raise ConfigError(
                f"maps of {maps[-1].shape[-2]} x {maps[-1].shape[-1]} patches are too small; this pyramid takes "
                f"{self.smallest_grid} x {self.smallest_grid} or more: enlarge image_size"
            )
        return [level(one) for level, one in zip(self.levels, maps, strict=True)]


def _level(width: int, doublings: int) -> nn.Module:
    """Enlarge, keep, or pool, by a power of two."""
    if doublings > 0:
        return Upsample(width, doublings)
    return nn.MaxPool2d(2**-doublings) if doublings else nn.Identity()
