"""Which part of a picture becomes the network's input, decided before a pixel is decoded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from farl_lightning.errors import ConfigError, DataError, did_you_mean
from farl_lightning.functional.geometry import FARL_TEMPLATE, align_matrix, coincident, invert_matrix, square_box

CROPS = ("none", "center", "box", "align")
"""The crop policies, see :class:`FaceCrop`."""

_WINDOW_TRIES = 10


class CropError(DataError):
    """A picture from which the requested crop cannot be cut: no box or landmarks, or useless ones."""


class Region(NamedTuple):
    """A parallelogram of a picture that is stretched over the crop.

    In pixels of the upright picture, measured from the outer corner of its top-left pixel: pixel i covers [i, i + 1].
    (A point in the package's convention, pixel centres at integers, lies half a pixel further right and down.)

    Attributes:
        x: Where the crop's top-left corner lies.
        y: Where the crop's top-left corner lies.
        ux: The crop's upper side, as a vector.
        uy: The crop's upper side, as a vector.
        vx: The crop's left side, as a vector.
        vy: The crop's left side, as a vector.
    """

    x: float
    y: float
    ux: float
    uy: float
    vx: float
    vy: float

    @property
    def is_upright(self) -> bool:
        """Whether the sides run along the picture's rows and columns."""
        return self.uy == 0 and self.vx == 0 and self.ux > 0 and self.vy > 0

    @property
    def width(self) -> float:
        """Length of the upper side in pixels of the picture."""
        return math.hypot(self.ux, self.uy)

    @property
    def height(self) -> float:
        """Length of the left side in pixels of the picture."""
        return math.hypot(self.vx, self.vy)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the upright rectangle around the region."""
        xs = (self.x, self.x + self.ux, self.x + self.vx, self.x + self.ux + self.vx)
        ys = (self.y, self.y + self.uy, self.y + self.vy, self.y + self.uy + self.vy)
        return min(xs), min(ys), max(xs), max(ys)

    def window(self, left: float, top: float, right: float, bottom: float) -> Region:
        """Return a part of the region, its borders given as shares of the sides."""
        return Region(
            self.x + left * self.ux + top * self.vx,
            self.y + left * self.uy + top * self.vy,
            (right - left) * self.ux,
            (right - left) * self.uy,
            (bottom - top) * self.vx,
            (bottom - top) * self.vy,
        )

    def scaled(self, horizontal: float, vertical: float) -> Region:
        """Return the same region of the picture resized by these factors."""
        return Region(
            self.x * horizontal,
            self.y * vertical,
            self.ux * horizontal,
            self.uy * vertical,
            self.vx * horizontal,
            self.vy * vertical,
        )

    @classmethod
    def from_box(cls, left: float, top: float, right: float, bottom: float) -> Region:
        """Return an upright region from its borders."""
        return cls(left, top, right - left, 0.0, 0.0, bottom - top)

    @classmethod
    def from_matrix(cls, matrix: torch.Tensor, size: int) -> Region:
        """Return the region that an affine matrix carries onto a crop.

        Args:
            matrix: (3, 3), source to crop, pixel centres at integers (:mod:`farl_lightning.functional.geometry`).
            size: Side of the square crop in pixels.
        """
        (a, b, c), (d, e, f), _ = invert_matrix(matrix.double()).tolist()
        x, y = c - (a + b) / 2 + 0.5, f - (d + e) / 2 + 0.5
        return cls(x, y, a * size, d * size, b * size, e * size)


class FaceCrop:
    """Choose the part of a picture that shows the face.

    Args:
        policy: ``"none"``: the whole picture in training, its largest centred square in evaluation;
            ``"center"``: the largest centred square always;
            ``"box"``: a square around the face box, grown by ``margin``;
            ``"align"``: the similarity that carries five landmarks onto ``template``.
        margin: Range of the space left around the box on every side, as a share of its longer side. Drawn evenly in
            training; evaluation uses the middle of the range.
        template: Five target points on [-1, 1]; see :data:`farl_lightning.functional.geometry.FARL_TEMPLATE`.
        align_scale: Size of the aligned face relative to the template; below 1 shows more around it.
        size: Side of the crop in pixels; the template's -1 and 1 are the centres of its outermost pixels.

    Raises:
        ConfigError: If the policy is unknown or a number cannot work.
    """

    def __init__(
        self,
        policy: str = "none",
        margin: Sequence[float] = (0.2, 0.5),
        template: Sequence[Sequence[float]] = FARL_TEMPLATE,
        align_scale: float = 1.0,
        size: int = 224,
    ) -> None:
        if policy not in CROPS:
            raise ConfigError(f"crop '{policy}' is unknown. {did_you_mean(policy, CROPS)}")
        if not -0.5 < margin[0] <= margin[1]:
            raise ConfigError(f"margin must be a rising range above -0.5, got {tuple(margin)}")
        if not align_scale > 0:
            raise ConfigError(f"align_scale must be above 0, got {align_scale}")
        self.policy = policy
        self.margin = (float(margin[0]), float(margin[1]))
        self.template = torch.tensor([[float(x), float(y)] for x, y in template], dtype=torch.float64)
        self.align_scale = align_scale
        self.size = size

    def __call__(
        self,
        size: tuple[int, int],
        *,
        box: Sequence[float] | None = None,
        landmarks: Sequence[Sequence[float]] | None = None,
        train: bool = False,
    ) -> Region:
        """Return the region of one picture. Random numbers come from torch's global generator.

        Args:
            size: Width and height of the upright picture.
            box: Left, top, right and bottom of the face in pixels; needed by ``"box"``.
            landmarks: Five points (x, y) in pixels, in the template's order; needed by ``"align"``.
            train: Whether to draw at random.

        Raises:
            CropError: If what the policy needs is missing or useless.
        """
        if self.policy == "box":
            return self._around_box(size, box, train)
        if self.policy == "align":
            return self._aligned(size, landmarks)
        if self.policy == "none" and train:
            return Region.from_box(0, 0, *size)
        return center_square(*size)

    def _around_box(self, size: tuple[int, int], box: Sequence[float] | None, train: bool) -> Region:
        """Return the square around the visible part of a face box."""
        if box is None:
            raise CropError("crop 'box' needs a face box, and this sample has none")
        low, high = self.margin
        margin = low + (high - low) * (torch.rand(()).item() if train else 0.5)
        square = square_box(torch.tensor(visible_box(box, size), dtype=torch.float64), 1 / (1 + 2 * margin))
        return Region.from_box(*square.tolist())

    def _aligned(self, size: tuple[int, int], landmarks: Sequence[Sequence[float]] | None) -> Region:
        """Return the region that the similarity fit carries onto the crop."""
        if landmarks is None:
            raise CropError("crop 'align' needs landmarks, and this sample has none")
        points = torch.as_tensor(landmarks, dtype=torch.float64)
        if points.shape != self.template.shape:
            raise CropError(
                f"crop 'align' needs {len(self.template)} landmarks (x, y), got shape {tuple(points.shape)}"
            )
        if coincident(points, tolerance=0.5):
            raise CropError(f"landmarks lie on one spot or are not finite: {points.tolist()}")
        region = Region.from_matrix(align_matrix(points, self.size, self.template, self.align_scale), self.size)
        visible_box(region.bounds, size)
        return region


def center_square(width: float, height: float) -> Region:
    """Return the largest square in the middle of a picture."""
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return Region.from_box(left, top, left + side, top + side)


def visible_box(box: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Cut a box to the picture.

    Args:
        box: Left, top, right and bottom in pixels.
        size: Width and height of the picture.

    Raises:
        CropError: If nothing is left, or a number is not finite.
    """
    left, top, right, bottom = (float(value) for value in box)
    width, height = size
    cut = max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))
    if not (cut[0] < cut[2] and cut[1] < cut[3] and all(map(math.isfinite, (left, top, right, bottom)))):
        raise CropError(f"face box {(left, top, right, bottom)} does not meet the picture of {width} x {height} pixels")
    return cut


def random_window(region: Region, scale: Sequence[float], ratio: Sequence[float]) -> Region:
    """Draw a part of a region as torchvision's RandomResizedCrop draws one, but before any pixel exists.

    Ten draws of area and aspect ratio, else the largest centred part whose aspect ratio is allowed. Random numbers come
    from torch's global generator.

    Args:
        region: The region to draw from.
        scale: Range of the part's area as a share of the region's.
        ratio: Range of its width over its height in pixels of the picture, drawn evenly in its logarithm.
    """
    width, height = region.width, region.height
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_WINDOW_TRIES):
        area, shape, left, top = torch.rand(4).tolist()
        target = width * height * (scale[0] + (scale[1] - scale[0]) * area)
        aspect = math.exp(low + (high - low) * shape)
        w, h = math.sqrt(target * aspect) / width, math.sqrt(target / aspect) / height
        if w <= 1 and h <= 1:
            left, top = left * (1 - w), top * (1 - h)
            return region.window(left, top, left + w, top + h)
    aspect = min(max(width / height, ratio[0]), ratio[1])
    w, h = min(1.0, aspect * height / width), min(1.0, width / aspect / height)
    return region.window((1 - w) / 2, (1 - h) / 2, (1 + w) / 2, (1 + h) / 2)
