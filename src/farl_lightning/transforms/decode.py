"""Untrusted bytes to an upright RGB picture, decoded no larger than needed."""

from __future__ import annotations

import io
import struct
import warnings
from typing import NoReturn

import numpy as np
from PIL import Image, UnidentifiedImageError

from farl_lightning.errors import BadSample

# reasons of bad pictures
NOT_AN_IMAGE = "not_an_image"
"""Bytes that no decoder recognises."""
BROKEN_IMAGE = "broken_image"
"""A picture that begins well and cannot be decoded to its end."""
HUGE_IMAGE = "huge_image"
"""More pixels than the limit; refused before anything is decoded."""
SMALL_IMAGE = "small_image"
"""A picture below the minimum side."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""What is decoded. A list, because some of Pillow's other decoders start programs (EPS runs Ghostscript)."""

MAX_PIXELS = 64_000_000
"""Default limit of width x height; 8000 x 8000 pixels are 192 MB as RGB."""

BACKGROUND = (255, 255, 255)
"""What transparent pixels show by default: white, on which pictures of the web are mostly seen."""

# Pillow warns of odd metadata and of large pictures; in millions of strangers' files nobody can act on that, and what
# matters is reported here
warnings.filterwarnings("ignore", module=r"PIL\.")

_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = frozenset({5, 6, 7, 8})


class EncodedImage:
    """A picture whose header is read and checked, and whose pixels are decoded on demand.

    Handles EXIF orientation, CMYK (Adobe's inverted one included), 16 bits a channel (the high byte is kept), palettes,
    grey, transparency, and animations (the first frame). Colour profiles are ignored, as CLIP's pipelines do.

    Args:
        data: The file's bytes.
        max_pixels: Largest width x height; checked in the header, before any pixel is decoded. Pillow itself refuses
            more than 179 million (``PIL.Image.MAX_IMAGE_PIXELS``).
        min_side: Smallest allowed width and height.
        background: RGB behind transparent pixels.

    Raises:
        BadSample: ``not_an_image``, ``broken_image``, ``huge_image`` or ``small_image``.
    """

    def __init__(
        self,
        data: bytes,
        *,
        max_pixels: int = MAX_PIXELS,
        min_side: int = 1,
        background: tuple[int, int, int] = BACKGROUND,
    ) -> None:
        self._image = _open(data)
        self._background = background
        width, height = self._image.size
        if width * height > max_pixels:
            raise BadSample(HUGE_IMAGE, f"{width} x {height} pixels, the limit is {max_pixels}")
        if min(width, height) < min_side:
            raise BadSample(SMALL_IMAGE, f"{width} x {height} pixels, the smallest side allowed is {min_side}")
        self._orientation = _orientation(self._image)
        self._size = (height, width) if self._orientation in _SIDEWAYS else (width, height)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the whole picture in pixels, upright."""
        return self._size

    def load(self, scale: float = 1.0) -> Image.Image:
        """Decode. A JPEG is decoded at 1/2, 1/4 or 1/8 of its size when that is still enough: faster, and antialiased.

        Args:
            scale: Share of the full size that is needed. The result may be larger, never smaller than that; full-size
                coordinates turn into its coordinates by the ratio of the sizes (off by less than one of its pixels).

        Returns:
            RGB, upright. Call it once: a picture that was decoded stays at the scale of the first call.

        Raises:
            BadSample: ``broken_image`` if the bytes end early or cannot be decoded.
        """
        try:
            image = self._decode(scale)
        except MemoryError:
            raise
        except Exception as error:  # decoders raise whatever they like on broken bytes
            _broken(error)
        turn = _UPRIGHT.get(self._orientation)
        return image if turn is None else image.transpose(turn)

    def _decode(self, scale: float) -> Image.Image:
        """Return the stored pixels as RGB."""
        image = self._image
        divisor = next((d for d in (8, 4, 2) if d * scale <= 1), 1)
        if divisor > 1 and image.format in ("JPEG", "MPO"):
            image.draft(None, (max(image.width // divisor, 1), max(image.height // divisor, 1)))
        image.load()
        return to_rgb(image, self._background)


def decode_image(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    min_side: int = 1,
    target: int | None = None,
    background: tuple[int, int, int] = BACKGROUND,
) -> Image.Image:
    """Decode a picture in one call.

    Args:
        data: The file's bytes.
        max_pixels: See :class:`EncodedImage`.
        min_side: See :class:`EncodedImage`.
        target: How many pixels the shorter side must have at least (if it has as many at all); a JPEG may then be
            decoded at reduced scale. None decodes at full size.
        background: See :class:`EncodedImage`.

    Returns:
        RGB, upright.

    Raises:
        BadSample: See :class:`EncodedImage`.
    """
    encoded = EncodedImage(data, max_pixels=max_pixels, min_side=min_side, background=background)
    return encoded.load(1.0 if target is None else target / min(encoded.size))


def to_rgb(image: Image.Image, background: tuple[int, int, int] = BACKGROUND) -> Image.Image:
    """Turn any mode of Pillow's into 8-bit RGB. Floats are taken to run from 0 to 1.

    Args:
        image: A loaded picture.
        background: RGB behind transparent pixels.

    Returns:
        The picture itself if it is RGB without transparency.
    """
    if image.mode.startswith("I"):  # 16 bits: convert() would clip at 255, and show white
        image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
    elif image.mode == "F":
        image = Image.fromarray((np.nan_to_num(np.asarray(image)).clip(0, 1) * 255).round().astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, (*background, 255))
        return Image.alpha_composite(canvas, layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _open(data: bytes) -> Image.Image:
    """Read the header."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise BadSample(HUGE_IMAGE, str(error)) from error
    except UnidentifiedImageError as error:
        raise BadSample(NOT_AN_IMAGE, f"{len(data)} bytes, beginning with {data[:8]!r}") from error
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, OverflowError, KeyError, IndexError) as error:
        _broken(error)


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation, 1 when there is none or the EXIF block is damaged (the pixels may still be fine)."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except MemoryError:
        raise
    except Exception:
        return 1


def _broken(error: Exception) -> NoReturn:
    raise BadSample(BROKEN_IMAGE, f"{type(error).__name__}: {error}") from error
