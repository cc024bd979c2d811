"""Colours with the words that captions use for them."""

from __future__ import annotations

from farl_lightning.datasets.synthetic.draws import Draws

Colour = tuple[int, int, int]
"""Red, green and blue in 0..255."""

SKIN: dict[str, Colour] = {
    "pale": (252, 222, 204),
    "light": (238, 190, 156),
    "tan": (203, 148, 104),
    "brown": (146, 92, 58),
    "dark": (88, 54, 38),
}
HAIR: dict[str, Colour] = {
    "black": (30, 26, 27),
    "brown": (98, 62, 36),
    "blond": (230, 194, 108),
    "red": (178, 74, 30),
    "gray": (146, 147, 152),
    "white": (233, 231, 226),
}
EYES: dict[str, Colour] = {
    "brown": (92, 56, 26),
    "blue": (62, 124, 196),
    "green": (70, 142, 78),
    "gray": (128, 138, 146),
}
CLOTH: dict[str, Colour] = {
    "red": (204, 40, 44),
    "orange": (238, 130, 32),
    "yellow": (246, 214, 62),
    "green": (48, 150, 66),
    "teal": (32, 158, 160),
    "blue": (44, 88, 200),
    "purple": (128, 58, 172),
    "pink": (242, 140, 180),
    "white": (244, 244, 242),
    "gray": (138, 140, 142),
    "black": (32, 32, 36),
    "brown": (120, 76, 42),
}


def shade(colour: Colour, factor: float) -> Colour:
    """Darken (factor below 1) or brighten a colour."""
    red, green, blue = colour
    if factor <= 1.0:
        return int(red * factor), int(green * factor), int(blue * factor)
    return min(255, int(red * factor)), min(255, int(green * factor)), min(255, int(blue * factor))


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Blend two colours; ``share`` is the part of the second, 0..1."""
    kept = 1.0 - share
    return (
        int(first[0] * kept + second[0] * share),
        int(first[1] * kept + second[1] * share),
        int(first[2] * kept + second[2] * share),
    )


def vary(colour: Colour, draws: Draws, amount: float = 11.0) -> Colour:
    """Move each channel by up to ``amount``, little enough that the colour keeps its name."""
    red, green, blue = colour
    return (
        min(255, max(0, int(red + draws.uniform(-amount, amount)))),
        min(255, max(0, int(green + draws.uniform(-amount, amount)))),
        min(255, max(0, int(blue + draws.uniform(-amount, amount)))),
    )
