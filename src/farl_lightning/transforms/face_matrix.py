"""The matrix that cuts one face out of a photograph by the rule of a FaceSpec, or the reason why it cannot be cut."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from farl_lightning.errors import ConfigError
from farl_lightning.functional.geometry import (
    box_matrix,
    coincident,
    compose_matrices,
    fit_similarity,
    quad_matrix,
    similarity_matrix,
    square_box,
    template_points,
)
from farl_lightning.transforms.crop import CropError, visible_box
from farl_lightning.types import FaceSpec


def face_matrix(
    spec: FaceSpec,
    source_size: tuple[int, int],
    *,
    box: Sequence[float] | None = None,
    points: Any = None,
) -> Tensor:
    """Return the matrix that carries a picture onto its crop, before the tanh warp.

    Args:
        spec: The crop rule, size, template and zoom.
        source_size: Height and width of the picture in pixels.
        box: Left, top, right, bottom in pixels; what ``crop="box"`` stretches over the crop.
        points: (5, 2) eyes, nose, mouth corners in pixels, left to right in the image; for ``"align"`` and ``"quad"``.

    Returns:
        (3, 3) float64, source to crop.

    Raises:
        CropError: If what the rule needs is missing, or useless: not finite, on one spot, no area, off the picture.
        ConfigError: If the rule is unknown.
    """
    size = spec.image_size
    if spec.crop == "none":
        height, width = source_size
        whole = torch.tensor([-0.5, -0.5, width - 0.5, height - 0.5], dtype=torch.float64)
        matrix = box_matrix(square_box(whole), size)
    elif spec.crop == "box":
        matrix = box_matrix(_checked_box(box, source_size), size)
    elif spec.crop == "align":
        checked = _checked_points(points, len(spec.template), spec.crop, source_size)
        matrix = fit_similarity(checked, _target(size, spec.template))
    elif spec.crop == "quad":
        matrix = quad_matrix(_checked_points(points, 5, spec.crop, source_size), size)
    else:
        raise ConfigError(f"crop '{spec.crop}' is unknown. Allowed: align, box, none, quad.")
    if spec.zoom == 1:
        return matrix
    zero = torch.zeros((), dtype=torch.float64)
    return compose_matrices(matrix, similarity_matrix(zero, zero + spec.zoom, zero.expand(2), size))


@functools.lru_cache(maxsize=8)
def _target(size: int, template: tuple[tuple[float, float], ...]) -> Tensor:
    """Place a template on a crop; the same for every picture."""
    return template_points(size, template, like=torch.empty(0, dtype=torch.float64))


def _checked_box(box: Sequence[float] | None, source_size: tuple[int, int]) -> Tensor:
    """Return a box that can be cropped to; (4,) float64."""
    if box is None:
        raise CropError("crop 'box' needs a face box, and this sample has none")
    plain = [float(value) for value in box]
    visible_box(plain, (source_size[1], source_size[0]))
    if not (plain[2] - plain[0] >= 1 and plain[3] - plain[1] >= 1):
        raise CropError(f"face box {tuple(plain)} is less than a pixel wide or high")
    return torch.tensor(plain, dtype=torch.float64)


def _checked_points(points: Any, count: int, crop: str, source_size: tuple[int, int]) -> Tensor:
    """Return points that a crop can be fitted to; (count, 2) float64."""
    if points is None:
        raise CropError(f"crop '{crop}' needs {count} points of the face, and this sample has none")
    tensor = torch.tensor(points, dtype=torch.float64)
    if tensor.shape != (count, 2):
        raise CropError(f"crop '{crop}' needs {count} points (x, y), got shape {tuple(tensor.shape)}")
    if bool(coincident(tensor, tolerance=0.5)):
        raise CropError(f"the points of the face lie on one spot or are not finite: {tensor.tolist()}")
    low, high = tensor.aminmax(dim=0)
    # around the points by a pixel, for those in one line
    visible_box([*(low - 1).tolist(), *(high + 1).tolist()], (source_size[1], source_size[0]))
    return tensor
