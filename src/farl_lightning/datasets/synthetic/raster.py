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


@functools.lru_cache(maxsize=8)
def _axes(size: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return x and y of every pixel on -1024..1024 as a row and a column, and the squared radius."""
    axis = ((2 * np.arange(size, dtype=np.int32) + 1 - size) * 1024) // size
    return axis[None, :], axis[:, None], (axis[None, :] ** 2 + axis[:, None] ** 2) >> 10


def _lit(pixels: Pixels, light: Light) -> Pixels:
    """Multiply by the light, in whole numbers so that every machine rounds alike; gains are 1/128 to 255/128."""
    x, y, radius = _axes(len(pixels))
    gain, slope_x, slope_y, rim = (round(1024 * part) for part in (light.gain, light.slope_x, light.slope_y, light.rim))
    field = ((gain << 10) + slope_x * x) + slope_y * y
    field -= rim * radius
    field >>= 13  # 128 is a gain of 1
    np.maximum(field, 16, out=field)
    gains = np.repeat(field.astype(np.uint16), 3, axis=1)
    gains *= np.tile(np.array([round(128 * channel) for channel in light.tint], dtype=np.uint16), len(pixels))
    gains >>= 7
    np.minimum(gains, 255, out=gains)
    gains *= pixels.reshape(gains.shape)
    gains >>= 7
    np.minimum(gains, 255, out=gains)
    return gains.astype(np.uint8).reshape(pixels.shape)
