"""The curves of what is worn: clothes, necklace, earrings, glasses and hat."""

from __future__ import annotations

import numpy as np

from farl_lightning.datasets.synthetic.features import RING, SMALL_RING, eye_of
from farl_lightning.datasets.synthetic.parameters import Appearance, Garment, Identity
from farl_lightning.datasets.synthetic.sketch import Array, Sketch

_DOME = np.linspace(0, np.pi, 17)
_SHOULDER_X = np.array([0.46, 0.75, 1.25, 1.75, 2.1, 2.3, 2.3])
_SHOULDER_Y = np.array([1.52, 1.74, 1.90, 2.08, 2.40, 3.0, 4.0])
_NECK = np.linspace(1, -1, 9)
_NECKLINES = {
    "t-shirt": 1.82 + 0.16 * (1 - _NECK**2),
    "v-neck": 1.74 + 0.50 * (1 - np.abs(_NECK)),
    "shirt": 1.66 + 0.40 * (1 - np.abs(_NECK)),
    "suit": 1.66 + 0.26 * (1 - np.abs(_NECK)),
    "turtleneck": 1.44 + 0.05 * (1 - _NECK**2),
}


def add_body(sketch: Sketch, person: Identity, look: Appearance) -> None:
    """Add ``clothes``, the lower end of the neck, and what lies on them; the body does not turn with the head."""
    sketch.add(
        "clothes",
        np.concatenate((_SHOULDER_X, -_SHOULDER_X[::-1])),
        np.concatenate((_SHOULDER_Y, _SHOULDER_Y[::-1])),
        0.0,
    )
    wide = 0.44 + 0.08 * person.male + 0.08 * person.chubby
    sketch.add("neckline", wide * _NECK, _NECKLINES[look.clothes.kind], 0.0)
    if look.clothes.kind == "suit":
        sketch.add("shirt_front", np.array([0.5, 0.0, -0.5, 0.0]), np.array([1.6, 2.9, 1.6, 1.8]), 0.0)
        sketch.pair("lapel", np.array([0.52, 0.72, 0.62, 0.06]), np.array([1.6, 1.9, 2.2, 2.95]), 0.0)
    if look.clothes.kind == "shirt":
        sketch.pair("collar", np.array([0.52, 0.60, 0.42, 0.06]), np.array([1.52, 1.72, 2.16, 2.02]), 0.0)
    if look.tie is not None:
        sketch.add(
            "tie",
            np.array([0.10, 0.07, 0.16, 0.0, -0.16, -0.07, -0.10]),
            np.array([1.86, 2.02, 2.8, 3.0, 2.8, 2.02, 1.86]),
            0.0,
        )
    if look.necklace is not None:
        _add_necklace(sketch, wide, look.necklace)


def _add_necklace(sketch: Sketch, wide: float, necklace: Garment) -> None:
    beads = necklace.kind == "beads"
    hang = 1.56 + (0.26 if beads else 0.34) * (1 - _NECK**2)
    half = 0.055 if beads else 0.03
    x = np.concatenate((0.98 * wide * _NECK, 0.98 * wide * _NECK[::-1]))
    sketch.add("necklace", x, np.concatenate((hang - half, hang[::-1] + half)), 0.0)


def neck_top(sketch: Sketch, person: Identity) -> None:
    """Add the upper end of the neck, which moves with the head, and the shadow of the chin on it."""
    wide = 0.50 + 0.10 * person.male + 0.10 * person.chubby
    sketch.add("neck_top", np.array([-wide, -wide, wide, wide]), np.array([1.1, 0.5, 0.5, 1.1]), -0.2)
    y = np.array([0.5, 0.5, person.chin + 0.04, person.chin + 0.22, person.chin + 0.04])
    sketch.add("neck_shadow", np.array([-wide, wide, wide * 0.98, 0.0, -wide * 0.98]), y, -0.1)


def add_earrings(sketch: Sketch, person: Identity, kind: str) -> None:
    """Add ``earring`` at the lobes."""
    x, y = person.width + 0.05, 0.18 + 0.25 * person.ear_size
    if kind == "hoop":
        sketch.pair("earring", *_band(x, y + 0.15, 0.16, 0.16, 0.05), -0.05)
    elif kind == "stud":
        cos, sin = SMALL_RING
        sketch.pair("earring", x + 0.085 * cos, y + 0.085 * sin, -0.05)
    else:
        sketch.pair(
            "earring", x + np.array([-0.02, 0.02, 0.10, 0.0, -0.10]), y + np.array([0.0, 0.0, 0.28, 0.42, 0.28]), -0.05
        )


def _band(x: float, y: float, wide: float, high: float, thick: float, *, square: float = 1.0) -> tuple[Array, Array]:
    """Return a closed ring as one polygon: around the outer edge, then back around the inner one."""
    cos, sin = (np.sign(part) * np.abs(part) ** square for part in RING)
    order = np.append(np.arange(len(cos)), 0)
    cos, sin = cos[order], sin[order]
    xs = np.concatenate((x + wide * cos, x + (wide - thick) * cos[::-1]))
    return xs, np.concatenate((y + high * sin, y + (high - thick) * sin[::-1]))


def add_glasses(sketch: Sketch, person: Identity, look: Appearance, kind: str) -> None:
    """Add ``lens`` (filled shapes), ``frame`` (rings around them), ``nose_piece`` and ``temple``."""
    eye = eye_of(person, look)
    square = {"round": 1.0, "square": 0.45, "sun": 0.7}[kind]
    wide, high = min(0.35, eye.x - 0.06), {"round": 0.31, "square": 0.24, "sun": 0.29}[kind]
    cos, sin = (np.sign(part) * np.abs(part) ** square for part in RING)
    x, y, z = eye.x + 0.03, 0.04, 0.62
    sketch.pair("lens", x + wide * cos, y + high * sin, z - 0.15 * (1 + cos))
    xs, ys = _band(x, y, wide + 0.03, high + 0.03, 0.075, square=square)
    sketch.pair("frame", xs, ys, z - 0.15 * (1 + (xs - x) / wide))
    gap = x - wide + 0.02
    sketch.add(
        "nose_piece",
        gap * np.array([1, 0, -1, -1, 0, 1]),
        y + np.array([-0.12, -0.16, -0.12, -0.05, -0.09, -0.05]),
        z + 0.1,
    )
    end = person.width * 1.0
    sketch.pair(
        "temple",
        np.array([x + wide, end, end, x + wide]),
        y + np.array([-0.11, -0.08, -0.01, -0.03]),
        np.array([0.32, 0.0, 0.0, 0.32]),
    )


def add_hat(sketch: Sketch, person: Identity, kind: str) -> None:
    """Add ``crown`` and ``brim`` (a beanie's cuff, a cap's visor), and a ``band``."""
    wide, top = person.width, person.skull
    cos, sin = np.cos(_DOME), np.sin(_DOME)
    rim = (-0.60 if kind == "cap" else -0.52) * top
    if kind == "wide-brimmed hat":
        ring_cos, ring_sin = RING
        sketch.add(
            "crown",
            wide * np.array([1.08, 1.04, 0.86, 0.4, -0.4, -0.86, -1.04, -1.08]),
            top * np.array([-0.5, -0.95, -1.36, -1.44, -1.44, -1.36, -0.95, -0.5]),
            0.0,
        )
        sketch.add(
            "band", wide * np.array([1.10, 1.07, -1.07, -1.10]), top * np.array([-0.55, -0.78, -0.78, -0.55]), 0.05
        )
        sketch.add("brim", wide * 1.85 * ring_cos, rim - 0.03 + 0.17 * ring_sin, 0.35 * ring_sin)
        return
    sketch.add("crown", 1.13 * wide * cos, rim + 0.06 - (0.66 * top + 0.12) * sin, 0.0)
    if kind == "beanie":
        lift = 0.10 * (1 - np.cos(_DOME) ** 2)
        x = np.concatenate((1.17 * wide * cos, 1.17 * wide * cos[::-1]))
        y = np.concatenate((rim - 0.16 - lift, (rim + 0.16 - lift)[::-1]))
        sketch.add("brim", x, y, np.concatenate((0.3 * sin, 0.3 * sin[::-1])))
        sketch.add("band", 0.20 * RING[0], -1.22 * top + 0.20 * RING[1], 0.0)
    else:
        x = np.concatenate((0.92 * wide * cos, 0.98 * wide * cos[::-1]))
        z = np.concatenate((0.75 * sin, (0.1 + 1.25 * sin)[::-1]))
        y = np.concatenate((rim - 0.04 * sin, (rim + 0.04 + 0.24 * sin)[::-1]))
        sketch.add("brim", x, y, z)
        sketch.add("band", 0.07 * SMALL_RING[0], -1.17 * top + 0.05 * SMALL_RING[1], 0.0)
