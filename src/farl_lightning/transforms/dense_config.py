"""Settings of the transforms for parsing and alignment, and FaRL's recipes."""

from __future__ import annotations

import dataclasses
from typing import Any

from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.functional.geometry import FARL_TEMPLATE
from farl_lightning.types import CLIP_MEAN, CLIP_STD, FaceSpec

CROPS = ("align", "box", "quad", "none")
"""The crop rules, see :class:`DenseTransformConfig`."""

OUTSIDE = ("background", "ignore")
"""What the mask says where the crop shows more than the picture."""


@dataclasses.dataclass
class DenseTransformConfig:
    """Everything that turns a picture of a face with masks or landmarks into a sample.

    The defaults change nothing but the crop; :func:`parsing_recipe` and :func:`alignment_recipe` are FaRL's. What is
    random is drawn in training alone.

    Attributes:
        size: Side of the square crop in pixels. Encoders resize further inside the network.
        crop: ``"align"``: the similarity that carries five points onto ``template``; ``"box"``: the face box stretched
            over the crop, as it is; ``"quad"``: CelebA-HQ's square around five points; ``"none"``: the whole picture,
            its longer side filling the crop.
        template: Five target points on [-1, 1]: eyes, nose, mouth corners, left to right in the image (``"align"``).
        align_scale: Size of the face relative to the template; below 1 shows more around it (``"align"``).
        warp_factor: Factor of the tanh warp from 0 (off) to 1; see :mod:`farl_lightning.functional.warp`.
        shift: Largest random shift as a share of the crop's side, drawn evenly.
        rotation: Random turn in radians: its standard deviation, or its largest value (see ``distribution``).
        zoom: Random zoom: its standard deviation, or its largest difference from the mean.
        distribution: How turn and zoom are drawn: ``"normal"`` or ``"uniform"``.
        zoom_mean: Zoom about the crop's centre, in evaluation too; below 1 shows more around the face.
        gray: Probability of a grey picture.
        gamma: Whether the square root, the square or neither is taken, with equal probability.
        blur: Largest box blur as a share of the crop's side.
        occlusion: Probability of a black rectangle.
        noise: Probability of mixing with noise.
        noise_strength: Largest share of the noise.
        horizontal_flip: Probability of a mirror image; labels and landmarks are exchanged by the dataset's pairs.
        brightness: Largest relative change (torchvision's ``ColorJitter``), as ``contrast`` and ``saturation``.
        contrast: Largest relative change.
        saturation: Largest relative change.
        hue: Largest shift as a share of the colour circle, up to 0.5.
        outside: Label of pixels beyond the picture's border: ``"background"`` (0, as FaRL trains) or ``"ignore"``
            (255).
        antialias: Average over the pixels that a smaller crop merges. Off, as in FaRL: four pixels are read, however
            many there are.
        on_device: Leave gray to noise to the training device: workers then only draw, and hand on uint8 pictures.
            Noise differs from device to device; ``ColorJitter`` stays in the worker.
        mean: Subtracted from RGB in [0, 1], by channel.
        std: Divides afterwards, by channel.
    """

    size: int = 512
    crop: str = "align"
    template: tuple[tuple[float, float], ...] = FARL_TEMPLATE
    align_scale: float = 1.0
    warp_factor: float = 0.0
    shift: float = 0.0
    rotation: float = 0.0
    zoom: float = 0.0
    distribution: str = "uniform"
    zoom_mean: float = 1.0
    gray: float = 0.0
    gamma: bool = False
    blur: float = 0.0
    occlusion: float = 0.0
    noise: float = 0.0
    noise_strength: float = 0.5
    horizontal_flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    outside: str = "background"
    antialias: bool = False
    on_device: bool = False
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    def __post_init__(self) -> None:
        """Refuse numbers that cannot work.

        Raises:
            ConfigError: Naming the field, its value and what is allowed.
        """
        for name, allowed in (("crop", CROPS), ("outside", OUTSIDE), ("distribution", ("normal", "uniform"))):
            if (value := getattr(self, name)) not in allowed:
                raise ConfigError(f"{name} '{value}' is unknown. {did_you_mean(value, allowed)}")
        if self.size < 1:
            raise ConfigError(f"size must be at least 1 pixel, got {self.size}")
        for name in ("warp_factor", "gray", "occlusion", "noise", "noise_strength", "horizontal_flip", "blur"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        for name in ("shift", "rotation", "brightness", "contrast", "saturation", "hue"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not self.align_scale > 0:
            raise ConfigError(f"align_scale must be above 0, got {self.align_scale}")
        if not 0 <= self.zoom < self.zoom_mean:
            raise ConfigError(f"zoom must lie between 0 and zoom_mean ({self.zoom_mean}), got {self.zoom}")

    def face_spec(self, labels: FaceSpec | None = None) -> FaceSpec:
        """Return what a model must know of these crops.

        Args:
            labels: The dataset's specification; its labels, flip pairs and groups are kept.
        """
        template = tuple((x * self.align_scale, y * self.align_scale) for x, y in self.template)
        return dataclasses.replace(
            labels or FaceSpec(),
            image_size=self.size,
            mean=self.mean,
            std=self.std,
            crop=self.crop,
            template=template if self.crop == "align" else (),
            warp_factor=self.warp_factor,
            zoom=self.zoom_mean,
        )


def parsing_recipe(**changes: Any) -> DenseTransformConfig:
    """Return FaRL's parsing recipe (LaPa's; CelebAMask-HQ has ``crop="none", warp_factor=0.0``).

    Args:
        changes: Fields that differ.
    """
    recipe: dict[str, Any] = {
        "warp_factor": 0.8,
        "shift": 0.01,
        "rotation": 0.314,
        "zoom": 0.1,
        "distribution": "normal",
        "gray": 0.1,
        "gamma": True,
        "blur": 0.01,
    }
    return DenseTransformConfig(**{**recipe, **changes})


def alignment_recipe(**changes: Any) -> DenseTransformConfig:
    """Return FaRL's alignment recipe (300W's and WFLW's; AFLW-19 has ``zoom_mean=1.0``).

    Args:
        changes: Fields that differ.
    """
    recipe: dict[str, Any] = {
        "crop": "box",
        "shift": 0.05,
        "rotation": 0.174,
        "zoom": 0.1,
        "zoom_mean": 0.8,
        "occlusion": 1.0,
        "noise": 0.5,
        "gray": 0.1,
        "gamma": True,
        "blur": 0.01,
    }
    return DenseTransformConfig(**{**recipe, **changes})


def global_recipe(**changes: Any) -> DenseTransformConfig:
    """Return a plain recipe for labels of the whole face: all of the picture, mirrored, moved and recoloured a little.

    Args:
        changes: Fields that differ.
    """
    recipe: dict[str, Any] = {
        "size": 224,
        "crop": "none",
        "antialias": True,
        "shift": 0.02,
        "rotation": 0.087,
        "zoom": 0.05,
        "horizontal_flip": 0.5,
        "brightness": 0.2,
        "contrast": 0.2,
        "saturation": 0.2,
        "gray": 0.05,
    }
    return DenseTransformConfig(**{**recipe, **changes})
