"""The random augmentations of FaRL's dense recipes as torchvision v2 transforms.

They take pictures alone or any nest of tv_tensors: ``Image``, ``Mask`` and ``KeyPoints`` move together, and what a
transform does not concern passes through. Random numbers come from torch's global generator, so that
:func:`farl_lightning.functional.random.keyed_rng` makes them repeatable. One call draws once, for a whole batch.

The deterministic halves are in :mod:`farl_lightning.functional.photometric` and
:mod:`farl_lightning.functional.geometry`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.functional import photometric
from farl_lightning.functional.geometry import similarity_matrix
from farl_lightning.functional.warp import Warp, points_to_crop, read

Pairs = Sequence[Sequence[int]]

DISTRIBUTIONS = ("normal", "uniform")
"""How turn and zoom are drawn, see :class:`RandomFaceAffine`."""


def _draw(count: int) -> list[float]:
    """Draw even numbers in [0, 1)."""
    numbers: list[float] = torch.rand(count).tolist()
    return numbers


def _is_image(value: Any) -> bool:
    """Tell pictures from masks, points and everything else."""
    return isinstance(value, tv_tensors.Image) or type(value) is Tensor


def _probability(name: str, value: float) -> float:
    """Refuse what is no probability."""
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} is a probability from 0 to 1, got {value}")
    return value


class _PhotometricTransform(v2.Transform):  # type: ignore[misc]
    """Changes pictures alone. Integer pictures are worked on as floats in [0, 1] and rounded."""

    _transformed_types = (_is_image,)

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Change one picture (or a batch of them) as drawn."""
        image = inpt.as_subclass(Tensor)
        if image.is_floating_point():
            changed = self.change(image.clone(memory_format=torch.contiguous_format), params)
        else:
            floats = v2.functional.to_dtype(image, torch.float32, scale=True).contiguous()
            changed = v2.functional.to_dtype(self.change(floats, params).clamp(0, 1), image.dtype, scale=True)
        wrapped: Tensor = tv_tensors.wrap(changed, like=inpt) if isinstance(inpt, tv_tensors.TVTensor) else changed
        return wrapped

    def change(self, images: Tensor, params: dict[str, Any]) -> Tensor:
        """Change (..., 3, H, W) floats in [0, 1], contiguous; what comes in may be overwritten."""
        raise NotImplementedError


class RandomGray(_PhotometricTransform):
    """Take the colours away.

    Args:
        p: Probability.

    Raises:
        ConfigError: If ``p`` is no probability.
    """

    def __init__(self, p: float = 0.1) -> None:
        super().__init__()
        self.p = _probability("p", p)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:  # noqa: ARG002
        """Draw whether."""
        return {"gray": _draw(1)[0] < self.p}

    def change(self, images: Tensor, params: dict[str, Any]) -> Tensor:
        """Replace colours by grey values, if drawn."""
        return photometric.to_gray(images) if params["gray"] else images


class RandomGamma(_PhotometricTransform):
    """Take the square root, the square, or neither, with equal probability."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:  # noqa: ARG002
        """Draw the power's logarithm to base 2."""
        return {"octave": int(3 * _draw(1)[0]) - 1}

    def change(self, images: Tensor, params: dict[str, Any]) -> Tensor:
        """Raise to the power drawn; its clamp is of no effect on pictures."""
        return photometric.change_gamma(images, params["octave"], inplace=True) if params["octave"] else images


class RandomBoxBlur(_PhotometricTransform):
    """Average over square windows of random size.

    Args:
        max_size: Largest side of the window, as a share of the mean of the picture's sides. Rounded down, so that
            a share of pictures stays sharp: 39 % with 0.01 of 512 pixels.

    Raises:
        ConfigError: If it is not in [0, 1].
    """

    def __init__(self, max_size: float = 0.01) -> None:
        super().__init__()
        if not 0 <= max_size <= 1:
            raise ConfigError(f"blur windows are a share of the picture's side from 0 to 1, got {max_size}")
        self.max_size = max_size

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the window's side in pixels."""
        height, width = flat_inputs[0].shape[-2:]
        return {"size": int((height + width) / 2 * self.max_size * _draw(1)[0])}

    def change(self, images: Tensor, params: dict[str, Any]) -> Tensor:
        """Blur by the window drawn."""
        return photometric.box_blur(images, params["size"], inplace=True)


class RandomOcclusion(_PhotometricTransform):
    """Paint a random rectangle black; its sides are 0.1 to 0.4 of the picture's, more or less. Labels stay.

    Args:
        p: Probability.

    Raises:
        ConfigError: If ``p`` is no probability.
    """

    def __init__(self, p: float = 1.0) -> None:
        super().__init__()
        self.p = _probability("p", p)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the rectangle, or None."""
        if self.p < 1 and _draw(1)[0] >= self.p:
            return {"rectangle": None}
        return {"rectangle": photometric.occlusion_rectangle(_draw(4), tuple(flat_inputs[0].shape[-2:]))}

    def change(self, images: Tensor, params: dict[str, Any]) -> Tensor:
        """Paint the rectangle, if drawn."""
        if params["rectangle"] is None:
            return images
        return photometric.occlude(images, photometric.Rectangle(*params["rectangle"]), inplace=True)


class NoiseFusion(_PhotometricTransform):
    """Mix with even noise, a random share of it.

    Args:
        p: Probability.
        strength: Largest share of the noise.

    Raises:
        ConfigError: If a number is not in [0, 1].
    """

    def __init__(self, p: float = 0.5, strength: float = 0.5) -> None:
        super().__init__()
        self.p, self.strength = _probability("p", p), _probability("strength", strength)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:  # noqa: ARG002
        """Draw the share and the seed of the noise; a share of 0 is none."""
        chance, share = _draw(2)
        seed = int(torch.randint(2**62, ()).item())
        return {"alpha": self.strength * share if chance < self.p else 0.0, "seed": seed}

    def change(self, images: Tensor, params: dict[str, Any]) -> Tensor:
        """Mix, if drawn."""
        if not params["alpha"]:
            return images
        return photometric.fuse_noise(images, _noise(images, params["seed"]), params["alpha"], inplace=True)


def _noise(like: Tensor, seed: int) -> Tensor:
    """Make even noise in [0, 1) by seed: on a CPU in steps of 2^-16, three times as fast as ``torch.rand``."""
    if like.device.type != "cpu":
        generator = torch.Generator(like.device).manual_seed(seed)
        return torch.rand(like.shape, dtype=like.dtype, device=like.device, generator=generator)
    words = np.random.SFC64(seed).random_raw(-(-like.numel() // 4))
    noise = torch.from_numpy(words.view(np.int16)[: like.numel()]).to(like.dtype)
    return noise.add_(2.0**15).mul_(2.0**-16).view(like.shape)


class RandomFaceAffine(v2.Transform):  # type: ignore[misc]
    """Turn and zoom about the centre, then shift. Order of draws: shift x, shift y, turn, zoom.

    Args:
        shift: Largest shift as a share of the picture's side; always drawn evenly.
        rotation: Radians: the standard deviation (normal) or the largest turn to either side (uniform).
        zoom: Standard deviation (normal) or largest difference (uniform) of the zoom.
        distribution: ``"normal"`` or ``"uniform"``: how turn and zoom are drawn.
        zoom_mean: Mean of the zoom.

    Raises:
        ConfigError: If a number cannot work.
    """

    _transformed_types = (_is_image, tv_tensors.Mask, tv_tensors.KeyPoints)

    def __init__(
        self,
        shift: float = 0.01,
        rotation: float = 0.314,
        zoom: float = 0.1,
        distribution: str = "normal",
        zoom_mean: float = 1.0,
    ) -> None:
        super().__init__()
        if distribution not in DISTRIBUTIONS:
            raise ConfigError(f"distribution '{distribution}' is unknown. {did_you_mean(distribution, DISTRIBUTIONS)}")
        if not (shift >= 0 and rotation >= 0 and 0 <= zoom < zoom_mean):
            raise ConfigError(
                "shift, rotation and zoom must be 0 or more, and zoom below zoom_mean, got "
                f"shift={shift}, rotation={rotation}, zoom={zoom}, zoom_mean={zoom_mean}"
            )
        self.shift, self.rotation, self.zoom = shift, rotation, zoom
        self.distribution, self.zoom_mean = distribution, zoom_mean

    def draw(self) -> tuple[float, float, float, float]:
        """Draw shift x and y (shares of the side), turn (radians) and zoom."""
        x, y = (self.shift * (2 * number - 1) for number in _draw(2))
        turn, zoom = torch.randn(2).tolist() if self.distribution == "normal" else (2 * n - 1 for n in _draw(2))
        # a normal zoom may fall below 0, in theory: a tenth of the mean is small enough
        return x, y, self.rotation * turn, max(self.zoom_mean + self.zoom * zoom, 0.1 * self.zoom_mean)

    def draw_matrix(self, size: tuple[int, int]) -> Tensor:
        """Draw the (3, 3) float64 matrix for pictures of a size.

        Args:
            size: Height and width in pixels.
        """
        return affine_matrix(self.draw(), size)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the matrix."""
        size = next(
            tuple(value.canvas_size) if isinstance(value, tv_tensors.KeyPoints) else tuple(value.shape[-2:])
            for value in flat_inputs
        )
        return {"matrix": self.draw_matrix(size), "size": size}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Move pictures (bilinear), masks (nearest; what comes in is 0) and points."""
        plain, (matrix, size) = inpt.as_subclass(Tensor), (params["matrix"].to(inpt.device), params["size"])
        if isinstance(inpt, tv_tensors.KeyPoints):
            moved = points_to_crop(plain.double().view(-1, 2), matrix, size).view(plain.shape).to(plain.dtype)
        else:
            moved = _move(plain, matrix, "nearest" if isinstance(inpt, tv_tensors.Mask) else "bilinear")
        wrapped: Tensor = tv_tensors.wrap(moved, like=inpt) if isinstance(inpt, tv_tensors.TVTensor) else moved
        return wrapped


def affine_matrix(draws: Sequence[float], size: tuple[int, int]) -> Tensor:
    """Build the matrix of :class:`RandomFaceAffine` from its draws.

    Args:
        draws: Shift x and y (shares of width and height), turn (radians), zoom.
        size: Height and width in pixels.

    Returns:
        (3, 3) float64.
    """
    x, y, turn, zoom = torch.tensor(draws, dtype=torch.float64)
    return similarity_matrix(turn, zoom, torch.stack([x * size[1], y * size[0]]), size)


def _move(images: Tensor, matrix: Tensor, mode: str) -> Tensor:
    """Warp (..., H, W) of any dtype within its size."""
    floats = images if images.is_floating_point() else images.float()
    size: tuple[int, int] = (images.shape[-2], images.shape[-1])
    grid = Warp(matrix[None], size).grid(size, dtype=floats.dtype)
    moved = read(floats.reshape(1, -1, *size), grid, mode)
    if not images.is_floating_point():
        moved = moved.round_()
    return moved.view(images.shape).to(images.dtype)


class RandomFaceFlip(v2.Transform):  # type: ignore[misc]
    """Exchange left and right, in the picture and in the names of what is on it.

    Args:
        p: Probability.
        class_flips: Pairs of mask labels that are each other's mirror image.
        landmark_flips: Pairs of landmark indices that are each other's mirror image.

    Raises:
        ConfigError: If ``p`` is no probability.
    """

    _transformed_types = (_is_image, tv_tensors.Mask, tv_tensors.KeyPoints)

    def __init__(self, p: float = 0.5, class_flips: Pairs = (), landmark_flips: Pairs = ()) -> None:
        super().__init__()
        self.p = _probability("p", p)
        self.class_flips, self.landmark_flips = class_flips, landmark_flips

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:  # noqa: ARG002
        """Draw whether."""
        return {"flip": _draw(1)[0] < self.p}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Mirror, if drawn."""
        if not params["flip"]:
            return inpt
        flipped: Tensor = v2.functional.horizontal_flip(inpt)
        plain = flipped.as_subclass(Tensor)
        if isinstance(inpt, tv_tensors.Mask):
            return tv_tensors.wrap(swap_labels(plain, self.class_flips), like=inpt)  # type: ignore[no-any-return]
        if isinstance(inpt, tv_tensors.KeyPoints):
            return tv_tensors.wrap(swap_points(plain, self.landmark_flips), like=inpt)  # type: ignore[no-any-return]
        return flipped


def swap_labels(mask: Tensor, pairs: Pairs) -> Tensor:
    """Exchange labels.

    Args:
        mask: Labels from 0 to 255, any shape, integers.
        pairs: Pairs of labels.

    Returns:
        The same shape and dtype.
    """
    table = np.arange(256, dtype=np.uint8)
    for first, second in pairs:
        table[first], table[second] = second, first
    swapped = table[mask.to(torch.uint8).cpu().numpy()]
    return torch.from_numpy(swapped).to(mask)


def swap_points(points: Tensor, pairs: Pairs) -> Tensor:
    """Exchange landmarks.

    Args:
        points: (..., N, K), or (N, 1) of anything else known of each landmark.
        pairs: Pairs of indices.

    Returns:
        The same shape.

    Raises:
        ConfigError: If a pair names a landmark that is not there.
    """
    order = list(range(points.shape[-2]))
    if out := [pair for pair in pairs if max(pair) >= len(order)]:
        raise ConfigError(f"flip pairs {out} name landmarks beyond the {len(order)} that there are")
    for first, second in pairs:
        order[first], order[second] = second, first
    return points[..., order, :]


class PhotometricChain:
    """Photometric transforms in a row, whose draws can be made in one place and used in another.

    A loader's worker draws (its randomness is keyed by sample); the change itself can then happen on a batch that is on
    the training device already.

    Args:
        steps: The transforms, in order.
    """

    def __init__(self, steps: Sequence[_PhotometricTransform]) -> None:
        self.steps = tuple(steps)

    def draw(self, image: Tensor) -> list[dict[str, Any]]:
        """Draw for one picture: plain numbers, one dict a step.

        Args:
            image: (3, H, W); its size alone matters.
        """
        return [step.make_params([image]) for step in self.steps]

    def apply(self, image: Tensor, draws: Sequence[dict[str, Any]]) -> Tensor:
        """Change one picture, in its own memory.

        Args:
            image: (3, H, W) floating point in [0, 1], contiguous; overwritten.
            draws: As :meth:`draw` returned them.

        Returns:
            The same shape.
        """
        for step, params in zip(self.steps, draws, strict=True):
            image = step.change(image, params)
        return image


__all__ = [
    "NoiseFusion",
    "PhotometricChain",
    "RandomBoxBlur",
    "RandomFaceAffine",
    "RandomFaceFlip",
    "RandomGamma",
    "RandomGray",
    "RandomOcclusion",
]
