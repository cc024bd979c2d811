"""Painting: polygons to pixels, background, light."""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from farl_lightning.datasets.synthetic.palette import mix
from farl_lightning.datasets.synthetic.parameters import Backdrop, Light
from farl_lightning.datasets.synthetic.scene import SUPERSAMPLE, Layer

Pixels = npt.NDArray[np.uint8]


def paint_image(layers: list[Layer], backdrop: Backdrop, light: Light, size: int) -> Pixels:
    """Paint a picture.

    Args:
        layers: Polygons from back to front, in pixels.
        backdrop: What is behind them.
        light: Applied to the whole picture.
        size: Side in pixels.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    side = size * SUPERSAMPLE
    canvas, draw = _canvas("RGB", side)
    canvas.paste(backdrop.rgb, (0, 0, side, side))
    _paint_backdrop(draw, backdrop, side)
    for layer in layers:
        if layer.colour is not None:
            draw.polygon(_coordinates(layer.points), fill=layer.colour)
    return _lit(np.asarray(canvas.reduce(SUPERSAMPLE)), light)


def paint_mask(layers: list[Layer], column: str, size: int) -> Pixels:
    """Paint class ids instead of colours.

    Args:
        layers: As for :func:`paint_image`.
        column: ``"lapa"`` or ``"celebamask"``.
        size: Side in pixels.

    Returns:
        (size, size) uint8: the class at each pixel's centre.
    """
    canvas, draw = _canvas("L", size * SUPERSAMPLE)
    canvas.paste(0, (0, 0, *canvas.size))
    for layer in layers:
        label = getattr(layer, column)
        if label is not None:
            draw.polygon(_coordinates(layer.points), fill=label)
    middle = SUPERSAMPLE // 2
    return np.ascontiguousarray(np.asarray(canvas)[middle::SUPERSAMPLE, middle::SUPERSAMPLE])


_scratch = threading.local()


def _canvas(mode: str, side: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return a canvas that this thread may paint over; fresh memory for every picture costs a page fault per 4 kB."""
    if getattr(_scratch, mode, None) is None or getattr(_scratch, mode)[0].width != side:
        canvas = Image.new(mode, (side, side))
        setattr(_scratch, mode, (canvas, ImageDraw.Draw(canvas)))
    kept: tuple[Image.Image, ImageDraw.ImageDraw] = getattr(_scratch, mode)
    return kept


def _coordinates(points: npt.NDArray[np.float32]) -> Any:
    """Hand points to Pillow, which reads float32 buffers although its types do not say so."""
    return points


def _paint_backdrop(draw: ImageDraw.ImageDraw, backdrop: Backdrop, side: int) -> None:
    """Paint the pattern; a plain one is the canvas itself."""
    if backdrop.kind == "spots":
        for x, y, radius in backdrop.places:
            box = [
                round((x - radius) * side),
                round((y - radius) * side),
                round((x + radius) * side),
                round((y + radius) * side),
            ]
            draw.ellipse(box, fill=backdrop.other_rgb)
    elif backdrop.kind == "stripes":
        for polygon in _bands(backdrop.angle, 11, side)[1::2]:
            draw.polygon(_coordinates(polygon), fill=backdrop.other_rgb)
    elif backdrop.kind == "gradient":
        count = min(side // 12, 96)
        for step, polygon in enumerate(_bands(backdrop.angle, count, side)):
            draw.polygon(_coordinates(polygon), fill=mix(backdrop.rgb, backdrop.other_rgb, step / (count - 1)))


@functools.lru_cache(maxsize=64)
def _bands(angle: int, count: int, side: int) -> list[npt.NDArray[np.float32]]:
    """Return polygons that divide the canvas into parallel bands."""
    slope = {0: 0.0, 1: 0.0, 2: 1.0, 3: -1.0}[angle]
    reach = 1.0 + abs(slope)
    bands = []
    for step in range(count):
        low, high = (reach * edge / count - max(0.0, slope) for edge in (step, step + 1))
        band = np.array([[0.0, low], [1.0, low + slope], [1.0, high + slope], [0.0, high]])
        bands.append(np.rint((band[:, ::-1] if angle == 1 else band) * side).astype(np.float32))
    return bands


Field = npt.NDArray[np.float32]


@functools.lru_cache(maxsize=8)
def _axes(size: int) -> tuple[Field, Field, Field]:
    """Return x and y of every pixel on -1..1 as a row and a column and the squared radius, each x three times."""
    axis = ((2 * np.arange(size) + 1 - size) / size).astype(np.float32)
    x, y = axis.repeat(3)[None, :], axis[:, None]
    return x, y, x * x + y * y


def _lit(pixels: Pixels, light: Light) -> Pixels:
    """Multiply by the light.

    Single products and sums of float32 are rounded alike by every machine, and so is what is made of them.
    """
    x, y, radius = _axes(len(pixels))
    gains = radius * np.float32(-light.rim)
    gains += np.float32(light.gain) + np.float32(light.slope_x) * x
    gains += np.float32(light.slope_y) * y
    np.maximum(gains, np.float32(0.125), out=gains)
    gains *= np.tile(np.array(light.tint, dtype=np.float32), len(pixels))
    gains *= pixels.reshape(gains.shape)
    np.minimum(gains, np.float32(255), out=gains)
    lit: Pixels = gains.astype(np.uint8).reshape(pixels.shape)
    return lit
