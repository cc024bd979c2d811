"""The curves of hair and beard."""

from __future__ import annotations

import numpy as np

from farl_lightning.datasets.synthetic.features import RING, mouth_of, nose_tip
from farl_lightning.datasets.synthetic.parameters import Appearance, Identity
from farl_lightning.datasets.synthetic.sketch import Array, Sketch, depth

_ARC = np.linspace(0, np.pi, 33)  # from the image's right over the top to the left
_ARC_COS, _ARC_SIN = np.cos(_ARC), np.sin(_ARC)
_RIPPLE = {"straight": 0.0 * _ARC, "wavy": 0.6 * np.sin(11 * _ARC), "curly": np.sin(23 * _ARC)}
_LINE = np.linspace(1, -1, 17)  # the hairline, right to left
_DOWN = np.linspace(0, 1, 12)
_WAVE = {"straight": 0.0 * _DOWN, "wavy": np.sin(14 * _DOWN), "curly": 0.8 * np.sin(30 * _DOWN)}
_REACH = {"medium": 1.12, "long": 2.15}
_VOLUME = {"straight": 0.08, "wavy": 0.13, "curly": 0.24}


def has_cap(person: Identity) -> bool:
    """Tell whether hair covers the top of the head."""
    return person.hair_length != "bald"


def add_hair(sketch: Sketch, person: Identity, look: Appearance) -> None:
    """Add ``cap`` (top of the head), and for longer hair ``mane`` (behind the neck) and ``lock`` (beside the face)."""
    if not has_cap(person):
        return
    volume = _VOLUME[person.texture] + 0.05 * (person.hair_length != "short")
    if look.hat is not None:
        volume = min(volume, 0.08)
    _add_cap(sketch, person, look, volume)
    if person.hair_length in _REACH and not look.up:
        _add_mane(sketch, person, volume)
    if look.up:
        _add_tied(sketch, person, look.up)


def _add_cap(sketch: Sketch, person: Identity, look: Appearance, volume: float) -> None:
    ripple = 1 + 0.05 * _RIPPLE[person.texture] if look.hat is None else 1.0
    outer_x = (person.width + 0.02 + 0.7 * volume) * _ARC_COS * ripple
    outer_y = 0.08 - (person.skull + 0.08 + volume) * _ARC_SIN * ripple
    line_x, line_y = _hairline(person, look)
    x, y = np.concatenate((outer_x, line_x[::-1])), np.concatenate((outer_y, line_y[::-1]))
    z = np.concatenate((np.full(len(_ARC), -0.08), depth(line_x, line_y) * 0.75))
    sketch.add("cap", x, y, z)


def _hairline(person: Identity, look: Appearance) -> tuple[Array, Array]:
    """Return the front edge of the hair from the image's right to its left."""
    x = 0.93 * person.width * _LINE
    height = person.skull * (0.60 + 0.22 * person.balding)
    edge = -height * (1 - 0.10 * _LINE**2) + person.skull * 0.10 * look.parting * _LINE
    edge = edge - person.balding * 0.28 * person.skull * np.abs(np.sin(2.2 * _LINE)) * (np.abs(_LINE) < 0.95)
    edge = np.maximum(edge, -0.96 * person.skull * np.sqrt(1.02 - _LINE**2))
    if look.bangs:
        edge = np.maximum(edge, -0.44 - 0.05 * np.cos(14 * _LINE) - 0.05 * look.parting * _LINE)
    temples = np.abs(_LINE) > 0.93
    edge = np.where(temples, 0.22, edge)
    return x, np.where(np.abs(np.abs(_LINE) - 0.875) < 0.01, -0.25, edge)


def _add_mane(sketch: Sketch, person: Identity, volume: float) -> None:
    reach = _REACH[person.hair_length]
    out = person.width + 0.08 + volume
    side = out * (1 + 0.10 * _DOWN) + 0.05 * _WAVE[person.texture]
    y = -0.4 + (reach + 0.4) * _DOWN
    x = np.concatenate((side, -side[::-1]))
    sketch.add("mane", x, np.concatenate((y, y[::-1])), -0.25)
    inner = person.width * 0.98 - 0.13 * np.sin(np.pi * np.minimum(1.0, 0.1 + _DOWN)) - 0.02 * _WAVE[person.texture]
    lock_y = -0.55 + (0.85 * reach + 0.55) * _DOWN
    outer = out * (1 + 0.06 * _DOWN) + 0.04 * _WAVE[person.texture]
    sketch.pair("lock", np.concatenate((outer, inner[::-1])), np.concatenate((lock_y, lock_y[::-1])), 0.0)


def _add_tied(sketch: Sketch, person: Identity, style: str) -> None:
    cos, sin = RING
    if style == "bun":
        sketch.add("bun", 0.42 * cos, -person.skull - 0.28 + 0.36 * sin, -0.3)
    else:
        sketch.pair("tail", person.width + 0.32 + 0.22 * cos, 0.35 + 0.62 * sin, -0.2)


_BEARD_EDGE = np.array([0.95, 0.72, 0.52, 0.34, 0.0, -0.34, -0.52, -0.72, -0.95])
_BEARD_RISE = np.array([-0.10, 0.02, 0.10, -0.52, -0.56, -0.52, 0.10, 0.02, -0.10])


def add_beard(sketch: Sketch, person: Identity, look: Appearance) -> None:
    """Add ``beard``, ``goatee``, ``moustache`` and ``sideburn`` as the picture shows them."""
    mouth, tip = mouth_of(person, look), nose_tip(person)
    top = tip * 1.27 + 0.03
    if look.beard in ("full", "stubble"):
        _add_full_beard(sketch, person, mouth.centre_y, top, long=look.beard == "full")
    if look.beard == "goatee":
        x, y = _goatee(mouth.half_width, top, person.chin + 0.08)
        sketch.add("goatee", x, y, depth(x, y) + 0.1)
    if look.beard == "moustache":
        x = (mouth.half_width + 0.06) * _LINE
        upper, lower = top + 0.16 * _LINE**2, mouth.centre_y - mouth.corners * (_LINE**2 - 0.35) + 0.04 * np.abs(_LINE)
        y = np.concatenate((upper, np.maximum(lower, upper + 0.03)[::-1]))
        sketch.add("moustache", np.concatenate((x, x[::-1])), y, depth(np.concatenate((x, x[::-1])), y) + 0.12)
    if look.sideburns:
        x = person.width * np.array([0.99, 0.80, 0.78, 0.88])
        sketch.pair("sideburn", x, np.array([-0.3, -0.3, 0.30, 0.38]), 0.1)


def _add_full_beard(sketch: Sketch, person: Identity, mouth_y: float, top: float, *, long: bool) -> None:
    """Follow the jaw a little outside of it, then go back over the cheeks and above the lip."""
    angles = np.linspace(0.12 * np.pi, 0.88 * np.pi, 19)
    cos, sin = -np.cos(angles), np.sin(angles)
    grown = 1.02 if long else 0.99
    jaw_x = grown * person.width * np.sign(cos) * np.abs(cos) ** person.squareness
    jaw_y = -0.04 + (person.chin + 0.04 + (0.16 if long else 0.0)) * sin**0.92
    edge_y = np.where(np.abs(_BEARD_EDGE) < 0.4, top, mouth_y - 0.12 + _BEARD_RISE)
    edge_y[0] = edge_y[-1] = 0.36
    x, y = np.concatenate((jaw_x, person.width * _BEARD_EDGE)), np.concatenate((jaw_y, edge_y))
    sketch.add("beard", x, y, np.concatenate((0.05 + 0.3 * sin**2, depth(person.width * _BEARD_EDGE, 0.6))))


def _goatee(half_width: float, top: float, bottom: float) -> tuple[Array, Array]:
    cos, sin = RING
    middle, half = 0.5 * (top + bottom), 0.5 * (bottom - top)
    return (half_width + 0.10) * np.sign(cos) * np.abs(cos) ** 0.6, middle + half * np.sign(sin) * np.abs(sin) ** 0.8
