"""What is known of the faces behind released downstream networks, whose files do not say it."""

from __future__ import annotations

from dataclasses import replace

from farl_lightning.functional.geometry import FARL_TEMPLATE
from farl_lightning.types import FaceSpec

_LAPA = FaceSpec(
    crop="align",
    template=FARL_TEMPLATE,
    warp_factor=0.8,
    classes=("background", "face_lr_rr", "lb", "rb", "le", "re", "nose", "ul", "im", "ll", "hair"),
    class_flips=((2, 3), (4, 5)),
)
_CELEBAMASK = FaceSpec(
    crop="quad",
    classes=(
        *("background", "neck", "face", "cloth", "rr", "lr", "rb", "lb", "re", "le", "nose"),
        *("imouth", "llip", "ulip", "hair", "glass", "hat", "earr", "neckl"),
    ),
    class_flips=((4, 5), (6, 7), (8, 9)),
)
# facer shows the networks that FaRL trained on boxes an aligned crop in which the face is smaller
_LANDMARKS = FaceSpec(crop="align", template=tuple((0.8 * x, 0.8 * y) for x, y in FARL_TEMPLATE))

_ATTRIBUTE_POINTS = (  # on 256 pixels
    *((85.82991, 85.7792), (169.0532, 84.3381), (127.574, 137.0006)),
    *((90.6964, 174.7014), (167.3069, 173.3733)),
)
_CELEBA_ATTRIBUTES = (
    *("5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose"),
    *("Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses"),
    *("Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache"),
    *("Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks"),
    *("Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick"),
    *("Wearing_Necklace", "Wearing_Necktie", "Young"),
)


def _attribute_template(size: int) -> tuple[tuple[float, float], ...]:
    """Return where facer's attribute crop has the five points: a wide crop, the face a little below its centre."""
    pixels = [((x - 128 + 250) * size / 500, (y + 30 - 128 + 250) * size / 500) for x, y in _ATTRIBUTE_POINTS]
    return tuple((2 * x / (size - 1) - 1, 2 * y / (size - 1) - 1) for x, y in pixels)


def released_spec(kind: str, num_outputs: int, image_size: int) -> FaceSpec | None:
    """Return what FaRL's and facer's networks expect, known by their task and their number of outputs.

    Landmarks have neither flip pairs nor groups here; the datasets' own specifications have.

    Args:
        kind: ``"parsing"``, ``"alignment"`` or ``"attributes"``.
        num_outputs: 11 (LaPa) or 19 classes (CelebAMask-HQ), any number of landmarks, 40 attributes (CelebA).
        image_size: Side of the crop in pixels.

    Returns:
        The specification; None for a number that no released network has.
    """
    if kind == "alignment" and num_outputs in (19, 68, 98):
        return replace(_LANDMARKS, image_size=image_size, num_landmarks=num_outputs)
    if kind == "attributes" and num_outputs == len(_CELEBA_ATTRIBUTES):
        template = _attribute_template(image_size)
        return FaceSpec(image_size, crop="align", template=template, attributes=_CELEBA_ATTRIBUTES)
    spec = {("parsing", 11): _LAPA, ("parsing", 19): _CELEBAMASK}.get((kind, num_outputs))
    return None if spec is None else replace(spec, image_size=image_size)
