"""The curves of the body: neck, clothes and what lies on them. The body does not turn with the head."""

from __future__ import annotations

import numpy as np

from farl_lightning.datasets.synthetic.parameters import Appearance, Garment, Identity
from farl_lightning.datasets.synthetic.sketch import Sketch

_SHOULDER_HALF = np.array([0.46, 0.75, 1.25, 1.75, 2.1, 2.3, 2.3])
_SHOULDER_HEIGHT = np.array([1.52, 1.74, 1.90, 2.08, 2.40, 3.0, 4.0])
_SHOULDERS = np.concatenate((_SHOULDER_HALF, -_SHOULDER_HALF[::-1]))
_SHOULDERS_DOWN = np.concatenate((_SHOULDER_HEIGHT, _SHOULDER_HEIGHT[::-1]))
_NECK = np.linspace(1, -1, 9)
_HANG = 1 - _NECK**2
_POINT = 1 - np.abs(_NECK)
_NECKLINES = {
    "t-shirt": 1.82 + 0.16 * _HANG,
    "v-neck": 1.74 + 0.50 * _POINT,
    "shirt": 1.66 + 0.40 * _POINT,
    "suit": 1.66 + 0.26 * _POINT,
    "turtleneck": 1.44 + 0.05 * _HANG,
}
_NECK_SIDES, _NECK_DOWN = np.array([-1.0, -1.0, 1.0, 1.0]), np.array([1.1, 0.5, 0.5, 1.1])
_CHIN_SHADOW = np.array([-1.0, 1.0, 0.98, 0.0, -0.98])
_FRONT = np.array([0.5, 0.0, -0.5, 0.0]), np.array([1.6, 2.9, 1.6, 1.8])
_LAPEL = np.array([0.52, 0.72, 0.62, 0.06]), np.array([1.6, 1.9, 2.2, 2.95])
_COLLAR = np.array([0.52, 0.60, 0.42, 0.06]), np.array([1.52, 1.72, 2.16, 2.02])
_TIE = np.array([0.10, 0.07, 0.16, 0.0, -0.16, -0.07, -0.10]), np.array([1.86, 2.02, 2.8, 3.0, 2.8, 2.02, 1.86])


def add_body(sketch: Sketch, person: Identity, look: Appearance) -> None:
    """Add ``clothes``, ``neckline`` (the lower end of the neck), and collar, lapels, tie, necklace."""
    sketch.still("clothes", _SHOULDERS, _SHOULDERS_DOWN)
    wide = 0.44 + 0.08 * person.male + 0.08 * person.chubby
    sketch.still("neckline", wide * _NECK, _NECKLINES[look.clothes.kind])
    if look.clothes.kind == "suit":
        sketch.still("shirt_front", *_FRONT)
        sketch.still("lapel", *_LAPEL, pair=True)
    if look.clothes.kind == "shirt":
        sketch.still("collar", *_COLLAR, pair=True)
    if look.tie is not None:
        sketch.still("tie", *_TIE)
    if look.necklace is not None:
        _add_necklace(sketch, wide, look.necklace)


def _add_necklace(sketch: Sketch, wide: float, necklace: Garment) -> None:
    beads = necklace.kind == "beads"
    hang = 1.56 + (0.26 if beads else 0.34) * _HANG
    half = 0.055 if beads else 0.03
    x = 0.98 * wide * _NECK
    sketch.still("necklace", np.concatenate((x, x[::-1])), np.concatenate((hang - half, hang[::-1] + half)))


def add_neck(sketch: Sketch, person: Identity, chin: float) -> None:
    """Add ``neck_top``, the upper end of the neck, which moves with the head, and the chin's shadow on it."""
    wide = 0.50 + 0.10 * person.male + 0.10 * person.chubby
    sketch.add("neck_top", wide * _NECK_SIDES, _NECK_DOWN, -0.2)
    low = chin + 0.04
    sketch.add("neck_shadow", wide * _CHIN_SHADOW, np.array([0.5, 0.5, low, low + 0.18, low]), -0.1)
