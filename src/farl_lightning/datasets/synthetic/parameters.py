"""What a face is (identity) and how one picture shows it (appearance), as plain numbers and words."""

from __future__ import annotations

import dataclasses
import functools
import itertools

from farl_lightning.datasets.synthetic.draws import Draws
from farl_lightning.datasets.synthetic.palette import CLOTH, EYES, HAIR, SKIN, Colour, vary

EXPRESSIONS = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")
"""The seven basic expressions in the order of AffectNet's first seven labels."""

_SKIN_HAIR: dict[str, dict[str, float]] = {  # hair colours that go with a skin, by weight
    "pale": {"black": 1.0, "brown": 3.0, "blond": 4.0, "red": 3.0},
    "light": {"black": 2, "brown": 4, "blond": 4, "red": 2},
    "tan": {"black": 5, "brown": 4, "blond": 1, "red": 0.5},
    "brown": {"black": 7, "brown": 2, "blond": 0.4, "red": 0.2},
    "dark": {"black": 9, "brown": 1, "blond": 0.3, "red": 0.2},
}


@dataclasses.dataclass(frozen=True)
class Identity:
    """What all pictures of one person share. Lengths are in units of half a face's width."""

    number: int
    male: bool
    age: float  # years, at the first picture
    skin: str
    skin_rgb: Colour
    hair: str
    hair_rgb: Colour
    texture: str  # "straight", "wavy" or "curly"
    hair_length: str  # "bald", "short", "medium" or "long"
    balding: float  # how far the hairline has gone back, 0..1
    eye: str
    eye_rgb: Colour
    width: float  # of the face
    chin: float  # depth of the chin under the eyes
    squareness: float  # exponent of the jaw's curve: small is square, above 1 pointed
    chubby: float  # 0..1
    skull: float  # height of the head above the eyes
    eye_size: float
    eye_gap: float
    eye_slant: float
    brow_thickness: float
    brow_arch: float
    brow_height: float
    nose_width: float
    nose_length: float
    lip_fullness: float
    mouth_width: float
    mouth_height: float
    ear_size: float
    cheekbones: float  # 0..1
    beard_growth: float  # 0..1, how often and how thick
    bags: float  # under the eyes, 0..1


@functools.lru_cache(maxsize=4096)
def draw_identity(seed: int, number: int) -> Identity:
    """Draw the person with this number."""
    draws = Draws(seed, "identity", number)
    male = draws.chance(0.5)
    age = draws.weighted({(5, 13): 1.0, (13, 20): 1.2, (20, 40): 5.0, (40, 60): 3.0, (60, 85): 2.4})
    years = draws.uniform(*age)
    skin = draws.choice(tuple(SKIN))
    hair, hair_rgb = _hair_colour(draws, skin, years)
    eye = draws.weighted({"brown": 4, "blue": 3, "green": 2, "gray": 1} if skin in ("pale", "light") else {"brown": 1})
    return Identity(
        number=number,
        male=male,
        age=years,
        skin=skin,
        skin_rgb=vary(SKIN[skin], draws, 12),
        hair=hair,
        hair_rgb=hair_rgb,
        texture=draws.weighted({"straight": 5, "wavy": 3, "curly": 2}),
        hair_length=_hair_length(draws, male, years),
        balding=draws.uniform(0.2, 1.0) if male and years > 30 and draws.chance(0.45) else 0.0,
        eye=eye,
        eye_rgb=vary(EYES[eye], draws),
        **_shape(draws, male, years),
    )


def _hair_colour(draws: Draws, skin: str, years: float) -> tuple[str, Colour]:
    """Choose the hair's colour; it turns grey and then white with age."""
    young = draws.weighted(_SKIN_HAIR[skin])
    turn = draws.uniform(48, 78)
    if years < turn:
        return young, vary(HAIR[young], draws, 16)
    name = "white" if years > turn + 10 else "gray"
    return name, vary(HAIR[name], draws, 10)


def _hair_length(draws: Draws, male: bool, years: float) -> str:
    """Choose how long the hair is."""
    if male:
        return draws.weighted({"bald": 1.6 if years > 25 else 0.0, "short": 6, "medium": 1.2, "long": 0.9})
    return draws.weighted({"short": 1.4, "medium": 3, "long": 5})


def _shape(draws: Draws, male: bool, years: float) -> dict[str, float]:
    """Draw the lengths of a face; children have larger eyes, shorter chins and higher foreheads."""
    child = min(1.0, max(0.0, (17 - years) / 12))
    chubby = max(0.0, draws.bell(-0.7, 1.1))
    heavy = 1.0 if male else 0.0
    return {
        "width": draws.bell(0.90, 1.08) + 0.10 * chubby,
        "chin": (draws.bell(1.22, 1.46) + 0.04 * heavy) * (1 - 0.14 * child),
        "squareness": draws.bell(0.84, 1.14) - 0.16 * heavy * (1 - child) - 0.10 * chubby,
        "chubby": chubby,
        "skull": draws.bell(1.16, 1.32) * (1 + 0.10 * child),
        "eye_size": draws.bell(0.84, 1.16) * (1 + 0.22 * child) * (1.05 - 0.09 * heavy),
        "eye_gap": draws.bell(0.91, 1.09),
        "eye_slant": draws.bell(-0.05, 0.06),
        "brow_thickness": (draws.bell(0.55, 1.25) + 0.40 * heavy) * (1 - 0.3 * child),
        "brow_arch": draws.bell(0.0, 0.12) + 0.03 * (1 - heavy),
        "brow_height": draws.bell(0.27, 0.38) - 0.03 * heavy,
        "nose_width": (draws.bell(0.18, 0.32) + 0.02 * heavy) * (1 - 0.12 * child),
        "nose_length": draws.bell(0.42, 0.60) * (1 - 0.18 * child),
        "lip_fullness": draws.bell(0.65, 1.45) + 0.15 * (1 - heavy),
        "mouth_width": draws.bell(0.31, 0.45),
        "mouth_height": draws.bell(0.62, 0.70),
        "ear_size": draws.bell(0.85, 1.2),
        "cheekbones": draws.uniform(),
        "beard_growth": draws.uniform() if male and years > 19 else 0.0,
        "bags": max(0.0, draws.bell(-0.5, 0.8)) + max(0.0, (years - 50) / 60),
    }


@dataclasses.dataclass(frozen=True)
class Garment:
    """A thing worn: its kind and its colour by name and value."""

    kind: str
    colour: str
    rgb: Colour


@dataclasses.dataclass(frozen=True)
class Pose:
    """Where the head is and how it is turned."""

    yaw: float  # degrees, positive: turned towards the image's right
    pitch: float  # degrees, positive: looking up
    roll: float  # degrees, positive: tilted clockwise in the image
    scale: float  # half a face's width as a share of the image's side
    x: float  # the point between the eyes (at no rotation), as a share of the image's side
    y: float


@dataclasses.dataclass(frozen=True)
class Light:
    """Gain of the picture: constant, slope towards the light, fall-off to the rim, and tint by channel."""

    gain: float
    slope_x: float
    slope_y: float
    rim: float
    tint: tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Backdrop:
    """Pattern behind the head: ``plain``, ``gradient``, ``stripes`` or ``spots``, in one or two colours."""

    kind: str
    colour: str
    rgb: Colour
    other: str
    other_rgb: Colour
    angle: int  # stripes and gradients: 0 horizontal, 1 vertical, 2 and 3 diagonal
    places: tuple[tuple[float, float, float], ...]  # spots: x, y, radius as shares of the side


@dataclasses.dataclass(frozen=True)
class Appearance:
    """What one picture shows beyond the identity."""

    index: int
    years_later: float
    expression: int  # index into EXPRESSIONS
    intensity: float
    open_mouth: bool
    gaze: tuple[float, float]  # -1..1
    pose: Pose
    parting: float  # -1..1, where the hair parts
    bangs: bool
    up: str  # "", "bun" or "pigtails"
    beard: str  # "", "stubble", "goatee", "moustache" or "full"
    sideburns: bool
    glasses: Garment | None
    hat: Garment | None
    earrings: Garment | None
    necklace: Garment | None
    clothes: Garment
    tie: Garment | None
    lipstick: Colour | None
    eyeshadow: Colour | None
    blush: bool
    light: Light
    backdrop: Backdrop


def draw_appearance(seed: int, index: int, person: Identity) -> Appearance:
    """Draw how picture ``index`` shows the person."""
    draws = Draws(seed, "picture", index)
    adult = person.age > 16
    clothes = _clothes(draws, person)
    expression = draws.weighted({0: 5, 1: 9, 2: 2, 3: 2.5, 4: 1.5, 5: 1.5, 6: 2.5})
    made_up = not person.male and adult and draws.chance(0.55)
    hat = _wear(draws, 0.27, {"beanie": 1, "cap": 1, "wide-brimmed hat": 1})
    return Appearance(
        index=index,
        years_later=draws.uniform(0, 3),
        expression=expression,
        intensity=draws.uniform(0.75, 1.2),
        open_mouth=draws.chance(0.6),
        gaze=(draws.bell(-0.8, 0.8), draws.bell(-0.5, 0.5)),
        pose=_pose(draws),
        parting=draws.uniform(-0.8, 0.8),
        bangs=draws.chance(0.12 if person.male else 0.35) and not person.balding,
        up=_hair_up(draws, person, hat),
        beard=_beard(draws, person),
        sideburns=draws.chance(0.4) and person.beard_growth > 0.3 and person.hair_length != "bald",
        glasses=_glasses(draws),
        hat=hat,
        earrings=_wear(draws, 0.03 if person.male else 0.5, {"hoop": 1, "stud": 1, "drop": 1}, _METALS),
        necklace=_wear(draws, 0.02 if person.male else 0.3, {"chain": 1, "beads": 1}, _METALS),
        clothes=clothes,
        tie=_wear(draws, 0.7 if clothes.kind == "suit" and person.male else 0.0, {"tie": 1}),
        lipstick=draws.choice(_LIPSTICKS) if made_up else None,
        eyeshadow=draws.choice(_SHADOWS) if made_up and draws.chance(0.5) else None,
        blush=draws.chance(0.3 if made_up or not adult else 0.05),
        light=_light(draws),
        backdrop=_backdrop(draws),
    )


_METALS: dict[str, Colour] = {"gold": (236, 190, 60), "silver": (208, 212, 220), "pearl": (250, 244, 232)}
_LIPSTICKS: tuple[Colour, ...] = ((190, 24, 44), (214, 60, 100), (140, 20, 60), (224, 84, 76))
_SHADOWS: tuple[Colour, ...] = ((80, 96, 170), (130, 80, 150), (70, 130, 120), (150, 100, 60))


def _wear(
    draws: Draws, probability: float, kinds: dict[str, float], colours: dict[str, Colour] = CLOTH
) -> Garment | None:
    """Put something on, or not."""
    return _garment(draws, kinds, colours) if draws.chance(probability) else None


def _garment(draws: Draws, kinds: dict[str, float], colours: dict[str, Colour]) -> Garment:
    kind, colour = draws.weighted(kinds), draws.choice(tuple(colours))
    return Garment(kind, colour, vary(colours[colour], draws))


def _glasses(draws: Draws) -> Garment | None:
    """Choose glasses: round or square frames in some colours, or sunglasses."""
    frames = {name: CLOTH[name] for name in ("black", "brown", "red", "blue", "white")}
    return _wear(draws, 0.40, {"round": 4, "square": 4, "sun": 2}, frames)


def _clothes(draws: Draws, person: Identity) -> Garment:
    """Choose what is worn below the neck."""
    kinds = {"t-shirt": 3, "v-neck": 2, "shirt": 2, "suit": 2.0 if person.age > 18 else 0.0, "turtleneck": 1}
    return _garment(draws, kinds, CLOTH)


def _hair_up(draws: Draws, person: Identity, hat: Garment | None) -> str:
    """Tie long hair up at times; never under a hat."""
    style = draws.weighted({"": 5, "bun": 2, "pigtails": 3 if person.age < 25 else 0.3})
    return style if not person.male and person.hair_length != "short" and hat is None else ""


def _beard(draws: Draws, person: Identity) -> str:
    """Choose the facial hair of a grown man."""
    style = draws.weighted({"full": 3, "stubble": 2, "goatee": 2, "moustache": 2})
    return style if draws.chance(0.15 + 0.8 * person.beard_growth) and person.beard_growth > 0.0 else ""


def _pose(draws: Draws) -> Pose:
    """Draw the pose: mostly frontal, turned at times."""
    turned = draws.chance(0.35)
    return Pose(
        yaw=draws.sign() * draws.uniform(14, 32) if turned else draws.bell(-14, 14),
        pitch=draws.bell(-20, 20),
        roll=draws.bell(-24, 24),
        scale=draws.uniform(0.225, 0.275),
        x=draws.bell(0.44, 0.56),
        y=draws.bell(0.42, 0.50),
    )


def _light(draws: Draws) -> Light:
    """Draw the lighting: dim to bright, from any side, cold to warm."""
    warm = draws.bell(-0.10, 0.10)
    return Light(
        gain=draws.uniform(0.74, 1.06),
        slope_x=draws.bell(-0.42, 0.42),
        slope_y=draws.bell(-0.26, 0.18),
        rim=draws.uniform(0.0, 0.18),
        tint=(1.0 + warm, 1.0, 1.0 - warm),
    )


_CLOTH_PAIRS = tuple(itertools.permutations(CLOTH, 2))


def _backdrop(draws: Draws) -> Backdrop:
    """Draw the background."""
    first, second = draws.choice(_CLOTH_PAIRS)
    kind = draws.weighted({"plain": 3, "gradient": 2, "stripes": 2, "spots": 2})
    count = 7 + int(draws.uniform(0, 6)) if kind == "spots" else 0
    places = tuple((draws.uniform(), draws.uniform(), draws.uniform(0.05, 0.13)) for _ in range(count))
    angle = int(draws.uniform(0, 4))
    return Backdrop(kind, first, vary(CLOTH[first], draws), second, vary(CLOTH[second], draws), angle, places)
