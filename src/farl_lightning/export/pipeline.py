"""The whole way from a photograph to an answer in its own pixels as one network that exporters can write down.

:class:`~farl_lightning.inference.FacePredictor` walks the same way with more comfort: antialiasing, tiles, files. Here
everything is plain arithmetic on tensors of any batch and picture size: no complex numbers, no matrix inversion by
decomposition, no loop whose length depends on the input.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.functional.ages import age_decoder
from farl_lightning.functional.geometry import (
    align_matrix,
    apply_matrix,
    box_matrix,
    compose_matrices,
    quad_matrix,
    similarity_matrix,
    square_box,
)
from farl_lightning.functional.heatmaps import denormalize_points
from farl_lightning.functional.warp import sample, tanh_forward, tanh_inverse
from farl_lightning.models.attributes import FaceAge, FaceClassifier, FaceEmbedder, GlobalNetwork
from farl_lightning.models.dense import FaceAligner, FaceParser
from farl_lightning.models.tunable import TunableNetwork
from farl_lightning.types import FaceSpec

PLACES: dict[str, str | None] = {"align": "points", "quad": "points", "box": "box", "none": None}
"""For each crop rule the input that says where the face is: five points (B, 5, 2), a box (B, 4), or nothing."""


class PhotoNetwork(nn.Module):
    """A network with the crop before it and the way back behind it.

    Args:
        network: The network; it is put into evaluation mode.
        spec: Crop, size and normalisation of its faces.

    Attributes:
        outputs: Names of what :meth:`forward` returns, in order.

    Raises:
        ConfigError: If the crop rule is unknown.
    """

    outputs: tuple[str, ...]
    grid: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, network: TunableNetwork, spec: FaceSpec) -> None:
        super().__init__()
        if spec.crop not in PLACES:
            raise ConfigError(f"crop '{spec.crop}' is unknown. {did_you_mean(spec.crop, PLACES)}")
        self.network, self.spec, self.size = network.eval(), spec, spec.image_size
        pixels = pixel_grid(self.size, self.size, torch.empty(0)).flatten(0, 1)
        self.register_buffer("grid", tanh_inverse(pixels, self.size, spec.warp_factor)[None])
        self.register_buffer("mean", torch.tensor(spec.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(3, 1, 1))

    def forward(self, image: Tensor, place: Tensor | None = None) -> tuple[Tensor, ...]:
        """Answer for one face in each picture.

        Args:
            image: (B, 3, H, W) float32 RGB in [0, 1], upright.
            place: (B, 5, 2) points, (B, 4) box or None as :data:`PLACES` says; in pixels, centres at integers.

        Returns:
            As :attr:`outputs` names them; the last one is ``matrix``, (B, 3, 3) from source to crop pixels.
        """
        matrix = crop_matrix(self.spec, image, place)
        inverse = invert_affine(matrix)
        positions = apply_matrix(self.grid.expand(image.shape[0], -1, -1), inverse)
        crop = sample(image, positions.reshape(-1, self.size, self.size, 2))
        return (*self.answer((crop - self.mean) / self.std, image, matrix, inverse), matrix)

    @abstractmethod
    def answer(self, crop: Tensor, image: Tensor, matrix: Tensor, inverse: Tensor) -> tuple[Tensor, ...]:
        """Run the network on crops, and carry what it says back.

        Args:
            crop: (B, 3, S, S), normalised.
            image: (B, 3, H, W), for its size.
            matrix: (B, 3, 3), source to crop.
            inverse: (B, 3, 3), crop to source.
        """


class PhotoParser(PhotoNetwork):
    """Labels of whole pictures: ``labels`` (B, H, W) uint8, ``logits`` (B, C, S, S) of the crops, ``matrix``."""

    outputs = ("labels", "logits", "matrix")

    def answer(self, crop: Tensor, image: Tensor, matrix: Tensor, inverse: Tensor) -> tuple[Tensor, ...]:
        """Carry logits back class by class, keeping the best, so that memory does not grow with their number.

        Args:
            crop: (B, 3, S, S), normalised.
            image: (B, 3, H, W), for its size.
            matrix: (B, 3, 3), source to crop.
            inverse: (B, 3, 3), crop to source.
        """
        del inverse
        height, width = image.shape[-2:]
        logits: Tensor = self.network(crop)
        pixels = pixel_grid(height, width, image).flatten(0, 1).expand(image.shape[0], -1, -1)
        grid = tanh_forward(apply_matrix(pixels, matrix), self.size, self.spec.warp_factor)
        grid = grid.reshape(image.shape[0], height, width, 2)
        best = sample(logits[:, :1], grid)
        labels = torch.zeros_like(best, dtype=torch.uint8)
        for label in range(1, logits.shape[1]):
            score = sample(logits[:, label : label + 1], grid)
            labels = torch.where(score > best, torch.full_like(labels, label), labels)
            best = torch.maximum(best, score)
        return labels[:, 0], logits


class PhotoAligner(PhotoNetwork):
    """Landmarks of whole pictures: ``landmarks`` (B, N, 2), ``confidence`` (B, N) in [0, 1], ``matrix``."""

    outputs = ("landmarks", "confidence", "matrix")

    def answer(self, crop: Tensor, image: Tensor, matrix: Tensor, inverse: Tensor) -> tuple[Tensor, ...]:
        """Carry landmarks back.

        Args:
            crop: (B, 3, S, S), normalised.
            image: (B, 3, H, W), not used.
            matrix: (B, 3, 3), not used.
            inverse: (B, 3, 3), crop to source.
        """
        del image, matrix
        points, logits = self.network(crop)
        flat = tanh_inverse(denormalize_points(points, (self.size, self.size)), self.size, self.spec.warp_factor)
        return apply_matrix(flat, inverse), logits.flatten(2).amax(-1).sigmoid()


EMBEDDING = "embedding"
"""Name of the one answer that is the network's output itself."""


class Decoder(NamedTuple):
    """How the outputs of a network for whole faces are read."""

    name: str
    """``"attributes"``, ``"probabilities"``, ``"age"`` or ``"embedding"``."""
    decode: Callable[[Tensor], Tensor]
    """From (B, A) outputs to (B, A) probabilities, (B,) years or, as they are, (B, A) features of unit length."""


def decoder(network: GlobalNetwork) -> Decoder:
    """Return how the outputs of a network are read.

    Args:
        network: For ages, its ``task_settings`` name the method.

    Raises:
        ConfigError: If the method is not known, or not the one of the network.
    """
    if isinstance(network, FaceAge):
        method = age_decoder(network.task_settings.get("method"))
        if method.num_outputs != network.num_outputs:
            raise ConfigError(f"ages are read off {method.num_outputs} outputs; the network has {network.num_outputs}")
        return Decoder("age", method.decode)
    if isinstance(network, FaceClassifier):
        return Decoder("probabilities", lambda outputs: outputs.softmax(1))
    if isinstance(network, FaceEmbedder):
        return Decoder(EMBEDDING, lambda outputs: outputs)
    return Decoder("attributes", torch.sigmoid)


class PhotoJudge(PhotoNetwork):
    """Answers for whole faces: ``attributes``, ``probabilities`` (B, A) or ``age`` (B,); ``logits`` (B, A); ``matrix``.

    A network for verification gives ``embedding`` (B, E) and ``matrix``.

    Args:
        network: For attributes, classes, age or verification.
        spec: Crop, size and normalisation of its faces.

    Raises:
        ConfigError: If the crop rule is unknown, or the way that an age is read off.
    """

    network: GlobalNetwork

    def __init__(self, network: GlobalNetwork, spec: FaceSpec) -> None:
        super().__init__(network, spec)
        self.decoder = decoder(network)
        self.outputs = (self.decoder.name, *(() if self.decoder.name == EMBEDDING else ("logits",)), "matrix")

    def answer(self, crop: Tensor, image: Tensor, matrix: Tensor, inverse: Tensor) -> tuple[Tensor, ...]:
        """Judge the crops; there is nothing to carry back.

        Args:
            crop: (B, 3, S, S), normalised.
            image: (B, 3, H, W), not used.
            matrix: (B, 3, 3), not used.
            inverse: (B, 3, 3), not used.
        """
        del image, matrix, inverse
        logits: Tensor = self.network(crop)
        return (logits,) if self.decoder.name == EMBEDDING else (self.decoder.decode(logits), logits)


def photo_network(network: nn.Module, spec: FaceSpec) -> PhotoNetwork:
    """Put crop and way back around a network.

    Args:
        network: A face parser or aligner, or a network for attributes, classes, age or verification.
        spec: Crop, size and normalisation of its faces.

    Raises:
        ConfigError: If it is none of these, or the crop rule is unknown.
    """
    if isinstance(network, FaceParser):
        return PhotoParser(network, spec)
    if isinstance(network, FaceAligner):
        return PhotoAligner(network, spec)
    if isinstance(network, GlobalNetwork):
        return PhotoJudge(network, spec)
    raise ConfigError(
        f"a {type(network).__name__} cannot be exported; networks for parsing, alignment, attributes, classes, age and "
        "verification can"
    )


def crop_matrix(spec: FaceSpec, image: Tensor, place: Tensor | None) -> Tensor:
    """Return (B, 3, 3) from source to crop pixels, before the tanh warp.

    Args:
        spec: The crop rule.
        image: (B, 3, H, W), for its size.
        place: As :data:`PLACES` says.
    """
    if place is None:
        height, width = image.shape[-2:]
        edges = torch.ones(4).to(image) * torch.tensor([0, 0, width, height]) - 0.5
        matrix = box_matrix(square_box(edges), spec.image_size).expand(image.shape[0], 3, 3)
    elif spec.crop == "align":
        matrix = align_matrix(place, spec.image_size, spec.template)
    else:
        matrix = (quad_matrix if spec.crop == "quad" else box_matrix)(place, spec.image_size)
    if spec.zoom == 1:
        return matrix
    one = torch.ones((), dtype=matrix.dtype, device=matrix.device)
    return compose_matrices(matrix, similarity_matrix(0 * one, spec.zoom * one, 0 * one.expand(2), spec.image_size))


def invert_affine(matrix: Tensor) -> Tensor:
    """Invert affine matrices by the adjugate, which every runtime can compute.

    Args:
        matrix: (B, 3, 3) with the last row 0 0 1.
    """
    (a, b, c), (d, e, f) = matrix[:, 0].unbind(-1), matrix[:, 1].unbind(-1)
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    scale = a * e - b * d
    rows = [[e / scale, -b / scale, (b * f - c * e) / scale], [-d / scale, a / scale, (c * d - a * f) / scale]]
    return torch.stack([torch.stack(row, -1) for row in (*rows, [zero, zero, one])], -2)


def pixel_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Return (height, width, 2) xy of all pixels.

    Args:
        height: Rows.
        width: Columns.
        like: Gives dtype and device.
    """
    x = torch.arange(width, dtype=like.dtype, device=like.device)
    y = torch.arange(height, dtype=like.dtype, device=like.device)
    return torch.stack([x[None, :].expand(height, width), y[:, None].expand(height, width)], -1)
