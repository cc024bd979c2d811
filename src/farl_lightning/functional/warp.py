"""From crop pixels to source pixels and back: the tanh warp, sampling grids, points, sampling. Differentiable, batched.

A crop is an affine matrix (:mod:`farl_lightning.functional.geometry`) followed by the tanh warp of RoI Tanh-polar
parsing (Lin et al. 2021) in the rectangular form that FaRL uses: the middle of the crop, up to ``1 - factor`` of its
half side, shows the face undistorted; the rim squeezes in what lies around it, with no end. Factor 0 switches it off.

Two conventions say where in a pixel a position lies:

- ``"blueprint"`` (FaRL's training code, and the default): pixel i is sampled at i.
- ``"facer"`` (facer's inference code): pixel i is sampled at i + 0.5, on both sides of the map, although the matrix was
  fitted to pixel indices. Scale and turn thus act around a point half a pixel away.

All positions that go in and come out here are pixel indices (centres at integers) in both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.functional.geometry import apply_matrix, height_width, invert_matrix

CONVENTIONS = {"blueprint": 0.0, "facer": 0.5}
"""What is added to a pixel's index to get the position that the map acts on."""

_LIMIT = 0.999
"""Share of the tanh's range that is used: beyond it the inverse would be infinitely far away."""

Size = int | tuple[int, int]
Bend = Callable[[Tensor, int, float], Tensor]


def tanh_forward(points: Tensor, size: Size, factor: float) -> Tensor:
    """Squeeze positions of the affine crop into the warped crop: what lies far outside moves to its rim.

    With u = 2p / size - 1, |u| above 1 - f becomes tanh((|u| - 1 + f) / f) f + 1 - f.

    Args:
        points: (..., 2) xy in pixels.
        size: Height and width of the crop in pixels.
        factor: f in [0, 1]; 0 returns the points as they are.

    Returns:
        (..., 2).
    """
    return _warp(points, size, factor, _squeeze)


def tanh_inverse(points: Tensor, size: Size, factor: float) -> Tensor:
    """Undo :func:`tanh_forward`; the outermost 0.1 % of the rim has no inverse and lands where that begins.

    Args:
        points: (..., 2) xy in pixels of the warped crop.
        size: Height and width of the crop in pixels.
        factor: f in [0, 1].

    Returns:
        (..., 2) xy in pixels of the affine crop.
    """
    return _warp(points, size, factor, _stretch)


def points_to_crop(
    points: Tensor, matrix: Tensor, size: Size, factor: float = 0.0, convention: str = "blueprint"
) -> Tensor:
    """Send points of the source into the crop.

    Args:
        points: (..., N, 2) xy in source pixels.
        matrix: (..., 3, 3), source to crop.
        size: Height and width of the crop in pixels.
        factor: Factor of the tanh warp.
        convention: ``"blueprint"`` or ``"facer"``.

    Returns:
        (..., N, 2) xy in crop pixels.
    """
    offset = _offset(convention)
    return tanh_forward(apply_matrix(points + offset, matrix), size, factor) - offset


def points_to_source(
    points: Tensor, matrix: Tensor, size: Size, factor: float = 0.0, convention: str = "blueprint"
) -> Tensor:
    """Send points of the crop back into the source; see :func:`points_to_crop`.

    Args:
        points: (..., N, 2) xy in crop pixels.
        matrix: (..., 3, 3), source to crop.
        size: Height and width of the crop in pixels.
        factor: Factor of the tanh warp.
        convention: ``"blueprint"`` or ``"facer"``.

    Returns:
        (..., N, 2) xy in source pixels.
    """
    offset = _offset(convention)
    return apply_matrix(tanh_inverse(points + offset, size, factor), invert_matrix(matrix)) - offset


def crop_to_source_grid(matrix: Tensor, size: Size, factor: float = 0.0, convention: str = "blueprint") -> Tensor:
    """Say for every pixel of the crop where in the source it comes from: the grid that cuts the crop.

    Args:
        matrix: (B, 3, 3), source to crop, affine (last row 0 0 1).
        size: Height and width of the crop in pixels.
        factor: Factor of the tanh warp.
        convention: ``"blueprint"`` or ``"facer"``.

    Returns:
        (B, H, W, 2) xy in source pixels.
    """
    return Warp(matrix, size, factor, convention).positions()


def source_to_crop_grid(
    matrix: Tensor,
    source_size: Size,
    crop_size: Size,
    factor: float = 0.0,
    convention: str = "blueprint",
    *,
    rows: tuple[int, int] | None = None,
) -> Tensor:
    """Say for every pixel of the source where in the crop it is found: the grid that carries results back.

    Args:
        matrix: (B, 3, 3), source to crop, affine.
        source_size: Height and width of the source in pixels.
        crop_size: Height and width of the crop in pixels.
        factor: Factor of the tanh warp.
        convention: ``"blueprint"`` or ``"facer"``.
        rows: First row of the source and the one after the last, for work in tiles; None takes all.

    Returns:
        (B, rows, W, 2) xy in crop pixels.
    """
    offset = _offset(convention)
    height, width = height_width(source_size)
    x = torch.arange(width, dtype=matrix.dtype, device=matrix.device) + offset
    y = torch.arange(*(rows or (0, height)), dtype=matrix.dtype, device=matrix.device) + offset
    return tanh_forward(_outer(*_axes(matrix, x, y)), crop_size, factor) - offset


def sample(image: Tensor, grid: Tensor, mode: str = "bilinear") -> Tensor:
    """Read pictures at positions; what lies outside is 0, and fades in over the pixel next to the border.

    The values at integer positions are the pixels themselves, as in ``cv2.remap`` with a constant border.

    Args:
        image: (B, C, H, W) floating point.
        grid: (B, h, w, 2) xy in pixels of ``image``.
        mode: ``"bilinear"`` or ``"nearest"``.

    Returns:
        (B, C, h, w).
    """
    height, width = image.shape[-2:]
    relative = torch.stack([(2 * grid[..., 0] + 1) / width - 1, (2 * grid[..., 1] + 1) / height - 1], -1)
    return read(image, relative.to(image.dtype), mode)


class Warp:
    """The map of a batch of crops, worked out once for pictures, label maps and the part of the source they need.

    Columns and rows are mapped as vectors, in the matrix's own precision (the tanh warp acts axis by axis); the grid
    is their outer sum. That makes it quicker than the general :func:`crop_to_source_grid` with :func:`sample`.

    Args:
        matrix: (B, 3, 3), source to crop, affine (last row 0 0 1).
        size: Height and width of the crop in pixels.
        factor: Factor of the tanh warp.
        convention: ``"blueprint"`` or ``"facer"``.
    """

    def __init__(self, matrix: Tensor, size: Size, factor: float = 0.0, convention: str = "blueprint") -> None:
        offset = _offset(convention)
        height, width = height_width(size)
        x, y = (_crop_axis(length, factor, offset, matrix.dtype, matrix.device) for length in (width, height))
        self._columns, rows = _axes(invert_matrix(matrix), x, y)
        self._rows = rows - offset

    def positions(self) -> Tensor:
        """Return (B, H, W, 2) xy in source pixels."""
        return _outer(self._columns, self._rows)

    def bounds(self) -> Tensor:
        """Return (B, 4) left, top, right, bottom: the outermost positions, in source pixels."""
        (left, right), (top, bottom) = ((axis[..., 0, :], axis[..., -1, :]) for axis in (self._columns, self._rows))
        lowest = torch.minimum(left, right) + torch.minimum(top, bottom)
        return torch.cat([lowest, torch.maximum(left, right) + torch.maximum(top, bottom)], -1)

    def grid(self, source_size: Size, origin: tuple[int, int] = (0, 0), dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the grid that :func:`read` takes.

        Args:
            source_size: Height and width of the picture, or of the part of it, that will be read.
            origin: Left and top of that part.
            dtype: Of the picture.

        Returns:
            (B, H, W, 2) on [-1, 1], which are the outer edges of the outermost pixels.
        """
        height, width = height_width(source_size)
        unit = 2 / self._rows.new_tensor([width, height])
        rows = (self._rows - self._rows.new_tensor(origin) + 0.5) * unit - 1
        return _outer((self._columns * unit).to(dtype), rows.to(dtype))


def read(image: Tensor, grid: Tensor, mode: str = "bilinear") -> Tensor:
    """Read pictures by the grid of :class:`Warp`, as :func:`sample` does by positions.

    Args:
        image: (B, C, H, W) floating point.
        grid: (B, h, w, 2) of the same dtype.
        mode: ``"bilinear"`` or ``"nearest"``.

    Returns:
        (B, C, h, w).
    """
    return F.grid_sample(image, grid, mode=mode, padding_mode="zeros", align_corners=False)


def _offset(convention: str) -> float:
    """Look up a convention."""
    if convention not in CONVENTIONS:
        raise ConfigError(f"convention '{convention}' is unknown. {did_you_mean(convention, CONVENTIONS)}")
    return CONVENTIONS[convention]


def _warp(points: Tensor, size: Size, factor: float, bend: Bend) -> Tensor:
    """Apply a bend to both axes."""
    if factor <= 0:
        return points
    height, width = height_width(size)
    if height == width:
        return bend(points, width, factor)
    return torch.stack([bend(points[..., 0], width, factor), bend(points[..., 1], height, factor)], -1)


def _squeeze(position: Tensor, size: int, factor: float) -> Tensor:
    """Forward along one axis."""
    u = position * (2 / size) - 1
    beyond = torch.tanh((u.abs() - (1 - factor)) / factor) * factor + (1 - factor)
    return (torch.where(u.abs() > 1 - factor, u.sign() * beyond, u) + 1) * (size / 2)


def _stretch(position: Tensor, size: int, factor: float) -> Tensor:
    """Inverse along one axis. The clamp's lower end keeps the gradient of the branch not taken finite."""
    u = position * (2 / size) - 1
    within = ((u.abs() - (1 - factor)) / factor).clamp(0, _LIMIT)
    beyond = torch.atanh(within) * factor + (1 - factor)
    return (torch.where(u.abs() > 1 - factor, u.sign() * beyond, u) + 1) * (size / 2)


@functools.lru_cache(maxsize=16)
def _crop_axis(length: int, factor: float, offset: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return where the pixels of a warped crop lie along one axis of the affine crop; the same for every picture."""
    axis = torch.arange(length, dtype=dtype, device=device) + offset
    return _stretch(axis, length, factor) if factor > 0 else axis


def _axes(matrix: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return (..., W, 2) and (..., H, 2), whose outer sum is the matrix applied to every (x, y)."""
    columns = x[:, None] * matrix[..., None, :2, 0]
    rows = y[:, None] * matrix[..., None, :2, 1] + matrix[..., None, :2, 2]
    return columns, rows


def _outer(columns: Tensor, rows: Tensor) -> Tensor:
    """Add (..., 1, W, 2) and (..., H, 1, 2). As complex numbers, which torch adds ten times as fast as pairs."""
    total = torch.view_as_complex(columns.contiguous())[..., None, :]
    total = total + torch.view_as_complex(rows.contiguous())[..., :, None]
    return torch.view_as_real(total)
