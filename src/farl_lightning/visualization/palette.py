"""Colours of parsing classes: the same part of a face has the same colour in every dataset."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np

from farl_lightning.visualization.grid import Pixels

IGNORED = (255, 255, 255)
"""Colour of pixels without a label."""

_PARTS: dict[tuple[int, int, int], str] = {
    (0, 0, 0): "background bg",
    (244, 190, 154): "skin face face_lr_rr facial_skin",
    (214, 134, 106): "neck",
    (122, 74, 44): "hair",
    (58, 110, 165): "cloth clothing clothes",
    (255, 214, 10): "lb left_brow left_eyebrow l_brow",
    (255, 140, 0): "rb right_brow right_eyebrow r_brow",
    (0, 200, 255): "le left_eye l_eye",
    (30, 90, 255): "re right_eye r_eye",
    (46, 160, 67): "nose",
    (236, 72, 153): "ul ulip u_lip upper_lip top_lip",
    (150, 20, 40): "im imouth mouth inner_mouth mouth_interior",
    (220, 38, 38): "ll llip l_lip lower_lip bottom_lip",
    (170, 235, 120): "lr left_ear l_ear",
    (100, 150, 30): "rr right_ear r_ear",
    (147, 51, 234): "glass glasses eye_g eyeglasses",
    (0, 128, 128): "hat headwear",
    (255, 255, 150): "earr earring ear_r",
    (200, 170, 255): "neckl necklace neck_l",
    (90, 90, 100): "beard facial_hair",
    (64, 224, 176): "facewear mask",
}
_COLORS = {name: color for color, names in _PARTS.items() for name in names.split()}
_GOLDEN = 0.618033988749895  # turns of the hue that never come near an earlier one soon


def class_palette(names: Sequence[str]) -> Pixels:
    """Return a colour for each class.

    Names of the parts of a face, as the datasets spell them, have fixed colours (black for the background); any other
    name gets a colour that depends on its place in the list.

    Args:
        names: Class names by label.

    Returns:
        (C, 3) uint8; no two classes of one list share a colour.
    """
    palette, taken = [], {_COLORS[name.lower()] for name in names if name.lower() in _COLORS}
    used: set[tuple[int, int, int]] = set()
    for index, name in enumerate(names):
        color = _COLORS.get(name.lower())
        attempt = 0
        while color is None or color in used:
            color = _generated(index + 257 * attempt)
            if color in taken:
                color = None
            attempt += 1
        used.add(color)
        palette.append(color)
    return np.array(palette, dtype=np.uint8).reshape(-1, 3)


def colorize(mask: np.ndarray[tuple[int, ...], np.dtype[np.integer]], palette: Pixels) -> Pixels:
    """Turn a label map into a picture.

    Args:
        mask: (H, W) labels; those without a colour, such as 255, become white.
        palette: (C, 3) uint8 from :func:`class_palette`.

    Returns:
        (H, W, 3) uint8.
    """
    table = np.concatenate([palette, np.array([IGNORED], dtype=np.uint8)])
    labels = mask.astype(np.int64)
    picture: Pixels = table[np.where((labels >= 0) & (labels < len(palette)), labels, len(palette))]
    return picture


def _generated(index: int) -> tuple[int, int, int]:
    """Return a colour far from those of its neighbours."""
    hue = (index * _GOLDEN) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.55 + 0.4 * (index % 2), 0.95 - 0.25 * (index // 2 % 2))
    return round(255 * red), round(255 * green), round(255 * blue)
