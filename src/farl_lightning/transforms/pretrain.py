"""From a picture with captions to a pretraining sample: crop, colours, caption choice, tokens, mask."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.functional.geometry import FARL_TEMPLATE
from farl_lightning.functional.masking import blockwise_mask, random_mask
from farl_lightning.functional.random import derive_seed, keyed_generator, keyed_rng
from farl_lightning.text import Tokenizer
from farl_lightning.transforms.crop import FaceCrop, random_window
from farl_lightning.transforms.sample import INTERPOLATIONS, ImageSource, as_source, cut
from farl_lightning.types import CLIP_MEAN, CLIP_STD, FaceSpec

if TYPE_CHECKING:
    from PIL import Image

MASKS = ("block", "random", "none")
"""How patches are chosen: BEiT's blocks, evenly at random, or not at all."""


@dataclasses.dataclass
class PretrainTransformConfig:
    """Everything that turns a picture with captions into a sample.

    Attributes:
        image_size: Side of the network's input in pixels.
        patch_size: Side of a patch in pixels; divides ``image_size``.
        crop: ``"none"``, ``"center"``, ``"box"`` or ``"align"``; see :class:`~farl_lightning.transforms.crop.FaceCrop`.
        margin: Range of the space around a face box on every side, as a share of its longer side (``"box"``).
        template: Five target points on [-1, 1]: eyes, nose, mouth corners, left to right in the image (``"align"``).
        align_scale: Size of the face relative to the template; below 1 shows more around it (``"align"``).
        scale: Range of the random part's area as a share of the crop, training only; (1, 1) takes all of it.
        ratio: Range of the random part's width over height, training only.
        interpolation: ``"bicubic"`` or ``"bilinear"``; both antialias when they shrink.
        horizontal_flip: Probability of a mirror image, training only. Captions that tell left from right do not follow.
        brightness: Largest relative change, training only, as ``contrast`` and ``saturation``.
        contrast: Largest relative change.
        saturation: Largest relative change.
        hue: Largest shift as a share of the colour circle, up to 0.5.
        grayscale: Probability of a grey picture.
        blur: Probability of a Gaussian blur.
        blur_sigma: Range of its standard deviation in pixels.
        mean: Subtracted from RGB in [0, 1], by channel.
        std: Divides afterwards, by channel.
        mask: ``"block"`` (BEiT), ``"random"`` or ``"none"``.
        num_masked: Number of masked patches; ``"block"`` takes it as an upper limit. None: ``mask_ratio`` decides.
        mask_ratio: Share of masked patches when ``num_masked`` is None; 75 of 196 as in BEiT.
        min_block: Smallest block in patches (``"block"``).
        max_block: Largest block in patches; None has no limit.
        mask_aspect: Range of a block's height over width.
        context_length: Tokens of a caption, start and end included.
    """

    image_size: int = 224
    patch_size: int = 16
    crop: str = "none"
    margin: tuple[float, float] = (0.2, 0.5)
    template: tuple[tuple[float, float], ...] = FARL_TEMPLATE
    align_scale: float = 1.0
    scale: tuple[float, float] = (0.9, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bicubic"
    horizontal_flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grayscale: float = 0.0
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    mask: str = "block"
    num_masked: int | None = None
    mask_ratio: float = 75 / 196
    min_block: int = 16
    max_block: int | None = None
    mask_aspect: tuple[float, float] = (0.3, 1 / 0.3)
    context_length: int = 77

    def __post_init__(self) -> None:
        """Refuse numbers that cannot work.

        Raises:
            ConfigError: Naming the field, its value and what is allowed.
        """
        if self.patch_size < 1 or self.image_size < self.patch_size or self.image_size % self.patch_size:
            raise ConfigError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.interpolation not in INTERPOLATIONS:
            hint = did_you_mean(self.interpolation, INTERPOLATIONS)
            raise ConfigError(f"interpolation '{self.interpolation}' is unknown. {hint}")
        if self.mask not in MASKS:
            raise ConfigError(f"mask '{self.mask}' is unknown. {did_you_mean(self.mask, MASKS)}")
        if self.mask != "none" and not 1 <= self.masked < self.patches:
            raise ConfigError(
                f"{self.masked} masked of {self.patches} patches: give num_masked from 1 to {self.patches - 1}"
            )
        for name, low, high in (("scale", 0, 1), ("ratio", 0, None), ("mask_aspect", 0, None), ("blur_sigma", 0, None)):
            first, last = getattr(self, name)
            if not (low < first <= last and (high is None or last <= high)):
                limit = "" if high is None else f" up to {high}"
                raise ConfigError(f"{name} must be a rising range above {low}{limit}, got {(first, last)}")
        for name in ("horizontal_flip", "grayscale", "blur"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is a probability from 0 to 1, got {getattr(self, name)}")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        side = self.image_size // self.patch_size
        return side, side

    @property
    def patches(self) -> int:
        """Number of patches."""
        return self.grid[0] * self.grid[1]

    @property
    def masked(self) -> int:
        """Number of patches to mask."""
        return round(self.mask_ratio * self.patches) if self.num_masked is None else self.num_masked

    def face_spec(self, **labels: Any) -> FaceSpec:
        """Return what a model must know of these pictures.

        Args:
            labels: Further fields of the specification, such as ``attributes``.
        """
        return FaceSpec(
            image_size=self.image_size,
            mean=self.mean,
            std=self.std,
            crop="none" if self.crop == "center" else self.crop,
            template=tuple((x, y) for x, y in self.template) if self.crop == "align" else (),
            **labels,
        )


class PretrainTransform:
    """Turn one picture with captions into one sample of a :class:`~farl_lightning.types.PretrainBatch`.

    Every random choice is keyed by (seed, epoch, key): the same three give the same sample, whatever ran before and in
    whatever process. Evaluation draws nothing but the mask, and that with epoch 0.

    Args:
        config: The settings; None takes the defaults.
        seed: Seed of the run.
        train: Whether to augment and to draw one caption; evaluation keeps all captions.

    Raises:
        ConfigError: If a setting cannot work.
    """

    def __init__(self, config: PretrainTransformConfig | None = None, seed: int = 0, train: bool = True) -> None:
        self.config = config = config or PretrainTransformConfig()
        self.seed = seed
        self.train = train
        self.crop = FaceCrop(config.crop, config.margin, config.template, config.align_scale, config.image_size)
        self.tokenizer = Tokenizer(config.context_length)
        self._photometric = _photometric(config) if train else None
        std = torch.tensor(config.std).view(3, 1, 1)
        self._gain = 1 / (255 * std)
        self._shift = -torch.tensor(config.mean).view(3, 1, 1) / std

    def __call__(
        self,
        image: Image.Image | np.ndarray | ImageSource,
        captions: Sequence[str],
        key: str,
        epoch: int = 0,
        *,
        labels: Tensor | Sequence[int] | None = None,
        box: Sequence[float] | None = None,
        landmarks: Sequence[Sequence[float]] | None = None,
    ) -> dict[str, Any]:
        """Make the sample.

        Args:
            image: A PIL image, (H, W, 3) uint8, or a picture that is still encoded
                (:class:`farl_lightning.datasets.decode.EncodedImage`), which is then decoded no larger than needed.
            captions: Cleaned captions; without any the sample has no text.
            key: Name of the sample.
            epoch: Epoch; evaluation ignores it.
            labels: (A,) attributes, kept as they are.
            box: Face box in pixels of the picture: left, top, right, bottom.
            landmarks: Five points (x, y) in pixels of the picture.

        Returns:
            The entries of ``PretrainBatch`` without the batch axis: ``image``, ``key``, ``caption``, ``text``,
            ``texts`` (evaluation), ``patch_mask`` (unless the mask is ``"none"``), ``labels`` (if given).

        Raises:
            farl_lightning.transforms.crop.CropError: If the crop cannot be cut from this picture.
        """
        epoch = epoch if self.train else 0
        pixels = self.pixels(image, key, epoch, box=box, landmarks=landmarks)
        return self.finish(pixels, captions, key, epoch, labels=labels)

    @property
    def is_fixed(self) -> bool:
        """Whether :meth:`pixels` gives the same in every epoch, so that it may be kept."""
        config = self.config
        drawn = config.crop == "box" or config.horizontal_flip > 0 or self._photometric is not None
        whole = tuple(config.scale) == tuple(config.ratio) == (1.0, 1.0)
        return not self.train or (whole and not drawn)

    def finish(
        self,
        pixels: Tensor,
        captions: Sequence[str],
        key: str,
        epoch: int = 0,
        *,
        labels: Tensor | Sequence[int] | None = None,
    ) -> dict[str, Any]:
        """Make the sample of pixels that are cut and augmented already.

        Args:
            pixels: (3, image_size, image_size) uint8, as :meth:`pixels` returns them.
            captions: See :meth:`__call__`, as for the other arguments.
            key: Name of the sample.
            epoch: Epoch.
            labels: (A,) attributes.
        """
        epoch = epoch if self.train else 0
        sample: dict[str, Any] = {"image": self.normalize(pixels), "key": key}
        if captions:
            sample |= self._text(captions, key, epoch)
        if self.config.mask != "none":
            sample["patch_mask"] = self.patch_mask(key, epoch)
        if labels is not None:
            sample["labels"] = torch.as_tensor(labels, dtype=torch.int64)
        return sample

    def pixels(
        self,
        image: Image.Image | np.ndarray | ImageSource,
        key: str,
        epoch: int = 0,
        *,
        box: Sequence[float] | None = None,
        landmarks: Sequence[Sequence[float]] | None = None,
    ) -> Tensor:
        """Crop and augment, before normalisation.

        Args:
            image: See :meth:`__call__`, as for the other arguments.
            key: Name of the sample.
            epoch: Epoch.
            box: Face box.
            landmarks: Five points.

        Returns:
            (3, image_size, image_size) uint8, RGB.
        """
        config, source = self.config, as_source(image)
        with keyed_rng(self.seed, "augment", epoch, key):
            region = self.crop(source.size, box=box, landmarks=landmarks, train=self.train)
            if self.train:
                region = random_window(region, config.scale, config.ratio)
            pixels = cut(source, region, config.image_size, config.interpolation)
            if self.train and config.horizontal_flip > 0 and torch.rand(()).item() < config.horizontal_flip:
                pixels = pixels.flip(-1)
            return pixels if self._photometric is None else self._photometric(pixels)

    def normalize(self, pixels: Tensor) -> Tensor:
        """Turn (3, H, W) uint8 into float32, minus the mean, over the standard deviation."""
        floats = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        return floats.mul_(self._gain).add_(self._shift)

    def patch_mask(self, key: str, epoch: int = 0) -> Tensor:
        """Draw the mask of a sample.

        Args:
            key: Name of the sample.
            epoch: Epoch.

        Returns:
            (N,) bool, True = masked, patches row by row.
        """
        config, generator = self.config, keyed_generator(self.seed, "mask", epoch, key)
        if config.mask == "random":
            return random_mask(config.patches, config.masked, generator=generator)
        return blockwise_mask(
            config.grid,
            config.masked,
            min_block=config.min_block,
            max_block=config.max_block,
            aspect=config.mask_aspect,
            generator=generator,
        )

    def _text(self, captions: Sequence[str], key: str, epoch: int) -> dict[str, Any]:
        """Tokenise: one caption drawn by key in training, all of them in evaluation."""
        if self.train:
            caption = captions[derive_seed(self.seed, "caption", epoch, key) % len(captions)]
            return {"text": self.tokenizer(caption)[0], "caption": caption}
        texts = self.tokenizer(list(captions))
        return {"text": texts[0], "texts": texts, "caption": captions[0]}


def _photometric(config: PretrainTransformConfig) -> Callable[[Tensor], Tensor] | None:
    """Build the colour augmentation, or None when every strength is 0."""
    jitter = {name: getattr(config, name) for name in ("brightness", "contrast", "saturation", "hue")}
    if max(*jitter.values(), config.grayscale, config.blur) <= 0:
        return None
    from farl_lightning.transforms.presets import Photometric  # torchvision takes a second to import

    augment: Callable[[Tensor], Tensor] = Photometric(
        **jitter, grayscale=config.grayscale, blur=config.blur, blur_sigma=config.blur_sigma
    )
    return augment
