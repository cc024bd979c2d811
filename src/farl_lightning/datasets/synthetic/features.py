"""The curves of a face: outline, ears, brows, eyes, nose and mouth, shaped by identity, age and expression."""

from __future__ import annotations

import dataclasses

import numpy as np

from farl_lightning.datasets.synthetic.parameters import Appearance, Identity
from farl_lightning.datasets.synthetic.sketch import Array, Sketch, depth


def _ring(count: int) -> tuple[Array, Array]:
    """Return cosines and sines of equal steps around a circle."""
    angles = np.arange(count) * (2 * np.pi / count)
    return np.cos(angles), np.sin(angles)


RING = _ring(16)
SMALL_RING = _ring(10)

_JAW_COS = -np.cos(np.linspace(0, np.pi, 33))  # from the image's left ear over the chin to the right ear
_JAW_SIN = np.clip(np.sin(np.linspace(0, np.pi, 33)), 0, None)
_TOP_COS, _TOP_SIN = np.cos(np.linspace(0, np.pi, 19)[1:-1]), np.sin(np.linspace(0, np.pi, 19)[1:-1])
_LID = np.linspace(1, -1, 13)  # outer to inner corner of the eye on the image's right
_UPPER_LID, _LOWER_LID = (1 - _LID**2) ** 0.62, (1 - _LID**2) ** 0.85
_BROW = np.linspace(1, -1, 9)  # outer to inner end
_BROW_BEND = (1 - ((_BROW - 0.25) / 1.25) ** 2).clip(0)
_BROW_TAPER = np.array([0.12, 0.5, 0.75, 0.9, 1.0, 1.05, 1.05, 1.0, 0.85])
_LIP = np.linspace(-1, 1, 13)  # the image's left to right corner
_LIP_BEND = 1 - _LIP**2
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
    _Mimic(corners=-0.03, gape=0.46, parted=0.22, mouth=0.72, inner_brow=0.17, outer_brow=0.17, lids=1.42),  # surprise
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
        centre_y=nose_tip(person) + 0.36 * (person.chin - nose_tip(person)) + 0.04,
    )


def eye_of(person: Identity, look: Appearance) -> Eye:
    """Return how wide and how open the eyes are."""
    mimic, power = _mimic(look)
    lids = max(0.3, 1 + (mimic.lids - 1) * power)
    half_width = 0.205 * person.eye_size
    return Eye(x=0.43 * person.eye_gap, half_width=half_width, half_height=0.62 * half_width * lids)


def nose_tip(person: Identity) -> float:
    """Return y of the nose's tip."""
    return person.nose_length


def add_outline(sketch: Sketch, person: Identity) -> None:
    """Add ``jaw`` (33 points), ``skull`` (from right to left over the top) and the ears."""
    sides = np.sign(_JAW_COS) * np.abs(_JAW_COS) ** person.squareness
    sketch.add("jaw", person.width * sides, -0.04 + (person.chin + 0.04) * _JAW_SIN**0.92, 0.05 + 0.3 * _JAW_SIN**2)
    sketch.add("skull", 1.0 * person.width * _TOP_COS, -0.04 - (person.skull - 0.04) * _TOP_SIN, 0.0)
    cos, sin = RING
    size = person.ear_size
    sketch.pair("ear", person.width * 1.0 + 0.03 + 0.13 * size * cos, 0.16 + 0.25 * size * sin, -0.12)
    sketch.pair("inner_ear", person.width * 1.0 + 0.05 + 0.07 * size * cos, 0.16 + 0.15 * size * sin, -0.12)


def add_eyes(sketch: Sketch, person: Identity, look: Appearance) -> None:
    """Add ``eye`` (24 points: upper lid outer to inner, lower lid back), irises, pupils, glints and lids."""
    eye = eye_of(person, look)
    tilt = -person.eye_slant * _LID
    x = eye.x + eye.half_width * _LID
    upper = tilt - eye.half_height * _UPPER_LID
    lower = tilt + 0.62 * eye.half_height * _LOWER_LID
    z = depth(x, 0.0)
    sketch.pair(
        "eye", np.concatenate((x, x[-2:0:-1])), np.concatenate((upper, lower[-2:0:-1])), np.concatenate((z, z[-2:0:-1]))
    )
    thick = 0.035 if person.male else 0.06
    sketch.pair(
        "lash",
        np.concatenate((x, x[::-1])),
        np.concatenate((upper - thick, upper[::-1] + 0.012)),
        np.concatenate((z, z[::-1])),
    )
    fold = upper - 0.05 - 0.05 * _UPPER_LID
    sketch.pair(
        "shadow",
        np.concatenate((x, x[::-1])),
        np.concatenate((fold - 0.07 * _UPPER_LID, upper[::-1])),
        np.concatenate((z, z[::-1])),
    )
    _add_irises(sketch, person, look, eye)


_SIDES = np.array([[1.0], [-1.0]])
_GAZE = np.array([np.concatenate((RING[0], 0.46 * SMALL_RING[0])), np.concatenate((RING[1], 0.46 * SMALL_RING[1]))])


def _add_irises(sketch: Sketch, person: Identity, look: Appearance, eye: Eye) -> None:
    """Add iris, pupil and glint of each eye, cut by the lids; both eyes look the same way."""
    radius = 0.56 * eye.half_width
    middle = _SIDES * eye.x + 0.32 * eye.half_width * look.gaze[0]
    y0 = (0.2 * look.gaze[1] - 0.12) * eye.half_height
    x = middle + radius * _GAZE[0]
    across = ((_SIDES * x - eye.x) / eye.half_width).clip(-1, 1)
    room, tilt = np.sqrt(1 - across * across), -person.eye_slant * across
    upper, lower = tilt - eye.half_height * room**1.24, tilt + 0.62 * eye.half_height * room**1.7
    y = (y0 + radius * _GAZE[1]).clip(upper, lower)
    z = depth(x, 0.0)
    split = len(RING[0])
    for row, side in enumerate(("right", "left")):
        sketch.add(f"iris_{side}", x[row, :split], y[row, :split], z[row, :split])
        sketch.add(f"pupil_{side}", x[row, split:], y[row, split:], z[row, split:])
        glint = middle[row] + radius * (0.35 + 0.2 * SMALL_RING[0])
        sketch.add(f"glint_{side}", glint, y0 + radius * (0.2 * SMALL_RING[1] - 0.3), z[row, 0])


def add_brows(sketch: Sketch, person: Identity, look: Appearance) -> None:
    """Add ``brow`` (18 points: upper edge outer to inner, lower edge back) and ``brow_line`` (9 along the middle)."""
    mimic, power = _mimic(look)
    x = 0.46 * person.eye_gap + 0.27 * _BROW
    inner, outer = (1 - _BROW) / 2, (1 + _BROW) / 2
    raised = power * (mimic.inner_brow * inner + mimic.outer_brow * outer)
    middle = -person.brow_height - person.brow_arch * _BROW_BEND - raised + 0.05 * outer
    half = 0.052 * person.brow_thickness * _BROW_TAPER
    z = depth(x, middle) + 0.04
    edges = np.concatenate((middle - half, (middle + half)[::-1]))
    sketch.pair("brow", np.concatenate((x, x[::-1])), edges, np.concatenate((z, z[::-1])))
    sketch.pair("brow_line", x, middle, z)


_NOSE_SIDE = np.array([0.0, 0.38, 0.40, 0.50, 0.92, 1.06, 0.98, 0.80, 0.42, 0.0])
_NOSE_DOWN = np.array([0.0, 0.06, 0.40, 0.72, 0.86, 1.00, 1.12, 1.18, 1.22, 1.27])
_NOSE_OUT = np.array([0.62, 0.60, 0.62, 0.66, 0.64, 0.62, 0.62, 0.66, 0.76, 0.84])


def add_nose(sketch: Sketch, person: Identity) -> None:
    """Add ``nose`` (18 points around), ``bridge`` (4 points down to the tip), ``ridge`` and ``nostril``."""
    tip, wide = nose_tip(person), person.nose_width
    side, down, out = wide * _NOSE_SIDE, -0.04 + (tip + 0.04) * _NOSE_DOWN, _NOSE_OUT
    x, y = np.concatenate((side, -side[-2:0:-1])), np.concatenate((down, down[-2:0:-1]))
    sketch.add("nose", x, y, np.concatenate((out, out[-2:0:-1])))
    sketch.add(
        "bridge", np.zeros(4), -0.04 + (tip + 0.04) * np.array([0.1, 0.4, 0.7, 1.0]), np.array([0.64, 0.74, 0.88, 1.0])
    )
    ridge = wide * np.array([0.10, 0.16, 0.34, 0.26, -0.26, -0.34, -0.16, -0.10])
    heights = np.array([0.1, 0.6, 0.92, 1.06, 1.06, 0.92, 0.6, 0.1])
    outs = np.array([0.64, 0.78, 0.96, 0.98, 0.98, 0.96, 0.78, 0.64])
    sketch.add("ridge", ridge, tip * heights, outs)
    cos, sin = SMALL_RING
    sketch.pair("nostril", wide * (0.46 + 0.24 * cos), tip * 1.13 + 0.045 * sin, 0.76)


def add_mouth(sketch: Sketch, person: Identity, look: Appearance) -> None:
    """Add ``upper_lip``, ``lower_lip`` (26 points each: outer edge left to right, inner edge back), ``inner_mouth``."""
    mimic, power = _mimic(look)
    mouth = mouth_of(person, look)
    x = mouth.half_width * _LIP
    line = mouth.centre_y - mouth.corners * (_LIP**2 - 0.35)
    inner_top = line - 0.35 * mouth.gape * _GAPE - mimic.sneer * power * _LIP_BEND
    inner_low = line + 0.65 * mouth.gape * _GAPE
    top = inner_top - 0.085 * person.lip_fullness * _UPPER_LIP
    low = inner_low + 0.115 * person.lip_fullness * _LOWER_LIP
    z = depth(x, mouth.centre_y) + 0.12 * _LIP_BEND
    across, around = np.concatenate((x, x[::-1])), np.concatenate((z, z[::-1]))
    sketch.add("upper_lip", across, np.concatenate((top, inner_top[::-1])), around)
    sketch.add("lower_lip", across, np.concatenate((low, inner_low[::-1])), around)
    sketch.add("inner_mouth", across, np.concatenate((inner_top, inner_low[::-1])), around)
    bite = inner_top + np.minimum(0.45 * (inner_low - inner_top), 0.11)
    sketch.add("teeth", across, np.concatenate((inner_top, bite[::-1])), around)
    gum = inner_low - np.minimum(0.4 * (inner_low - inner_top), 0.12) * _LIP_BEND
    sketch.add("tongue", across[3:-3], np.concatenate((gum[3:], inner_low[::-1][:-3])), around[3:-3])


_STROKE = np.linspace(-1, 1, 7)
_STROKE_BEND = 1 - _STROKE**2


def _stroke(sketch: Sketch, name: str, x: Array, y: Array, width: float, *, paired: bool = True) -> None:
    """Add a thin line that tapers to both ends."""
    half = 0.5 * width * (0.25 + 0.75 * _STROKE_BEND)
    xs, ys = np.concatenate((x, x[::-1])), np.concatenate((y - half, (y + half)[::-1]))
    (sketch.pair if paired else sketch.add)(name, xs, ys, depth(xs, ys))


def add_skin_marks(sketch: Sketch, person: Identity, look: Appearance, age: float) -> None:
    """Add blush and cheekbones, and the lines that come with age."""
    cos, sin = SMALL_RING
    mouth = mouth_of(person, look)
    cheek_x, cheek_y = 0.60 * person.width, 0.5 * (nose_tip(person) + 0.12)
    sketch.pair("blush", cheek_x + 0.19 * cos, cheek_y + 0.08 + 0.14 * sin, depth(cheek_x + 0.19 * cos, 0.4))
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
        _stroke(sketch, f"wrinkle{line}", (0.5 - 0.05 * line) * _STROKE, y, 0.035, paired=False)
    if person.chubby > 0.5:
        y = person.chin + 0.03 + 0.10 * _STROKE_BEND
        _stroke(sketch, "double_chin", 0.42 * _STROKE, y, 0.05, paired=False)


def add_features(sketch: Sketch, person: Identity, look: Appearance) -> None:
    """Add every curve of the face."""
    add_outline(sketch, person)
    add_skin_marks(sketch, person, look, person.age + look.years_later)
    add_nose(sketch, person)
    add_mouth(sketch, person, look)
    add_eyes(sketch, person, look)
    add_brows(sketch, person, look)
