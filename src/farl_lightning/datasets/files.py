"""Files of a dataset to arrays: pictures, label maps, coordinates. Whatever is wrong becomes a ``BadSample``."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from farl_lightning.datasets.bad_sample import (
    BROKEN_ANNOTATION,
    HUGE_IMAGE,
    MISSING_ANNOTATION,
    MISSING_IMAGE,
    OVERSIZED_FILE,
    BadSample,
)
from farl_lightning.datasets.decode import MAX_PIXELS, decode_image

MAX_FILE_BYTES = 256 * 2**20
"""Largest file that is read at all."""

MIN_SIDE = 8
"""Smallest width and height of a picture of a face, in pixels."""

MASK_FORMATS = ("PNG", "BMP", "TIFF", "PPM")
"""What label maps are stored in; a lossy format would blur ids."""


def read_bytes(path: Path, missing: str = MISSING_IMAGE) -> bytes:
    """Read a whole file.

    Args:
        path: The file.
        missing: Reason to give if it is not there.

    Raises:
        BadSample: ``missing`` (also for what cannot be opened), or ``oversized_file``.
    """
    try:
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise BadSample(OVERSIZED_FILE, f"{path.name} has {size} bytes, the limit is {MAX_FILE_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise BadSample(missing, f"{path.name}: {error.strerror or error}") from error


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Read a picture, upright, as the annotators saw it.

    Args:
        path: JPEG, PNG, WebP, ...; see :data:`farl_lightning.datasets.decode.FORMATS`.
        max_pixels: Largest width x height.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        BadSample: If it is missing, broken, too large, or smaller than 8 pixels.
    """
    return np.asarray(decode_image(read_bytes(path), max_pixels=max_pixels, min_side=MIN_SIDE))


def read_mask(path: Path, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Read a label map: grey or palette values are ids; colour files count if all channels agree.

    Args:
        path: PNG, BMP, TIFF or PPM.
        max_pixels: Largest width x height.

    Returns:
        (H, W) uint8 ids.

    Raises:
        BadSample: ``missing_annotation``, ``broken_annotation`` or ``huge_image``.
    """
    return _as_ids(_pixels(path, read_bytes(path, MISSING_ANNOTATION), max_pixels), path.name)


def read_layer(path: Path, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.bool_] | None:
    """Read the mask of a single class: whatever is not black is covered.

    Args:
        path: PNG, BMP, TIFF or PPM.
        max_pixels: Largest width x height.

    Returns:
        (H, W) bool; None if there is no such file.

    Raises:
        BadSample: ``broken_annotation`` or ``huge_image``.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadSample(BROKEN_ANNOTATION, f"{path.name}: {error.strerror}") from error
    covered: npt.NDArray[np.bool_] = np.not_equal(_pixels(path, data, max_pixels, "L"), 0)
    return covered


def _pixels(path: Path, data: bytes, max_pixels: int, mode: str | None = None) -> np.ndarray:
    """Decode a lossless picture to its stored values, or to those of a mode of Pillow's."""
    try:
        with Image.open(io.BytesIO(data), formats=MASK_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise BadSample(HUGE_IMAGE, f"{path.name}: {image.width} x {image.height} pixels")
            return np.asarray(image if mode is None else image.convert(mode))
    except (BadSample, MemoryError):
        raise
    except Exception as error:  # decoders raise whatever they like on broken bytes
        raise BadSample(BROKEN_ANNOTATION, f"{path.name}: {type(error).__name__}: {error}") from error


def _as_ids(values: np.ndarray, name: str) -> npt.NDArray[np.uint8]:
    """Turn the pixels of a label map into ids."""
    if values.ndim == 3:
        values = values[..., :3] if values.shape[2] > 2 else values[..., :1]  # an alpha channel says nothing
        if (values != values[..., :1]).any():
            raise BadSample(BROKEN_ANNOTATION, f"{name} is a colour picture; a label map holds ids")
        values = values[..., 0]
    if values.size and (values.min() < 0 or values.max() > 255):
        raise BadSample(BROKEN_ANNOTATION, f"{name} holds ids from {values.min()} to {values.max()}")
    return np.ascontiguousarray(values, dtype=np.uint8)


def read_points(path: Path, count: int, *, leading_count: bool = False) -> npt.NDArray[np.float32]:
    """Read points written as text, x and y by turns, separated by spaces or line ends.

    Args:
        path: The file.
        count: Number of points that must be there.
        leading_count: Whether their number comes first.

    Returns:
        (count, 2) float32.

    Raises:
        BadSample: ``missing_annotation``, or ``broken_annotation`` if a word is not a number or their number is wrong.
    """
    words = read_bytes(path, MISSING_ANNOTATION).split()
    try:
        values = np.array([float(word) for word in words], np.float64)
    except ValueError as error:
        raise BadSample(BROKEN_ANNOTATION, f"{path.name}: {error}") from error
    if leading_count and values.size:
        if values[0] != count:
            raise BadSample(BROKEN_ANNOTATION, f"{path.name} announces {values[0]:g} points instead of {count}")
        values = values[1:]
    if values.size != 2 * count:
        raise BadSample(BROKEN_ANNOTATION, f"{path.name} has {values.size} numbers instead of {2 * count}")
    return values.reshape(count, 2).astype(np.float32)


def square_around(points: npt.NDArray[np.float32]) -> tuple[float, float, float, float]:
    """Return the smallest upright square around points, sharing their centre.

    Args:
        points: (N, 2).

    Returns:
        Left, top, right, bottom.
    """
    low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
    (x, y), radius = (low + high) / 2, float((high - low).max()) / 2
    return float(x - radius), float(y - radius), float(x + radius), float(y + radius)
