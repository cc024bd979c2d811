"""The photometric augmentations of FaRL's recipes, with their random draws as arguments. On any device, batched.

Pictures are (..., 3, H, W) floating point RGB in [0, 1]. With ``inplace`` a function works in its argument's memory,
which must be contiguous; fresh memory for every step of a chain would take as long as the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

GRAY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey value (ITU-R BT.601, as in OpenCV)."""


class Rectangle(NamedTuple):
    """Pixels from ``left`` and ``top`` up to, but without, ``right`` and ``bottom``."""

    left: int
    top: int
    right: int
    bottom: int


def to_gray(images: Tensor) -> Tensor:
    """Replace the colours by their grey value.

    Args:
        images: (..., 3, H, W) in [0, 1].

    Returns:
        The same shape, three equal channels.
    """
    red, green, blue = images.unbind(-3)
    gray = red * GRAY[0] + green * GRAY[1] + blue * GRAY[2]
    return gray.unsqueeze(-3).expand_as(images).contiguous()


def change_gamma(images: Tensor, octave: int, *, inplace: bool = False) -> Tensor:
    """Raise to the power 2^octave.

    Args:
        images: (..., H, W); clamped to [0, 1].
        octave: -1 (square root: brighter), 0 (clamp only) or 1 (square: darker).
        inplace: Overwrite ``images``.

    Returns:
        The same shape.
    """
    clamped = images.clamp_(0, 1) if inplace else images.clamp(0, 1)
    if octave == 0:
        return clamped
    return clamped.sqrt_() if octave == -1 else clamped.pow_(2.0**octave)


def box_blur(images: Tensor, size: int, *, inplace: bool = False) -> Tensor:
    """Average over windows of ``size`` x ``size`` pixels; the border is mirrored without repeating its outermost pixel.

    The window of an even size reaches one pixel further to the left and up, as in ``cv2.blur``. Cost grows with the
    logarithm of the size: rows, then columns, are summed in windows of 1, 2, 4, ... pixels.

    Args:
        images: (..., C, H, W), sides above ``size // 2``.
        size: Side of the window in pixels; below 2 nothing happens.
        inplace: Overwrite ``images``.

    Returns:
        The same shape.
    """
    if size < 2:
        return images
    result = images if inplace else images.clone()
    planes = result.view(-1, 1, *images.shape[-2:])
    # one after the other on a CPU, where a plane fits a core's cache and a picture does not
    for part in planes if images.device.type == "cpu" else (planes,):
        part.copy_(_blur(part, size))
    return result


def _blur(planes: Tensor, size: int) -> Tensor:
    """Blur (..., 1, H, W)."""
    before, after = size // 2, size - 1 - size // 2
    padded = F.pad(planes, (before, after, before, after), mode="reflect")
    return _window_sum(_window_sum(padded, size, -1), size, -2).mul_(1 / size**2)


def _window_sum(x: Tensor, size: int, dim: int) -> Tensor:
    """Sum sliding windows along one dimension, from window sums of powers of two."""
    length = x.shape[dim] - size + 1
    power, width, covered = x, 1, 0
    result: Tensor | None = None
    while True:
        if size & width:
            part = power.narrow(dim, covered, length)
            result = part if result is None else result + part
            covered += width
        if 2 * width > size:
            return x if result is None else result
        rest = power.shape[dim] - width
        power = power.narrow(dim, 0, rest) + power.narrow(dim, width, rest)
        width *= 2


def occlusion_rectangle(draws: Sequence[float], size: tuple[int, int]) -> Rectangle:
    """Turn four even draws into the black rectangle of FaRL's alignment recipe.

    Its height is 0.1 to 0.4 of the picture's; its width differs by up to a tenth of the picture's.

    Args:
        draws: Four numbers in [0, 1): height, width against height, centre column, centre row.
        size: Height and width of the picture in pixels.

    Returns:
        The rectangle, cut to the picture; at least one pixel.
    """
    height, width = size
    tall = 0.2 + 0.6 * draws[0]
    wide = tall - 0.2 + 0.4 * draws[1]
    column, row = int((width - 1) * draws[2]), int((height - 1) * draws[3])
    half_height, half_width = int(height / 2 * tall) // 2, int(width / 2 * wide) // 2
    return Rectangle(
        max(column - half_width, 0),
        max(row - half_height, 0),
        min(column + half_width + 1, width),
        min(row + half_height + 1, height),
    )


def occlude(images: Tensor, rectangle: Rectangle, *, inplace: bool = False) -> Tensor:
    """Paint a rectangle black.

    Args:
        images: (..., H, W).
        rectangle: Pixels of the picture.
        inplace: Overwrite ``images``.

    Returns:
        The same shape.
    """
    left, top, right, bottom = rectangle
    images = images if inplace else images.clone()
    images[..., top:bottom, left:right] = 0
    return images


def fuse_noise(images: Tensor, noise: Tensor, alpha: float | Tensor, *, inplace: bool = False) -> Tensor:
    """Mix with noise.

    Args:
        images: (..., H, W).
        noise: The same shape, in [0, 1).
        alpha: Share of the noise, in [0, 1]; broadcasts against ``images``.
        inplace: Overwrite ``images``.

    Returns:
        (1 - alpha) * images + alpha * noise.
    """
    return images.lerp_(noise, alpha) if inplace else images.lerp(noise, alpha)
