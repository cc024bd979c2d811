"""Crop matrices and points: similarity fits, five-point alignment, box crops. Batched and differentiable.

Everything takes float32 or float64 and stays in it. Conventions, everywhere in this package:

- Points are (x, y) in pixels, x to the right, y downwards; **integers are pixel centres**: the centre of the top-left
  pixel is (0, 0), and an image of width W covers x from -0.5 to W - 0.5.
- A matrix is 3x3, maps **source to crop**, and multiplies column vectors (x, y, 1).
- Sizes are (height, width) in pixels, or one int for a square.

Products are written out instead of with ``@``: under autocast a matrix product is rounded to half precision, which
moves points by whole pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

FARL_TEMPLATE: tuple[tuple[float, float], ...] = (
    (196 / 256 - 1, 226 / 256 - 1),
    (316 / 256 - 1, 226 / 256 - 1),
    (256 / 256 - 1, 286 / 256 - 1),
    (220 / 256 - 1, 360.4 / 256 - 1),
    (292 / 256 - 1, 360.4 / 256 - 1),
)
"""Targets on [-1, 1] of two eyes, nose, two mouth corners, from the image's left to its right (FaRL's LaPa crop)."""


def fit_similarity(source: Tensor, target: Tensor) -> Tensor:
    """Fit the similarity (rotation, uniform scale, shift) that maps points onto points with the least squared error.

    Closed form; equal to Umeyama's solution unless that one would need a reflection.

    Args:
        source: (..., N, 2) points, N >= 2.
        target: Where they should land; broadcasts against ``source``.

    Returns:
        (..., 3, 3) matrices, source to target. All-``nan`` shift and rotation where the source points coincide:
        ask :func:`coincident` first where that can happen.
    """
    source_mean, target_mean = source.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    f, t = source - source_mean, target - target_mean
    spread = f.square().sum((-2, -1))
    cos = (t * f).sum((-2, -1)) / spread
    sin = (t[..., 0] * f[..., 1] - t[..., 1] * f[..., 0]).sum(-1) / spread
    linear = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    return _affine(linear, (target_mean - _transform(source_mean, linear))[..., 0, :])


def coincident(points: Tensor, tolerance: float = 1e-3) -> Tensor:
    """Tell which sets of points lie (almost) on one spot, or are not finite, so that no similarity can be fitted.

    Args:
        points: (..., N, 2) in pixels.
        tolerance: Root mean square distance from their mean, in pixels, up to which points count as one spot.

    Returns:
        (...) bool.
    """
    spread = (points - points.mean(-2, keepdim=True)).square().sum(-1).mean(-1)
    return ~(spread > tolerance**2) | ~points.isfinite().all(-1).all(-1)


def template_points(
    size: int | tuple[int, int],
    template: Sequence[Sequence[float]] | Tensor = FARL_TEMPLATE,
    scale: float = 1.0,
    offset: tuple[float, float] = (0.0, 0.0),
    *,
    like: Tensor | None = None,
) -> Tensor:
    """Place a template on a crop: -1 and 1 are the centres of its first and last pixels.

    Args:
        size: Height and width of the crop in pixels.
        template: (N, 2) points on [-1, 1].
        scale: Size of the face relative to the template; below 1 shows more around the face.
        offset: Shift of the targets (x, y) in pixels of the crop.
        like: A tensor whose dtype and device the result takes.

    Returns:
        (N, 2) points in pixels of the crop.
    """
    reference = torch.empty(0) if like is None else like
    height, width = height_width(size)
    half = reference.new_tensor([(width - 1) / 2, (height - 1) / 2])
    points = torch.as_tensor(template, dtype=reference.dtype, device=reference.device)
    return points * (half * scale) + half + reference.new_tensor(offset)


def align_matrix(
    points: Tensor,
    size: int | tuple[int, int],
    template: Sequence[Sequence[float]] | Tensor = FARL_TEMPLATE,
    scale: float = 1.0,
    offset: tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """Return the matrices that carry faces onto a template.

    Args:
        points: (..., N, 2) landmarks, as many and in the same order as in ``template`` (five by default).
        size: Height and width of the crop in pixels.
        template: See :func:`template_points`.
        scale: See :func:`template_points`.
        offset: See :func:`template_points`.

    Returns:
        (..., 3, 3) matrices, source to crop.
    """
    return fit_similarity(points, template_points(size, template, scale, offset, like=points))


def square_box(box: Tensor, scale: float = 1.0) -> Tensor:
    """Grow boxes to squares around their centres.

    Args:
        box: (..., 4): left, top, right, bottom.
        scale: Share of the square's side that the box's longer side fills; 0.8 leaves a tenth of the side around it.

    Returns:
        (..., 4) boxes.
    """
    corner, opposite = box[..., :2], box[..., 2:]
    center = (corner + opposite) / 2
    radius = (opposite - corner).amax(-1, keepdim=True) / (2 * scale)
    return torch.cat([center - radius, center + radius], -1)


def box_matrix(box: Tensor, size: int | tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """Return the matrices that stretch boxes over a crop: x' = (x - left) / (right - left) * W - 0.5.

    Args:
        box: (..., 4): left, top, right, bottom.
        size: Height and width of the crop in pixels.
        align_corners: Put the box's sides on the centres of the outermost pixels (x' from 0 to W - 1) instead of on
            their outer edges (x' from -0.5 to W - 0.5).

    Returns:
        (..., 3, 3) matrices, source to crop. Infinite or ``nan`` for a box without area.
    """
    height, width = height_width(size)
    target, shift = box.new_tensor([width, height]), -0.5
    if align_corners:
        target, shift = target - 1, 0.0
    zoom = target / (box[..., 2:] - box[..., :2])
    return _affine(torch.diag_embed(zoom), shift - box[..., :2] * zoom)


def quad_corners(points: Tensor) -> Tensor:
    """Return the oriented square that CelebA-HQ was cropped by.

    Half of its side is the larger of twice the eyes' distance and 1.8 times the distance from eyes to mouth. After
    Karras et al., "Progressive Growing of GANs", appendix C, with the half pixel that facer's version adds to the eyes
    and mouth.

    Args:
        points: (..., 5, 2) eye centres, nose tip, mouth corners, from the image's left to its right.

    Returns:
        (..., 4, 2) corners: those that become the crop's top left, top right, bottom right and bottom left.
    """
    eyes, mouth = (points[..., 0, :] + points[..., 1, :]) / 2 + 0.5, (points[..., 3, :] + points[..., 4, :]) / 2 + 0.5
    apart, down = points[..., 1, :] - points[..., 0, :], mouth - eyes
    x = apart - _quarter_turn(down)
    length = torch.maximum(2 * apart.norm(dim=-1), 1.8 * down.norm(dim=-1))
    x = x * (length / x.norm(dim=-1))[..., None]
    y, center = _quarter_turn(x), eyes + 0.1 * down
    return torch.stack([center - x - y, center + x - y, center + x + y, center - x + y], -2)


def quad_matrix(points: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Return the matrices that carry faces onto CelebA-HQ's crop (:func:`quad_corners`).

    Args:
        points: (..., 5, 2) eye centres, nose tip, mouth corners, from the image's left to its right.
        size: Height and width of the crop in pixels; the quad's corners land on (0, 0) and (width, height).

    Returns:
        (..., 3, 3) matrices, source to crop.
    """
    height, width = height_width(size)
    target = points.new_tensor([[0, 0], [width, 0], [width, height], [0, height]])
    return fit_similarity(quad_corners(points), target)


def similarity_matrix(
    angle: Tensor,
    scale: Tensor,
    shift: Tensor,
    size: int | tuple[int, int],
    source_size: int | tuple[int, int] | None = None,
) -> Tensor:
    """Return the matrices that turn and scale about the centre and then shift: what random augmentation multiplies by.

    Args:
        angle: (...) radians; positive turns the picture clockwise (from x towards y).
        scale: (...) factor.
        shift: (..., 2) xy in pixels of the result.
        size: Height and width of the result in pixels.
        source_size: Height and width of what is turned, whose centre lands on the result's; None: equal to ``size``.

    Returns:
        (..., 3, 3).
    """
    cos, sin = angle.cos() * scale, angle.sin() * scale
    linear = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    target, source = (_center(s, shift) for s in (size, size if source_size is None else source_size))
    return _affine(linear, target - _transform(source[None], linear)[..., 0, :] + shift)


def flip_matrix(size: int | tuple[int, int], *, vertical: bool = False, like: Tensor | None = None) -> Tensor:
    """Return the matrix of a mirror image: x' = width - 1 - x, or y' = height - 1 - y.

    Args:
        size: Height and width in pixels.
        vertical: Exchange top and bottom instead of left and right.
        like: A tensor whose dtype and device the result takes.

    Returns:
        (3, 3).
    """
    height, width = height_width(size)
    plain = [[1.0, 0, 0], [0, -1, height - 1], [0, 0, 1]] if vertical else [[-1.0, 0, width - 1], [0, 1, 0], [0, 0, 1]]
    return (torch.empty(0) if like is None else like).new_tensor(plain)


def apply_matrix(points: Tensor, matrix: Tensor) -> Tensor:
    """Send points through matrices (with the homogeneous divide).

    Args:
        points: (..., N, 2).
        matrix: (..., 3, 3).

    Returns:
        (..., N, 2).
    """
    moved = _transform(points, matrix[..., :2]) + matrix[..., None, :, 2]
    return moved[..., :2] / moved[..., 2:]


def compose_matrices(*matrices: Tensor) -> Tensor:
    """Chain matrices in the order in which they act: the first argument acts first.

    Args:
        matrices: (..., 3, 3) each.

    Returns:
        (..., 3, 3).
    """
    return functools.reduce(lambda first, then: _transform(first.mT, then).mT, matrices)


def invert_matrix(matrix: Tensor) -> Tensor:
    """Return the matrices that undo matrices: crop to source.

    Args:
        matrix: (..., 3, 3), invertible.
    """
    inverse: Tensor = torch.linalg.inv(matrix)
    return inverse


def height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return height and width of a size that may be one int.

    Args:
        size: (height, width), or the side of a square.
    """
    return (size, size) if isinstance(size, int) else size


def _quarter_turn(vector: Tensor) -> Tensor:
    """Turn vectors by 90 degrees from x towards y."""
    return torch.stack([-vector[..., 1], vector[..., 0]], -1)


def _center(size: int | tuple[int, int], like: Tensor) -> Tensor:
    """Return the (2,) centre of a crop."""
    height, width = height_width(size)
    return like.new_tensor([(width - 1) / 2, (height - 1) / 2])


def _transform(points: Tensor, linear: Tensor) -> Tensor:
    """Multiply (..., N, K) points by (..., M, K) matrices; (..., N, M)."""
    return (points[..., None, :] * linear[..., None, :, :]).sum(-1)


def _affine(linear: Tensor, shift: Tensor) -> Tensor:
    """Build (..., 3, 3) from the (..., 2, 2) linear part and the (..., 2) shift."""
    rows = torch.cat([linear, shift[..., None]], -1)
    last = rows.new_tensor([0.0, 0.0, 1.0]).expand(*rows.shape[:-2], 1, 3)
    return torch.cat([rows, last], -2)
