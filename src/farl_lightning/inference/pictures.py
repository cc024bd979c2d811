"""What people hand over as a picture: a file, a PIL image, an array, a tensor, or a list of these."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from farl_lightning.errors import BadSample, DataError
from farl_lightning.transforms.decode import MAX_PIXELS, decode_image, to_rgb

Pixels = NDArray[np.uint8]
ImageLike = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any] | Tensor

ACCEPTED = (
    "a path, encoded bytes, a PIL image, an array (H, W, 3) or (H, W), a tensor (3, H, W) or (1, H, W); "
    "uint8, or floats in [0, 1]; colours in the order RGB"
)
"""What :func:`read_pictures` takes for one picture."""


@dataclass(frozen=True)
class Picture:
    """One picture, decoded when it is asked for, so that a list of thousands of files costs no memory.

    Attributes:
        source: What was handed over.
        name: File name without suffix, or ``picture`` and its number.
        max_pixels: Largest width x height.
    """

    source: ImageLike
    name: str
    max_pixels: int = MAX_PIXELS

    @property
    def path(self) -> Path | None:
        """Where the picture is; None for one in memory."""
        return Path(self.source).expanduser() if isinstance(self.source, str | os.PathLike) else None

    def pixels(self) -> Pixels:
        """Return (H, W, 3) uint8 RGB, upright.

        Raises:
            DataError: If the picture cannot be read, is too large, or is nothing of :data:`ACCEPTED`.
        """
        try:
            return self._pixels()
        except BadSample as bad:
            advice = "; give a larger max_pixels to allow it" if bad.reason == "huge_image" else ""
            raise DataError(f"{self.path or self.name} cannot be used: {bad}{advice}") from bad

    def _pixels(self) -> Pixels:
        source = self.source
        if isinstance(source, bytes):
            return np.asarray(decode_image(source, max_pixels=self.max_pixels))
        if isinstance(source, str | os.PathLike):
            return np.asarray(decode_image(_read(Path(source).expanduser()), max_pixels=self.max_pixels))
        if isinstance(source, Image.Image):
            return np.asarray(to_rgb(ImageOps.exif_transpose(source)))
        array = source.detach().cpu().numpy() if isinstance(source, Tensor) else source
        return _as_rgb(array, channels_first=isinstance(source, Tensor), name=self.name)


def read_pictures(images: ImageLike | Iterable[ImageLike], max_pixels: int = MAX_PIXELS) -> tuple[list[Picture], bool]:
    """Tell one picture from several.

    Args:
        images: One picture, or a list (any iterable), or a batch: an array (B, H, W, 3), a tensor (B, 3, H, W).
        max_pixels: Largest width x height of a picture.

    Returns:
        The pictures, and whether a single one was handed over.

    Raises:
        DataError: If something is no picture; the message says what is.
    """
    single = isinstance(images, str | os.PathLike | bytes | Image.Image)
    single = single or (isinstance(images, np.ndarray | Tensor) and images.ndim < 4)
    try:
        listed: list[Any] = [images] if single else list(images)  # type: ignore[arg-type]
    except TypeError:
        raise DataError(f"a {type(images).__name__} is no picture; a picture is {ACCEPTED}") from None
    return [Picture(image, _name(image, number), max_pixels) for number, image in enumerate(listed)], single


def _name(image: Any, number: int) -> str:
    """Name a picture for files that are made of it."""
    if isinstance(image, str | os.PathLike):
        return Path(image).stem
    if not isinstance(image, bytes | Image.Image | np.ndarray | Tensor):
        raise DataError(f"picture {number} is a {type(image).__name__}; a picture is {ACCEPTED}")
    return f"picture{number}"


def _read(path: Path) -> bytes:
    """Read a file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"picture '{path}' cannot be read: {error.strerror or error}") from error


def _as_rgb(array: NDArray[Any], channels_first: bool, name: str) -> Pixels:
    """Bring an array to (H, W, 3) uint8."""
    given = f"{name} has shape {array.shape} and dtype {array.dtype}"
    if channels_first and array.ndim == 3:
        array = array.transpose(1, 2, 0)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        raise DataError(f"{given}; a picture is {ACCEPTED}")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise DataError(f"{given}, but values outside [0, 1]; a picture is {ACCEPTED}")
        array = (array * 255).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise DataError(f"{given}; a picture is {ACCEPTED}")
    if array.shape[2] == 4:
        return np.asarray(to_rgb(Image.fromarray(array)))
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def default_device() -> torch.device:
    """Return the accelerator of this machine, else its CPU."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")
