"""Cut the crop of one face, and its mask, out of a decoded picture in a single interpolation."""

from __future__ import annotations

import math
import threading

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from farl_lightning.functional.geometry import box_matrix, compose_matrices, invert_matrix
from farl_lightning.functional.warp import Warp, read

Pixels = npt.NDArray[np.uint8]

GATHER_FROM = 4_000_000
"""Pixels of a picture that a crop spans, from which on its own pixels are gathered one by one: turning them all into
floats would take longer, and gigabytes at 12,000 pixels a side."""


class FaceCut:
    """One crop of one picture, worked out once for the picture and its mask.

    Args:
        matrix: (3, 3) float64, source to crop.
        size: Side of the crop in pixels.
        factor: Factor of the tanh warp.
        source_size: Height and width of the picture in pixels.
        antialias: Whether a smaller crop averages over the pixels that it merges.
    """

    def __init__(
        self, matrix: Tensor, size: int, factor: float, source_size: tuple[int, int], antialias: bool = False
    ) -> None:
        self.matrix, self.size, self.factor = matrix, size, factor
        self._warp = Warp(matrix[None], size, factor)
        self._zoom: list[float] = matrix[:2, :2].norm(dim=0).clamp(max=1).tolist() if antialias else [1.0, 1.0]
        margin = 2 / min(self._zoom) if min(self._zoom) < 1 else 0.0  # averages reach beyond what is read
        self._left, self._top, self._right, self._bottom = _window(self._warp, source_size, margin)
        self._grid: Tensor | None = None

    def image(self, image: Pixels) -> Tensor:
        """Cut the picture, bilinear, 0 outside.

        Args:
            image: (H, W, 3) uint8.

        Returns:
            (3, size, size) float32 from 0 to 255.
        """
        part = self._part(image)
        if part.size == 0:
            return torch.zeros(3, self.size, self.size)
        if min(self._zoom) < 1:
            return self._shrunk(part)
        if part.shape[0] * part.shape[1] > GATHER_FROM:
            return _gather_bilinear(part, self._positions())
        return self._read(part, "bilinear")

    def mask(self, mask: Pixels, outside: int = 0) -> Tensor:
        """Cut the label map, nearest.

        Args:
            mask: (H, W) uint8.
            outside: Label of what lies outside.

        Returns:
            (size, size) int64.
        """
        part = self._part(mask)
        if part.size == 0:
            return torch.full((self.size, self.size), outside)
        if part.shape[0] * part.shape[1] > GATHER_FROM:
            return _gather_nearest(part, self._positions(), outside)
        return self._read(part[..., None], "nearest", outside)[0].long()

    def _part(self, pixels: Pixels) -> Pixels:
        """Return what the crop reads of a picture."""
        return pixels[self._top : self._bottom, self._left : self._right]

    def _read(self, part: Pixels, mode: str, outside: int = 0) -> Tensor:
        """Interpolate as floats; (C, size, size)."""
        if self._grid is None:
            self._grid = self._warp.grid((part.shape[0], part.shape[1]), (self._left, self._top))
        source = _floats(part)
        if not outside:
            return read(source, self._grid, mode)[0]
        return read(source.sub_(outside), self._grid, mode)[0].add_(outside)  # grid_sample knows no border but 0

    def _positions(self) -> npt.NDArray[np.float64]:
        """Return where the crop's pixels lie in the part that is read; (size, size, 2) xy."""
        positions: npt.NDArray[np.float64] = self._warp.positions()[0].numpy() - np.array([self._left, self._top])
        return positions

    def _shrunk(self, part: Pixels) -> Tensor:
        """Resize the part with antialiasing to the crop's own, lower resolution and cut from there."""
        size = math.ceil(part.shape[0] * self._zoom[1]), math.ceil(part.shape[1] * self._zoom[0])
        small = F.interpolate(_as_tensor(part), size, mode="bilinear", antialias=True)
        edges = torch.tensor([self._left, self._top, self._right, self._bottom], dtype=self.matrix.dtype) - 0.5
        matrix = compose_matrices(invert_matrix(box_matrix(edges, size)), self.matrix)
        return read(small.float(), Warp(matrix[None], self.size, self.factor).grid(size))[0]


def _window(warp: Warp, source_size: tuple[int, int], margin: float) -> tuple[int, int, int, int]:
    """Return the whole pixels that a crop reads: left, top, and after the last right and bottom; maybe none."""
    left, top, right, bottom = warp.bounds()[0].tolist()
    left, top = max(math.floor(left - margin), 0), max(math.floor(top - margin), 0)
    right = min(math.ceil(right + margin) + 1, source_size[1])
    bottom = min(math.ceil(bottom + margin) + 1, source_size[0])
    return left, top, max(left, right), max(top, bottom)


def _as_tensor(pixels: Pixels) -> Tensor:
    """View (H, W, C) as a (1, C, H, W) uint8 tensor; read-only arrays are copied, which torch would warn about."""
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy()).permute(2, 0, 1)[None]


def _floats(pixels: Pixels) -> Tensor:
    """Turn (H, W, C) uint8 into (1, C, H, W) float32, in memory that the next call overwrites.

    Fresh memory of this size costs as much as the conversion: the system hands it over page by page, in zeros. The
    channels of a pixel stay side by side: sorting them into planes would cost more than reading planes saves.
    """
    source = _as_tensor(pixels).permute(0, 2, 3, 1)
    if getattr(_scratch, "memory", None) is None or _scratch.memory.numel() < source.numel():
        with torch.inference_mode(False):  # memory that an evaluation asked for must serve training, too
            _scratch.memory = torch.empty(source.numel())
    floats: Tensor = _scratch.memory[: source.numel()].view(source.shape)
    return floats.copy_(source).permute(0, 3, 1, 2)


_scratch = threading.local()


def _gather_bilinear(pixels: Pixels, positions: npt.NDArray[np.float64]) -> Tensor:
    """Interpolate by reading the four neighbours of each position."""
    corner = np.floor(positions)
    share = (positions - corner).astype(np.float32)
    result = np.zeros((*positions.shape[:2], 3), np.float32)
    for dx in (0, 1):
        for dy in (0, 1):
            weight = np.abs(1 - dx - share[..., 0]) * np.abs(1 - dy - share[..., 1])
            values, inside = _read(pixels, corner + np.array([dx, dy]))
            result += values * (weight * inside)[..., None]
    return torch.from_numpy(result).permute(2, 0, 1).contiguous()


def _gather_nearest(mask: Pixels, positions: npt.NDArray[np.float64], outside: int) -> Tensor:
    """Read the nearest neighbour of each position."""
    values, inside = _read(mask, np.rint(positions))
    return torch.from_numpy(np.where(inside, values, outside).astype(np.int64))


def _read(pixels: Pixels, positions: npt.NDArray[np.float64]) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """Read pixels at whole positions, and say which lie inside the picture (the others read its border)."""
    height, width = pixels.shape[:2]
    x, y = positions[..., 0], positions[..., 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    rows, columns = y.clip(0, height - 1).astype(np.intp), x.clip(0, width - 1).astype(np.intp)
    return pixels[rows, columns], inside
