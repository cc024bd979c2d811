"""The 40 attributes of CelebA, read off the parameters of a drawn face."""

from __future__ import annotations

from farl_lightning.datasets.synthetic.features import mouth_of
from farl_lightning.datasets.synthetic.parameters import Appearance, Identity

CELEBA_ATTRIBUTES = (
    "5_o_Clock_Shadow",
    "Arched_Eyebrows",
    "Attractive",
    "Bags_Under_Eyes",
    "Bald",
    "Bangs",
    "Big_Lips",
    "Big_Nose",
    "Black_Hair",
    "Blond_Hair",
    "Blurry",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Chubby",
    "Double_Chin",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Heavy_Makeup",
    "High_Cheekbones",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Narrow_Eyes",
    "No_Beard",
    "Oval_Face",
    "Pale_Skin",
    "Pointy_Nose",
    "Receding_Hairline",
    "Rosy_Cheeks",
    "Sideburns",
    "Smiling",
    "Straight_Hair",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Wearing_Necklace",
    "Wearing_Necktie",
    "Young",
)
"""Names in the order of CelebA's ``list_attr_celeba.txt``."""


def celeba_attributes(person: Identity, look: Appearance) -> tuple[int, ...]:
    """Return the 40 attributes of a picture, in the order of :data:`CELEBA_ATTRIBUTES`.

    What the picture cannot show is -1, unknown: ``Attractive`` always (a drawing has no say in it), the top of the
    head under a hat (``Bald``, ``Receding_Hairline``), and the eyes behind sunglasses. ``Blurry`` is always 0: no
    picture is. All others are drawn, and hold by the numbers that the drawing used.

    Args:
        person: Who is shown.
        look: How.

    Returns:
        40 numbers: 1 yes, 0 no, -1 unknown.
    """
    values = _hair(person, look) | _face(person, look) | _worn(look) | _beard(look)
    values["Attractive"] = None
    values["Blurry"] = False
    return tuple(-1 if values[name] is None else int(bool(values[name])) for name in CELEBA_ATTRIBUTES)


def _hair(person: Identity, look: Appearance) -> dict[str, bool | None]:
    bald, hat = person.hair_length == "bald", look.hat is not None
    visible = not bald
    return {
        "Bald": None if hat else bald,
        "Receding_Hairline": None if hat else visible and person.balding > 0.25,
        "Bangs": visible and look.bangs and not hat,
        "Black_Hair": visible and person.hair == "black",
        "Blond_Hair": visible and person.hair == "blond",
        "Brown_Hair": visible and person.hair == "brown",
        "Gray_Hair": visible and person.hair in ("gray", "white"),
        "Straight_Hair": visible and person.texture == "straight",
        "Wavy_Hair": visible and person.texture == "wavy",
    }


def _face(person: Identity, look: Appearance) -> dict[str, bool | None]:
    mouth = mouth_of(person, look)
    hidden = look.glasses is not None and look.glasses.kind == "sun"
    return {
        "Arched_Eyebrows": person.brow_arch > 0.08,
        "Bags_Under_Eyes": None if hidden else person.bags > 0.35,
        "Big_Lips": person.lip_fullness > 1.15,
        "Big_Nose": person.nose_width * person.nose_length > 0.145,
        "Bushy_Eyebrows": person.brow_thickness > 1.2,
        "Chubby": person.chubby > 0.4,
        "Double_Chin": person.chubby > 0.5 and look.beard != "full",
        "Heavy_Makeup": look.lipstick is not None and look.eyeshadow is not None,
        "High_Cheekbones": person.cheekbones > 0.6,
        "Male": person.male,
        "Mouth_Slightly_Open": mouth.gape > 0.05,
        "Narrow_Eyes": None if hidden else person.eye_size < 0.92,
        "Oval_Face": person.squareness > 0.92 and person.chin > 1.3 * person.width,
        "Pale_Skin": person.skin == "pale",
        "Pointy_Nose": person.nose_width < 0.23,
        "Rosy_Cheeks": look.blush,
        "Smiling": look.expression == 1,
        "Young": person.age + look.years_later < 40,
    }


def _worn(look: Appearance) -> dict[str, bool | None]:
    return {
        "Eyeglasses": look.glasses is not None,
        "Wearing_Earrings": look.earrings is not None,
        "Wearing_Hat": look.hat is not None,
        "Wearing_Lipstick": look.lipstick is not None,
        "Wearing_Necklace": look.necklace is not None,
        "Wearing_Necktie": look.tie is not None,
    }


def _beard(look: Appearance) -> dict[str, bool | None]:
    return {
        "5_o_Clock_Shadow": look.beard == "stubble",
        "Goatee": look.beard == "goatee",
        "Mustache": look.beard in ("moustache", "full"),
        "No_Beard": look.beard in ("", "moustache"),
        "Sideburns": look.sideburns,
    }
