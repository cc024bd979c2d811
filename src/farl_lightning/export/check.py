"""A written file against the network it came from, on pictures of several sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from farl_lightning.export.pipeline import EMBEDDING, decoder
from farl_lightning.functional.geometry import FARL_TEMPLATE, template_points
from farl_lightning.functional.heatmaps import denormalize_points
from farl_lightning.functional.restore import restore_labels, restore_landmarks
from farl_lightning.functional.warp import crop_to_source_grid, sample
from farl_lightning.models.attributes import GlobalNetwork
from farl_lightning.models.opened import OpenedNetwork
from farl_lightning.transforms.face_matrix import face_matrix
from farl_lightning.types import FaceSpec

Run = Callable[..., list[Tensor]]

_SIZES = ((2, 96, 128), (1, 151, 90), (3, 64, 64))  # faces, height, width


@dataclasses.dataclass(frozen=True)
class Difference:
    """The largest differences between a file and its checkpoint.

    Attributes:
        output: Of logits (or confidence), relative to the checkpoint's largest value.
        labels: Share of pixels with another label; None where there are none.
        pixels: Distance of landmarks in pixels; None where there are none.
        answer: Of probabilities, or of ages in years; None where there are none.
    """

    output: float
    labels: float | None = None
    pixels: float | None = None
    answer: float | None = None

    @property
    def ok(self) -> bool:
        """Whether rounding explains it."""
        near = (self.labels or 0) <= 1e-3 and (self.pixels or 0) <= 0.05 and (self.answer or 0) <= 0.01
        return self.output <= 1e-3 and near

    def __str__(self) -> str:
        parts = [f"outputs differ by {self.output:.1e} of their largest value"]
        if self.labels is not None:
            parts.append(f"{self.labels:.4%} of the pixels have another label")
        if self.pixels is not None:
            parts.append(f"landmarks lie {self.pixels:.1e} pixels apart")
        if self.answer is not None:
            parts.append(f"probabilities or ages by {self.answer:.1e}")
        return ", ".join(parts)


def probes(spec: FaceSpec) -> Iterator[tuple[Tensor, ...]]:
    """Yield inputs of several batch and picture sizes: soft noise, and faces here and there; always the same ones.

    Args:
        spec: The crop rule.
    """
    generator = torch.Generator().manual_seed(0)
    for faces, height, width in _SIZES:
        coarse = torch.rand(faces, 3, height // 8, width // 8, generator=generator)
        image = F.interpolate(coarse, (height, width), mode="bilinear")
        side = min(height, width)
        points = template_points(side, FARL_TEMPLATE, scale=1.2) + 8 * torch.rand(faces, 5, 2, generator=generator)
        if spec.crop == "none":
            yield (image,)
        elif spec.crop == "box":
            yield image, torch.cat([points.amin(1) - 10, points.amax(1) + 10], 1)
        else:
            yield image, points


@torch.no_grad()
def compare(run: Run, opened: OpenedNetwork) -> Difference:
    """Run a file and its checkpoint on the same pictures.

    The checkpoint goes the way of training and evaluation: matrices in double precision, grids and bands.

    Args:
        run: The file as a function of tensors.
        opened: The checkpoint's network.
    """
    found = [_difference(run(*example), _reference(opened, *example)) for example in probes(opened.spec)]
    largest = {}
    for name in ("output", "labels", "pixels", "answer"):
        values = [value for difference in found if (value := getattr(difference, name)) is not None]
        largest[name] = max(values) if values else None
    return Difference(**largest)  # type: ignore[arg-type]


def _reference(opened: OpenedNetwork, image: Tensor, place: Tensor | None = None) -> tuple[Tensor, ...]:
    """Return what the checkpoint says: labels and logits, landmarks and confidence, answers and logits, or features."""
    network, spec = opened
    size = (image.shape[2], image.shape[3])
    places: list[Any] = [None] * len(image) if place is None else place.tolist()
    name = "box" if spec.crop == "box" else "points"
    matrices = torch.stack([face_matrix(spec, size, **({name: row} if row else {})) for row in places])
    grid = crop_to_source_grid(matrices, spec.image_size, spec.warp_factor)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (spec.mean, spec.std))
    output: Any = network((sample(image, grid.float()) - mean) / std)
    if isinstance(network, GlobalNetwork):
        answer = decoder(network)
        return (output,) if answer.name == EMBEDDING else (answer.decode(output), output)
    if isinstance(output, Tensor):
        rows = zip(output, matrices.float(), strict=True)
        return torch.stack([restore_labels(logits, matrix, size, spec.warp_factor) for logits, matrix in rows]), output
    points = denormalize_points(output.points.double(), (spec.image_size, spec.image_size))
    landmarks = restore_landmarks(points, matrices, spec.image_size, spec.warp_factor)
    return landmarks, output.logits.flatten(2).amax(-1).sigmoid()


def _difference(found: list[Tensor], wanted: tuple[Tensor, ...]) -> Difference:
    """Compare two answers."""
    last = len(wanted) - 1
    scale = wanted[last].abs().max().clamp(min=1e-12)
    output = ((found[last] - wanted[last]).abs().max() / scale).item()
    if not last:
        return Difference(output)
    if wanted[0].dtype == torch.uint8:
        return Difference(output, labels=(found[0] != wanted[0]).float().mean().item())
    if wanted[0].ndim < 3:
        return Difference(output, answer=(found[0] - wanted[0]).abs().max().item())
    return Difference(output, pixels=(found[0] - wanted[0]).norm(dim=-1).max().item())
