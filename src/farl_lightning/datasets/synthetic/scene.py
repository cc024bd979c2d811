"""The order in which a picture is painted, the colours, and the parsing class of every layer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from farl_lightning.datasets.synthetic import clothes, features, hair, wear
from farl_lightning.datasets.synthetic.palette import Colour, mix, shade
from farl_lightning.datasets.synthetic.parameters import Appearance, Identity
from farl_lightning.datasets.synthetic.sketch import Array, Curves, Sketch


class Layer(NamedTuple):
    """One filled polygon on the subpixel grid, (n, 2) whole numbers.

    Without a colour only the masks get it; a class of None leaves the mask as it is.
    """

    points: npt.NDArray[np.float32]
    colour: Colour | None
    lapa: int | None
    celebamask: int | None


class Scene(NamedTuple):
    """A picture ready to be painted: layers from back to front, and every named curve in pixels."""

    layers: list[Layer]
    curves: Curves


def build_scene(person: Identity, look: Appearance, size: int) -> Scene:
    """Lay out one picture.

    Args:
        person: Who is shown.
        look: How.
        size: Side of the picture in pixels; coordinates follow it.
    """
    sketch = Sketch()
    features.add_features(sketch, person, look)
    hair.add_hair(sketch, person, look)
    hair.add_beard(sketch, person, look)
    clothes.add_neck(sketch, person, features.mouth_of(person, look).chin)
    if look.glasses is not None:
        wear.add_glasses(sketch, person, look, look.glasses.kind)
    if look.hat is not None:
        wear.add_hat(sketch, person, look.hat.kind)
    if look.earrings is not None:
        wear.add_earrings(sketch, person, look.earrings.kind)
    clothes.add_body(sketch, person, look)
    curves = sketch.project(look.pose, size)
    return Scene(_Painter(person, look, curves).paint(), curves)


SUPERSAMPLE = 3
"""Subpixels per pixel and axis; odd, so that a subpixel lies on every pixel's centre and masks are exact there."""


def to_grid(points: Array) -> npt.NDArray[np.float32]:
    """Round pixel coordinates to the subpixel grid, on which no two machines' arithmetic differs."""
    return np.rint(points * SUPERSAMPLE + (0.5 * SUPERSAMPLE - 0.5)).astype(np.float32, order="C")


class _Painter:
    """Stacks the layers of one picture."""

    def __init__(self, person: Identity, look: Appearance, curves: Curves) -> None:
        self.person, self.look = person, look
        self.slices, self.grid = curves.slices, to_grid(curves.points)
        self.layers: list[Layer] = []
        grey = max(0.0, min(0.6, (person.age - 42) / 50)) if person.hair not in ("gray", "white") else 0.0
        self.hair = mix(person.hair_rgb, (168, 168, 172), grey * 0.5)
        self.skin = person.skin_rgb

    def put(self, name: str, colour: Colour | None, lapa: int | None = None, celebamask: int | None = None) -> None:
        """Paint a curve if the picture has it."""
        part = self.slices.get(name)
        if part is not None:
            self.layers.append(Layer(self.grid[part], colour, lapa, celebamask))

    def joint(self, *names: str) -> npt.NDArray[np.float32]:
        """Return several curves as one."""
        return np.concatenate([self.grid[self.slices[name]] for name in names])

    def both(
        self,
        name: str,
        colour: Colour | None,
        lapa: tuple[int | None, int | None] = (None, None),
        celebamask: tuple[int | None, int | None] = (None, None),
    ) -> None:
        """Paint a curve of both sides; classes are (image's left, image's right)."""
        left = self.slices.get(name + "_left")
        if left is not None:
            self.layers.append(Layer(self.grid[left], colour, lapa[0], celebamask[0]))
            self.layers.append(Layer(self.grid[self.slices[name + "_right"]], colour, lapa[1], celebamask[1]))

    def paint(self) -> list[Layer]:
        """Stack everything from back to front."""
        self.body()
        self.head()
        self.nose()
        self.mouth()
        self.eyes()
        self.both("brow", shade(self.hair, 0.72), (2, 3), (7, 6))
        self.front_hair()
        self.wear()
        return self.layers

    def body(self) -> None:
        """Clothes, hair that falls behind the neck, neck."""
        worn = self.look.clothes
        self.put("bun", self.hair, 10, 14)
        self.both("tail", self.hair, (10, 10), (14, 14))
        self.put("mane", shade(self.hair, 0.72), 10, 14)
        self.put("clothes", worn.rgb, 0, 3)
        self.put("shirt_front", (240, 240, 240), 0, 3)
        neck = self.joint("neck_top", "neckline")
        if worn.kind == "turtleneck":
            self.layers.append(Layer(neck, shade(self.skin, 0.86), 0, 1))
            collar = np.concatenate((self.joint("neckline"), self.joint("clothes")[[10, 3]]))
            self.layers.append(Layer(collar, shade(worn.rgb, 0.9), 0, 3))
        else:
            self.layers.append(Layer(neck, shade(self.skin, 0.90), 0, 1))
        self.put("neck_shadow", shade(self.skin, 0.74))
        self.both("lapel", shade(worn.rgb, 0.8), (0, 0), (3, 3))
        self.both("collar", shade(worn.rgb, 0.86), (0, 0), (3, 3))
        if self.look.tie is not None:
            self.put("tie", self.look.tie.rgb, 0, 3)
        if self.look.necklace is not None:
            self.put("necklace", self.look.necklace.rgb, 0, 18)

    def head(self) -> None:
        """Ears, skin, shading of the skin, beard."""
        skin, look = self.skin, self.look
        self.both("ear", shade(skin, 0.92), (1, 1), (5, 4))
        self.both("inner_ear", shade(skin, 0.76))
        outline = self.joint("jaw", "skull")
        self.layers.append(Layer(outline, shade(skin, 0.91), 1, 2))
        chin, crown = outline[16].tolist(), outline[41].tolist()
        reach = 0.2 * (chin[1] - crown[1])
        shift = (
            0.05 * (chin[0] + crown[0]) + look.light.slope_x * reach,
            0.05 * (chin[1] + crown[1]) + look.light.slope_y * reach,
        )
        self.layers.append(
            Layer(np.rint(outline[::2] * np.float32(0.9) + np.array(shift, np.float32)), skin, None, None)
        )
        self.both("blush", mix(skin, (226, 70, 70), 0.38))
        self.both("cheekbone", shade(skin, 0.93))
        for name in ("bag", "fold"):
            self.both(name, shade(skin, 0.84))
        for name in ("wrinkle0", "wrinkle1", "wrinkle2", "double_chin"):
            self.put(name, shade(skin, 0.82))
        self.put("beard", mix(skin, self.hair, 0.34) if look.beard == "stubble" else shade(self.hair, 0.9))
        self.put("goatee", shade(self.hair, 0.9))
        self.both("sideburn", shade(self.hair, 0.95))

    def nose(self) -> None:
        """The nose, its ridge and its nostrils."""
        self.put("nose", shade(self.skin, 0.88), 6, 10)
        self.put("ridge", shade(self.skin, 1.06), 6, 10)
        self.both("nostril", shade(self.skin, 0.48))

    def mouth(self) -> None:
        """Moustache, inner mouth, teeth, tongue, lips."""
        look = self.look
        self.put("moustache", shade(self.hair, 0.86))
        lips = look.lipstick or mix(self.skin, (176, 62, 66), 0.36 if self.person.male else 0.5)
        self.put("inner_mouth", (74, 20, 26), 8, 11)
        self.put("teeth", (246, 244, 236))
        self.put("tongue", (190, 84, 92))
        self.put("lower_lip", shade(lips, 1.05), 9, 12)
        self.put("upper_lip", shade(lips, 0.88), 7, 13)

    def eyes(self) -> None:
        """Eye shadow, white, iris, pupil, glint, lashes."""
        look, person = self.look, self.person
        self.both("shadow", mix(self.skin, look.eyeshadow, 0.62) if look.eyeshadow else shade(self.skin, 0.86))
        self.both("eye", (244, 242, 240), (4, 5), (9, 8))
        self.both("iris", person.eye_rgb)
        self.both("pupil", (16, 14, 16))
        self.both("glint", (252, 252, 252))
        self.both("lash", (40, 28, 26) if not person.male else shade(self.skin, 0.42))

    def front_hair(self) -> None:
        """Hair over the forehead and beside the face."""
        self.both("lock", self.hair, (10, 10), (14, 14))
        self.put("cap", self.hair, 10, 14)

    def wear(self) -> None:
        """Glasses, hat, earrings."""
        look = self.look
        if look.glasses is not None:
            sun = look.glasses.kind == "sun"
            skin = (1, 1) if sun else (None, None)
            self.both("lens", (34, 34, 42) if sun else None, skin, (15, 15))
            self.both("temple", look.glasses.rgb, (1, 1), (15, 15))
            self.put("nose_piece", look.glasses.rgb, None, 15)
            self.both("frame", look.glasses.rgb, (1, 1), (15, 15))
        if look.hat is not None:
            dark = shade(look.hat.rgb, 0.78)
            self.put("crown", look.hat.rgb, 0, 16)
            self.put("band", dark, 0, 16)
            self.put("brim", dark if look.hat.kind != "wide-brimmed hat" else look.hat.rgb, 0, 16)
        if look.earrings is not None:
            self.both("earring", look.earrings.rgb, (0, 0), (17, 17))
