"""The curves of hair and beard."""

from __future__ import annotations

import numpy as np

from farl_lightning.datasets.synthetic.features import RING, Mouth, jaw_side, mouth_of, nose_tip
from farl_lightning.datasets.synthetic.parameters import Appearance, Identity
from farl_lightning.datasets.synthetic.sketch import Array, Sketch

_ARC = np.linspace(0, np.pi, 33)  # from the image's right over the top to the left
_ARC_COS, _ARC_SIN = np.cos(_ARC), np.sin(_ARC)
_RIPPLE = {"straight": 1.0 + 0 * _ARC, "wavy": 1 + 0.03 * np.sin(11 * _ARC), "curly": 1 + 0.05 * np.sin(23 * _ARC)}
_LINE = np.linspace(1, -1, 17)  # the hairline, right to left
_FLAT = 1 - 0.10 * _LINE**2
_CORNERS = np.abs(np.sin(2.2 * _LINE))  # where a hairline recedes first
_HIGHEST = -0.96 * np.sqrt(1.02 - _LINE**2)
_BANGS = -0.44 - 0.05 * np.cos(14 * _LINE)
_CAP_OUT = np.concatenate((np.full(len(_ARC), -0.08), 0.43 - 0.33 * _LINE**2))
_DOWN = np.append(np.linspace(0, 0.9, 10), (0.96, 1.0))
_TIP = _DOWN**7  # rounds the ends of long hair
_ROOT = (1 - _DOWN) ** 6  # and draws them in above the ears
_FLARE, _OUTER_LOCK = 1 + 0.10 * _DOWN - 0.34 * _ROOT, 1 + 0.06 * _DOWN - 0.12 * _TIP - 0.30 * _ROOT
_INNER_LOCK = 0.12 * _TIP - 0.13 * np.sin(np.pi * np.minimum(1.0, 0.1 + _DOWN))
_WAVE = {"straight": 0.0 * _DOWN, "wavy": 0.05 * np.sin(14 * _DOWN), "curly": 0.04 * np.sin(30 * _DOWN)}
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
    outer_x = (person.width + 0.02 + 0.7 * volume) * _ARC_COS
    outer_y = -(person.skull + 0.08 + volume) * _ARC_SIN
    if look.hat is None:
        outer_x, outer_y = outer_x * _RIPPLE[person.texture], outer_y * _RIPPLE[person.texture]
    line_x, line_y = _hairline(person, look)
    sketch.add("cap", (outer_x, line_x[::-1]), (outer_y + 0.08, line_y[::-1]), _CAP_OUT)


def _hairline(person: Identity, look: Appearance) -> tuple[Array, Array]:
    """Return the front edge of the hair from the image's right to its left."""
    edge = -(0.60 + 0.22 * person.balding) * _FLAT + (0.10 * look.parting) * _LINE
    if person.balding:
        edge = np.maximum(edge - (0.28 * person.balding) * _CORNERS, _HIGHEST)
    edge *= person.skull
    if look.bangs:
        edge = np.maximum(edge, _BANGS - 0.05 * look.parting * _LINE)
    edge[0] = edge[-1] = 0.22  # in front of the ears
    edge[1] = edge[-2] = -0.25
    return (0.93 * person.width) * _LINE, edge


def _add_mane(sketch: Sketch, person: Identity, volume: float) -> None:
    reach = _REACH[person.hair_length]
    out = person.width + 0.08 + volume
    side = out * _FLARE + _WAVE[person.texture]
    y = (reach + 0.9) * _DOWN - 0.9
    sketch.add("mane", (side, -side[::-1]), (y, y[::-1]), -0.25)
    inner = _INNER_LOCK + (0.98 * person.width - 0.4 * _WAVE[person.texture])
    outer = out * _OUTER_LOCK + 0.8 * _WAVE[person.texture]
    y = (0.85 * reach + 0.85) * _DOWN - 0.85
    sketch.add("lock", (outer, inner[::-1]), (y, y[::-1]), 0.0, pair=True)


def _add_tied(sketch: Sketch, person: Identity, style: str) -> None:
    cos, sin = RING
    if style == "bun":
        sketch.add("bun", 0.42 * cos, -person.skull - 0.28 + 0.36 * sin, -0.3)
    else:
        sketch.add("tail", person.width + 0.26 + 0.22 * cos, 0.35 + 0.62 * sin, -0.2, pair=True)


_BEARD_ANGLES = np.linspace(0.12 * np.pi, 0.88 * np.pi, 19)
_BEARD_COS, _BEARD_DOWN = -np.cos(_BEARD_ANGLES), np.sin(_BEARD_ANGLES) ** 0.92
_BEARD_EDGE = np.array([0.95, 0.72, 0.52, 0.34, 0.0, -0.34, -0.52, -0.72, -0.95])
_BEARD_CHEEK = np.array([0.0, -0.10, -0.02, 0.0, 0.0, 0.0, -0.02, -0.10, 0.0])
_BEARD_OUT = np.concatenate((0.05 + 0.3 * np.sin(_BEARD_ANGLES) ** 2, 0.6 - 0.5 * _BEARD_EDGE**2))
_GOATEE_X = np.sign(RING[0]) * np.abs(RING[0]) ** 0.6
_GOATEE_Y = np.sign(RING[1]) * np.abs(RING[1]) ** 0.8


def add_beard(sketch: Sketch, person: Identity, look: Appearance) -> None:
    """Add ``beard``, ``goatee``, ``moustache`` and ``sideburn`` as the picture shows them."""
    mouth = mouth_of(person, look)
    top = nose_tip(person) * 1.27 + 0.03
    if look.beard in ("full", "stubble"):
        _add_full_beard(sketch, person, mouth, top, long=look.beard == "full")
    if look.beard == "goatee":
        middle, half = 0.5 * (top + mouth.chin + 0.08), 0.5 * (mouth.chin + 0.08 - top)
        sketch.add("goatee", (mouth.half_width + 0.10) * _GOATEE_X, middle + half * _GOATEE_Y)
    if look.beard == "moustache":
        upper = top + 0.16 * _LINE**2
        lower = mouth.centre_y - mouth.corners * (_LINE**2 - 0.35) + 0.04 * np.abs(_LINE)
        sketch.band("moustache", (mouth.half_width + 0.06) * _LINE, upper, np.maximum(lower, upper + 0.03))
    if look.sideburns:
        x = person.width * np.array([0.99, 0.80, 0.78, 0.88])
        sketch.add("sideburn", x, np.array([-0.3, -0.3, 0.30, 0.38]), 0.1, pair=True)


def _add_full_beard(sketch: Sketch, person: Identity, mouth: Mouth, top: float, *, long: bool) -> None:
    """Follow the jaw a little outside of it, then go back over the cheeks and above the lip."""
    jaw_x = (1.02 if long else 0.99) * jaw_side(person, _BEARD_COS)
    jaw_y = (mouth.chin + (0.20 if long else 0.04)) * _BEARD_DOWN - 0.04
    edge_y = mouth.centre_y + _BEARD_CHEEK
    edge_y[3:6] = top
    edge_y[0] = edge_y[-1] = 0.36
    sketch.add("beard", (jaw_x, person.width * _BEARD_EDGE), (jaw_y, edge_y), _BEARD_OUT)
