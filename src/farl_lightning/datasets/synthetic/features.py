"""The curves of a face: outline, ears, brows, eyes, nose and mouth, shaped by identity, age and expression."""

from __future__ import annotations

import dataclasses

import numpy as np

from farl_lightning.datasets.synthetic.parameters import EXPRESSIONS, Appearance, Identity
from farl_lightning.datasets.synthetic.sketch import Array, Sketch


def _ring(count: int) -> tuple[Array, Array]:
    """Return cosines and sines of equal steps around a circle."""
    angles = np.arange(count) * (2 * np.pi / count)
    return np.cos(angles), np.sin(angles)


RING = _ring(16)
SMALL_RING = _ring(10)

_JAW_COS = -np.cos(np.linspace(0, np.pi, 33))  # from the image's left ear over the chin to the right ear
_JAW_SIN = np.clip(np.sin(np.linspace(0, np.pi, 33)), 0, None)
_JAW_DOWN, _JAW_OUT = _JAW_SIN**0.92, 0.05 + 0.3 * _JAW_SIN**2
_TOP_COS, _TOP_SIN = np.cos(np.linspace(0, np.pi, 19)[1:-1]), np.sin(np.linspace(0, np.pi, 19)[1:-1])
_LID = np.linspace(1, -1, 13)  # outer to inner corner of the eye on the image's right
_UPPER_LID, _LOWER_LID = (1 - _LID**2) ** 0.75, 1 - _LID**2
_BROW = np.linspace(1, -1, 9)  # outer to inner end
_BROW_BEND = (1 - ((_BROW - 0.25) / 1.25) ** 2).clip(0)
_BROW_TAPER = np.array([0.12, 0.5, 0.75, 0.9, 1.0, 1.05, 1.05, 1.0, 0.85])
_LIP = np.linspace(-1, 1, 13)  # the image's left to right corner
_LIP_BEND = 1 - _LIP**2
_TONGUE_OUT = np.tile(0.58 + 0.06 * _LIP_BEND[3:-3], 2)
_LIP_SWING = _LIP**2 - 0.35
_LIP_OUT = np.concatenate((0.58 + 0.06 * _LIP_BEND, 0.58 + 0.06 * _LIP_BEND))
_UPPER_LIP = _LIP_BEND**0.7 * (1 + 0.25 * np.cos(_LIP * np.pi * 2.2)) * np.where(np.abs(_LIP) < 0.1, 0.82, 1.0)
_LOWER_LIP = _LIP_BEND**0.6
_GAPE = _LIP_BEND**0.75  # rounder than the lips' line


@dataclasses.dataclass(frozen=True)
class _Mimic:
    """How far an expression moves each part; all numbers in half face widths, or factors of 1."""

    corners: float = 0.0  # mouth corners up
    gape: float = 0.0  # between the lips when the mouth is open
    parted: float = 0.0  # between the lips when it is as closed as the expression allows
    mouth: float = 1.0  # width
    sneer: float = 0.0  # upper lip up
    inner_brow: float = 0.0  # up
    outer_brow: float = 0.0
    lids: float = 1.0  # opening of the eyes


_MIMICS = (
    _Mimic(gape=0.09),  # neutral
    _Mimic(corners=0.17, gape=0.26, mouth=1.30, outer_brow=0.02, lids=0.80),  # happy
    _Mimic(corners=-0.15, gape=0.05, mouth=0.90, inner_brow=0.15, outer_brow=-0.08, lids=0.72),  # sad
    _Mimic(corners=-0.03, gape=0.40, parted=0.22, mouth=0.72, inner_brow=0.17, outer_brow=0.17, lids=1.42),  # surprise
    _Mimic(corners=-0.09, gape=0.24, parted=0.10, mouth=1.12, inner_brow=0.17, outer_brow=0.02, lids=1.34),  # fear
    _Mimic(corners=-0.11, gape=0.14, parted=0.03, mouth=0.95, sneer=0.12, inner_brow=-0.10, lids=0.58),  # disgust
    _Mimic(corners=-0.10, gape=0.18, mouth=1.05, inner_brow=-0.17, outer_brow=0.09, lids=0.88),  # anger
)


@dataclasses.dataclass(frozen=True)
class Mouth:
    """Numbers of the mouth that the drawing and the labels share."""

    gape: float
    corners: float
    half_width: float
    centre_y: float
    chin: float  # y of the chin, which drops as the mouth opens


@dataclasses.dataclass(frozen=True)
class Eye:
    """Numbers of the eyes that the drawing and the labels share."""

    x: float
    half_width: float
    half_height: float


def _mimic(look: Appearance) -> tuple[_Mimic, float]:
    return _MIMICS[look.expression], look.intensity


def mouth_of(person: Identity, look: Appearance) -> Mouth:
    """Return how the mouth is set by the expression."""
    mimic, power = _mimic(look)
    gape = (mimic.gape if look.open_mouth else mimic.parted) * power
    return Mouth(
        gape=gape,
        corners=mimic.corners * power,
        half_width=person.mouth_width * (1 + (mimic.mouth - 1) * power),
        centre_y=nose_tip(person) + 0.36 * (person.chin - nose_tip(person)) + 0.05,
        chin=person.chin + 0.3 * gape,
    )


def eye_of(person: Identity, look: Appearance) -> Eye:
    """Return how wide and how open the eyes are."""
    mimic, power = _mimic(look)
    lids = max(0.3, 1 + (mimic.lids - 1) * power)
    half_width = 0.205 * person.eye_size
    return Eye(x=0.43 * person.eye_gap, half_width=half_width, half_height=0.66 * half_width * lids)


def nose_tip(person: Identity) -> float:
    """Return y of the nose's tip."""
    return person.nose_length


def jaw_side(person: Identity, cos: Array) -> Array:
    """Return x of the jaw's outline at the angles with these cosines; the image's left is at -1."""
    return person.width * np.sign(cos) * np.abs(cos) ** person.squareness


def add_outline(sketch: Sketch, person: Identity, chin: float) -> None:
    """Add ``jaw`` (33 points), ``skull`` (from right to left over the top) and the ears."""
    sketch.add("jaw", jaw_side(person, _JAW_COS), (chin + 0.04) * _JAW_DOWN - 0.04, _JAW_OUT)
    sketch.add("skull", person.width * _TOP_COS, -0.04 - (person.skull - 0.04) * _TOP_SIN, 0.0)
    cos, sin = RING
    wide, high = 0.13 * person.ear_size * cos, 0.25 * person.ear_size * sin
    sketch.add("ear", wide + (person.width + 0.03), high + 0.16, -0.12, pair=True)
    sketch.add("inner_ear", 0.55 * wide + (person.width + 0.05), 0.6 * high + 0.16, -0.12, pair=True)


def add_eyes(sketch: Sketch, person: Identity, look: Appearance) -> None:
    """Add ``eye`` (24 points: upper lid outer to inner, lower lid back), irises, pupils, glints and lids."""
    eye = eye_of(person, look)
    tilt = -person.eye_slant * _LID
    x = eye.x + eye.half_width * _LID
    upper = tilt - eye.half_height * _UPPER_LID
    lower = tilt + 0.62 * eye.half_height * _LOWER_LID
    sketch.add("eye", (x, x[-2:0:-1]), (upper, lower[-2:0:-1]), pair=True)
    sketch.band("lash", x, upper - (0.035 if person.male else 0.06), upper + 0.012, pair=True)
    sketch.band("shadow", x, upper - 0.05 - 0.12 * _UPPER_LID, upper, pair=True)
    _add_irises(sketch, person, look, eye)


_GLINT = 0.35 + 0.2 * SMALL_RING[0], 0.2 * SMALL_RING[1] - 0.3
_GAZE = np.array([np.concatenate((RING[0], 0.46 * SMALL_RING[0])), np.concatenate((RING[1], 0.46 * SMALL_RING[1]))])


def _add_irises(sketch: Sketch, person: Identity, look: Appearance, eye: Eye) -> None:
    """Add iris, pupil and glint of each eye, cut by the lids; both eyes look the same way."""
    radius = 0.56 * eye.half_width
    shift = 0.32 * eye.half_width * look.gaze[0]
    y0 = (0.2 * look.gaze[1] - 0.12) * eye.half_height
    x = np.minimum(np.maximum(shift + radius * _GAZE[0], -eye.half_width), eye.half_width)  # from the eye's middle
    y = y0 + radius * _GAZE[1]
    across = x / eye.half_width
    room = 1 - across * across
    arch = np.sqrt(room)
    upper, lower = -eye.half_height * arch * np.sqrt(arch), 0.62 * eye.half_height * room
    tilt = person.eye_slant * across
    glint_x, glint_y = shift + radius * _GLINT[0], y0 + radius * _GLINT[1]
    split = len(RING[0])
    for side, middle, lift in (("right", eye.x, -tilt), ("left", -eye.x, tilt)):
        cut, moved = np.minimum(np.maximum(y, upper + lift), lower + lift), x + middle
        sketch.add(f"iris_{side}", moved[:split], cut[:split])
        sketch.add(f"pupil_{side}", moved[split:], cut[split:])
        sketch.add(f"glint_{side}", glint_x + middle, glint_y)


def add_brows(sketch: Sketch, person: Identity, look: Appearance) -> None:
    """Add ``brow`` (18 points: upper edge outer to inner, lower edge back) and ``brow_line`` (9 along the middle)."""
    mimic, power = _mimic(look)
    x = 0.46 * person.eye_gap + 0.27 * _BROW
    inner, outer = power * mimic.inner_brow, power * mimic.outer_brow - 0.05  # raised by so much
    ends = -person.brow_height - 0.5 * (inner + outer)
    middle = ends - person.brow_arch * _BROW_BEND - 0.5 * (outer - inner) * _BROW
    half = (0.052 * person.brow_thickness) * _BROW_TAPER
    sketch.band("brow", x, middle - half, middle + half, pair=True)
    sketch.add("brow_line", x, middle, pair=True)


# The nose from between the eyes down the image's right side and up its left, in its widths and lengths; z as it is.
_NOSE_HALF = np.array([0.0, 0.38, 0.40, 0.50, 0.92, 1.06, 0.98, 0.80, 0.42, 0.0])
_NOSE_SIDE = np.concatenate((_NOSE_HALF, -_NOSE_HALF[-2:0:-1]))
_NOSE_HEIGHTS = np.array([0.0, 0.06, 0.40, 0.72, 0.86, 1.00, 1.12, 1.18, 1.22, 1.27])
_NOSE_DOWN = np.concatenate((_NOSE_HEIGHTS, _NOSE_HEIGHTS[-2:0:-1]))
_NOSE_DEPTHS = np.array([0.62, 0.60, 0.62, 0.66, 0.64, 0.62, 0.62, 0.66, 0.76, 0.84])
_NOSE_OUT = np.concatenate((_NOSE_DEPTHS, _NOSE_DEPTHS[-2:0:-1]))
_BRIDGE_X, _BRIDGE_DOWN, _BRIDGE_OUT = np.zeros(4), np.array([0.1, 0.4, 0.7, 1.0]), np.array([0.64, 0.74, 0.88, 1.0])
_RIDGE_SIDE = np.array([0.10, 0.16, 0.34, 0.26, -0.26, -0.34, -0.16, -0.10])
_RIDGE_DOWN = np.array([0.1, 0.6, 0.92, 1.06, 1.06, 0.92, 0.6, 0.1])
_RIDGE_OUT = np.array([0.64, 0.78, 0.96, 0.98, 0.98, 0.96, 0.78, 0.64])
_NOSTRIL_SIDE, _NOSTRIL_DOWN = 0.46 + 0.24 * SMALL_RING[0], 0.045 * SMALL_RING[1]


def add_nose(sketch: Sketch, person: Identity) -> None:
    """Add ``nose`` (18 points around), ``bridge`` (4 points down to the tip), ``ridge`` and ``nostril``."""
    tip, wide = nose_tip(person), person.nose_width
    sketch.add("nose", wide * _NOSE_SIDE, (tip + 0.04) * _NOSE_DOWN - 0.04, _NOSE_OUT)
    sketch.add("bridge", _BRIDGE_X, (tip + 0.04) * _BRIDGE_DOWN - 0.04, _BRIDGE_OUT)
    sketch.add("ridge", wide * _RIDGE_SIDE, tip * _RIDGE_DOWN, _RIDGE_OUT)
    sketch.add("nostril", wide * _NOSTRIL_SIDE, _NOSTRIL_DOWN + tip * 1.13, 0.76, pair=True)


def add_mouth(sketch: Sketch, person: Identity, look: Appearance) -> None:
    """Add ``upper_lip``, ``lower_lip`` (26 points each: outer edge left to right, inner edge back), ``inner_mouth``."""
    mimic, power = _mimic(look)
    mouth = mouth_of(person, look)
    x = mouth.half_width * _LIP
    line = mouth.centre_y - mouth.corners * _LIP_SWING
    inner_top = line - 0.22 * mouth.gape * _GAPE - (mimic.sneer * power) * _LIP_BEND
    inner_low = line + 0.78 * mouth.gape * _GAPE
    top = inner_top - (0.085 * person.lip_fullness) * _UPPER_LIP
    low = inner_low + (0.115 * person.lip_fullness) * _LOWER_LIP
    sketch.band("upper_lip", x, top, inner_top, _LIP_OUT)
    sketch.band("lower_lip", x, low, inner_low, _LIP_OUT)
    sketch.band("inner_mouth", x, inner_top, inner_low, _LIP_OUT)
    if shows_teeth(look, mouth):
        gap = inner_low - inner_top
        sketch.band("teeth", x, inner_top, inner_top + np.minimum(0.45 * gap, 0.11), _LIP_OUT)
    if shows_tongue(mouth):
        tongue = inner_low - np.minimum(0.4 * (inner_low - inner_top), 0.12) * _LIP_BEND
        sketch.band("tongue", x[3:-3], tongue[3:-3], inner_low[3:-3], _TONGUE_OUT)


def shows_teeth(look: Appearance, mouth: Mouth) -> bool:
    """Tell whether the upper teeth are seen: in an open mouth that is not round with surprise."""
    return mouth.gape > 0.08 and EXPRESSIONS[look.expression] != "surprise"


def shows_tongue(mouth: Mouth) -> bool:
    """Tell whether the tongue is seen."""
    return mouth.gape > 0.08


_STROKE = np.linspace(-1, 1, 7)
_STROKE_BEND = 1 - _STROKE**2
_STROKE_HALF = 0.5 * (0.25 + 0.75 * _STROKE_BEND)


def _stroke(sketch: Sketch, name: str, x: Array, y: Array, width: float, *, pair: bool = True) -> None:
    """Add a thin line that tapers to both ends."""
    half = width * _STROKE_HALF
    sketch.band(name, x, y - half, y + half, pair=pair)


def add_skin_marks(sketch: Sketch, person: Identity, look: Appearance, age: float) -> None:
    """Add blush and cheekbones, and the lines that come with age."""
    cos, sin = SMALL_RING
    mouth = mouth_of(person, look)
    cheek_x, cheek_y = 0.60 * person.width, 0.5 * (nose_tip(person) + 0.12)
    if look.blush:
        sketch.add("blush", cheek_x + 0.19 * cos, cheek_y + 0.08 + 0.14 * sin, pair=True)
    if person.cheekbones > 0.6:
        _stroke(sketch, "cheekbone", cheek_x + 0.06 + 0.24 * _STROKE, cheek_y + 0.24 - 0.16 * _STROKE, 0.10)
    if person.bags > 0.35:
        eye = eye_of(person, look)
        y = 0.62 * eye.half_height + 0.02 + 0.09 * _STROKE_BEND
        _stroke(sketch, "bag", eye.x + 0.85 * eye.half_width * _STROKE, y, 0.05)
    if age > 38:
        fold_x = 0.5 * (person.nose_width + mouth.half_width) + 0.12 + 0.10 * _STROKE
        fold_y = 0.5 * (nose_tip(person) + mouth.centre_y) + 0.05 + 0.24 * _STROKE
        _stroke(sketch, "fold", fold_x, fold_y, 0.05)
    for line in range(min(3, int((age - 32) / 12))):
        y = -person.skull * 0.5 - 0.10 * line - 0.03 * _STROKE_BEND
        _stroke(sketch, f"wrinkle{line}", (0.5 - 0.05 * line) * _STROKE, y, 0.035, pair=False)
    if person.chubby > 0.5:
        y = mouth.chin + 0.03 + 0.10 * _STROKE_BEND
        _stroke(sketch, "double_chin", 0.42 * _STROKE, y, 0.05, pair=False)


def add_features(sketch: Sketch, person: Identity, look: Appearance) -> None:
    """Add every curve of the face."""
    add_outline(sketch, person, mouth_of(person, look).chin)
    add_skin_marks(sketch, person, look, person.age + look.years_later)
    add_nose(sketch, person)
    add_mouth(sketch, person, look)
    add_eyes(sketch, person, look)
    add_brows(sketch, person, look)
