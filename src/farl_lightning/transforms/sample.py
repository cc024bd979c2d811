"""Cut a region out of a picture and resize it, in one step."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from farl_lightning.transforms.crop import Region

INTERPOLATIONS = ("bilinear", "bicubic")
"""Names of the interpolations."""


class ImageSource(Protocol):
    """A picture that may not be decoded yet."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, upright, at full scale."""

    def load(self, scale: float = 1.0) -> Image.Image:
        """Return the picture as upright RGB, at ``scale`` or anything larger up to full size."""


class LoadedImage:
    """An :class:`ImageSource` around a picture that is in memory already.

    Args:
        image: A PIL image, or (H, W, 3) uint8.
    """

    def __init__(self, image: Image.Image | np.ndarray) -> None:
        self._image = Image.fromarray(image) if isinstance(image, np.ndarray) else image

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._image.size

    def load(self, scale: float = 1.0) -> Image.Image:  # noqa: ARG002 - full size is always large enough
        """Return the picture as RGB at full size."""
        return self._image if self._image.mode == "RGB" else self._image.convert("RGB")


def as_source(image: Image.Image | np.ndarray | ImageSource) -> ImageSource:
    """Wrap a picture that is in memory; return anything else as it is.

    Args:
        image: A PIL image, (H, W, 3) uint8, or an :class:`ImageSource`.
    """
    return LoadedImage(image) if isinstance(image, Image.Image | np.ndarray) else image


def cut(source: ImageSource, region: Region, size: int, interpolation: str = "bicubic") -> Tensor:
    """Cut a region and resize it to a square, decoding no more pixels than that needs.

    Shrinking is antialiased. What lies outside the picture is black. The borders of an upright region are rounded to
    whole pixels of the decoded picture, which has at least as many pixels as the crop.

    Args:
        source: The picture.
        region: In pixels of the picture at full scale.
        size: Side of the result in pixels.
        interpolation: ``"bicubic"`` or ``"bilinear"``.

    Returns:
        (3, size, size) uint8, RGB.
    """
    width, height = source.size
    image = source.load(max(size / region.width, size / region.height))
    region = region.scaled(image.width / width, image.height / height)
    if region.is_upright:
        return _resize(image, _whole_pixels(region.bounds), (size, size), interpolation)
    return _warp(image, region, size, interpolation)


def _resize(image: Image.Image, box: tuple[int, int, int, int], size: tuple[int, int], interpolation: str) -> Tensor:
    """Crop to whole pixels and resize to (width, height); (3, height, width) uint8.

    torch's antialiased uint8 kernels give Pillow's pixels (one grey level apart at most) two to four times as fast.
    """
    if box != (0, 0, *image.size):
        image = image.crop(box)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    if image.size == size:
        return pixels
    return F.interpolate(pixels[None], (size[1], size[0]), mode=interpolation, antialias=True)[0]


def _warp(image: Image.Image, region: Region, size: int, interpolation: str) -> Tensor:
    """Sample a rotated region: shrink what is needed of the picture with antialiasing first, then turn it."""
    left, top, right, bottom = region.bounds
    box = _whole_pixels((max(left - 2, 0), max(top - 2, 0), min(right + 2, image.width), min(bottom + 2, image.height)))
    zoom = min(1.0, max(size / region.width, size / region.height))
    part = (math.ceil((box[2] - box[0]) * zoom), math.ceil((box[3] - box[1]) * zoom))
    shrunk = _resize(image, box, part, interpolation)
    region = region._replace(x=region.x - box[0], y=region.y - box[1])
    grid = _grid(region.scaled(1 / (box[2] - box[0]), 1 / (box[3] - box[1])), size)
    turned = F.grid_sample(shrunk[None].float(), grid, mode=interpolation, align_corners=False)[0]
    return turned.round_().clamp_(0, 255).to(torch.uint8)


def _grid(region: Region, size: int) -> Tensor:
    """Return grid_sample's (1, size, size, 2) grid for a region given in shares of the picture's sides."""
    x, y, ux, uy, vx, vy = region
    theta = torch.tensor([[[ux, vx, 2 * x + ux + vx - 1], [uy, vy, 2 * y + uy + vy - 1]]])
    return F.affine_grid(theta, [1, 3, size, size], align_corners=False)


def _whole_pixels(bounds: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
    """Round borders to whole pixels, leaving at least one pixel."""
    left, top, right, bottom = (round(value) for value in bounds)
    return left, top, max(right, left + 1), max(bottom, top + 1)
