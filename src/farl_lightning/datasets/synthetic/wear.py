"""The curves of what the head wears: earrings, glasses and hat."""

from __future__ import annotations

import numpy as np

from farl_lightning.datasets.synthetic.features import RING, SMALL_RING, eye_of
from farl_lightning.datasets.synthetic.parameters import Appearance, Identity
from farl_lightning.datasets.synthetic.sketch import Array, Sketch

_DROP = np.array([-0.02, 0.02, 0.10, 0.0, -0.10]), np.array([0.0, 0.0, 0.28, 0.42, 0.28])


def add_earrings(sketch: Sketch, person: Identity, kind: str) -> None:
    """Add ``earring`` at the lobes."""
    x, y = person.width + 0.05, 0.18 + 0.25 * person.ear_size
    if kind == "hoop":
        sketch.add("earring", *_hoop(x, y + 0.15, 0.16, 0.16, 0.05, RING), -0.05, pair=True)
    elif kind == "stud":
        sketch.add("earring", x + 0.085 * SMALL_RING[0], y + 0.085 * SMALL_RING[1], -0.05, pair=True)
    else:
        sketch.add("earring", x + _DROP[0], y + _DROP[1], -0.05, pair=True)


def _hoop(
    x: float, y: float, wide: float, high: float, thick: float, shape: tuple[Array, Array]
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Return a closed band as one polygon: around the outer edge, then back around the inner one."""
    cos, sin = shape
    xs, ys = x + wide * cos, y + high * sin
    inner_x, inner_y = x + (wide - thick) * cos, y + (high - thick) * sin
    return (xs, xs[:1], inner_x[:1], inner_x[::-1]), (ys, ys[:1], inner_y[:1], inner_y[::-1])


def _rounded(square: float) -> tuple[Array, Array]:
    """Return a circle that is the squarer, the smaller the number."""
    return np.sign(RING[0]) * np.abs(RING[0]) ** square, np.sign(RING[1]) * np.abs(RING[1]) ** square


_LENSES = {"round": (0.31, _rounded(1.0)), "square": (0.24, _rounded(0.45)), "sun": (0.29, _rounded(0.7))}
"""Half the height of a lens, and its shape."""
_NOSE_PIECE = np.array([1.0, 0, -1, -1, 0, 1]), np.array([-0.08, -0.12, -0.08, -0.01, -0.05, -0.01])
_TEMPLE_DOWN, _TEMPLE_OUT = np.array([-0.07, -0.04, 0.03, 0.01]), np.array([0.32, 0.0, 0.0, 0.32])


def add_glasses(sketch: Sketch, person: Identity, look: Appearance, kind: str) -> None:
    """Add ``lens`` (filled shapes), ``frame`` (bands around them), ``nose_piece`` and ``temple``."""
    eye = eye_of(person, look)
    high, shape = _LENSES[kind]
    wide = min(0.35, eye.x - 0.06)
    x, y = eye.x + 0.03, 0.04
    out = 0.47 - 0.15 * shape[0]
    sketch.add("lens", x + wide * shape[0], y + high * shape[1], out, pair=True)
    band = np.concatenate((out, out[:1], out[:1], out[::-1]))
    sketch.add("frame", *_hoop(x, y, wide + 0.03, high + 0.03, 0.075, shape), band, pair=True)
    sketch.add("nose_piece", (x - wide + 0.02) * _NOSE_PIECE[0], _NOSE_PIECE[1], 0.72)
    end = x + wide
    sketch.add("temple", np.array([end, person.width, person.width, end]), _TEMPLE_DOWN, _TEMPLE_OUT, pair=True)


_DOME_COS, _DOME_SIN = np.cos(np.linspace(0, np.pi, 17)), np.sin(np.linspace(0, np.pi, 17))
_CROWN = np.array([1.08, 1.04, 0.86, 0.4, -0.4, -0.86, -1.04, -1.08])
_CROWN_DOWN = np.array([-0.5, -0.95, -1.36, -1.44, -1.44, -1.36, -0.95, -0.5])
_BAND, _BAND_DOWN = np.array([1.10, 1.07, -1.07, -1.10]), np.array([-0.55, -0.78, -0.78, -0.55])
_CUFF_OUT = np.concatenate((0.3 * _DOME_SIN, 0.3 * _DOME_SIN))
_VISOR_OUT = np.concatenate((0.75 * _DOME_SIN, 0.1 + 1.25 * _DOME_SIN[::-1]))


def add_hat(sketch: Sketch, person: Identity, kind: str) -> None:
    """Add ``crown``, ``brim`` (a beanie's cuff, a cap's visor) and ``band`` (their bobble and button)."""
    wide, top = person.width, person.skull
    rim = (-0.60 if kind == "cap" else -0.52) * top
    if kind == "wide-brimmed hat":
        sketch.add("crown", wide * _CROWN, top * _CROWN_DOWN, 0.0)
        sketch.add("band", wide * _BAND, top * _BAND_DOWN, 0.05)
        sketch.add("brim", wide * 1.85 * RING[0], rim - 0.03 + 0.17 * RING[1], 0.35 * RING[1])
        return
    sketch.add("crown", 1.13 * wide * _DOME_COS, rim + 0.06 - (0.66 * top + 0.12) * _DOME_SIN, 0.0)
    if kind == "beanie":
        lift = rim - 0.10 * _DOME_SIN**2
        sketch.band("brim", 1.17 * wide * _DOME_COS, lift - 0.16, lift + 0.16, _CUFF_OUT)
        sketch.add("band", 0.20 * RING[0], -1.22 * top + 0.20 * RING[1], 0.0)
    else:
        x, back, front = wide * _DOME_COS, rim - 0.04 * _DOME_SIN, rim + 0.04 + 0.24 * _DOME_SIN
        sketch.add("brim", (0.92 * x, 0.98 * x[::-1]), (back, front[::-1]), _VISOR_OUT)
        sketch.add("band", 0.07 * SMALL_RING[0], -1.17 * top + 0.05 * SMALL_RING[1], 0.0)
