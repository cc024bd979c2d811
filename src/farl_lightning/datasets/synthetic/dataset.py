"""Drawn faces with known truth."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch.utils.data import Dataset
from tqdm import tqdm  # type: ignore[import-untyped]

from farl_lightning.datasets.synthetic.attributes import CELEBA_ATTRIBUTES, celeba_attributes
from farl_lightning.datasets.synthetic.captions import write_captions
from farl_lightning.datasets.synthetic.classes import CELEBAMASK_CLASSES, CELEBAMASK_FLIPS, LAPA_CLASSES, LAPA_FLIPS
from farl_lightning.datasets.synthetic.landmarks import ORDERS, landmark_flips, landmark_groups, take_landmarks
from farl_lightning.datasets.synthetic.parameters import (
    EXPRESSIONS,
    Appearance,
    Identity,
    draw_appearance,
    draw_identity,
)
from farl_lightning.datasets.synthetic.raster import Pixels, paint_image, paint_mask
from farl_lightning.datasets.synthetic.scene import Scene, build_scene
from farl_lightning.errors import ConfigError
from farl_lightning.types import FaceSpec

PICTURES_PER_IDENTITY = 4
"""Consecutive indices that show the same person, unless the dataset has a fixed number of identities."""


@dataclasses.dataclass(frozen=True)
class SyntheticFace:
    """One drawn face and everything that is true of it; what costs time is worked out when first asked for.

    Attributes:
        key: Name of the sample, ``synthetic-<seed>-<index>``, unique for its identity numbering.
        seed: Seed of the dataset.
        size: Side of the picture in pixels.
        person: Parameters of the identity.
        look: Parameters of the picture.
        num_captions: Number of captions.
    """

    key: str
    seed: int
    size: int
    person: Identity
    look: Appearance
    num_captions: int = 5

    @functools.cached_property
    def scene(self) -> Scene:
        """The layers and curves that image, masks and landmarks share."""
        return build_scene(self.person, self.look, self.size)

    @functools.cached_property
    def image(self) -> Pixels:
        """(H, W, 3) uint8 RGB."""
        return paint_image(self.scene.layers, self.look.backdrop, self.look.light, self.size)

    @functools.cached_property
    def captions(self) -> list[str]:
        """Several true captions."""
        return write_captions(self.person, self.look, self.seed, self.num_captions)

    @functools.cached_property
    def mask_lapa(self) -> Pixels:
        """(H, W) uint8, LaPa's 11 classes; ears and beard are skin, hats and what lies below the chin background."""
        return paint_mask(self.scene.layers, "lapa", self.size)

    @functools.cached_property
    def mask_celebamask(self) -> Pixels:
        """(H, W) uint8, CelebAMask-HQ's 19 classes; glasses cover what is seen through them, as in that dataset."""
        return paint_mask(self.scene.layers, "celebamask", self.size)

    def landmarks(self, count: int = 68) -> npt.NDArray[np.float32]:
        """Return the landmarks, whether hidden (by hat, glasses, turn) or not.

        Args:
            count: 68 (iBUG), 98 (WFLW) or 19 (AFLW).

        Returns:
            (count, 2) float32, (x, y) in pixels, pixel centres at integers.

        Raises:
            ConfigError: If no order has that many points.
        """
        if count not in ORDERS:
            raise ConfigError(f"there is no order of {count} landmarks; allowed: {', '.join(map(str, ORDERS))}")
        return take_landmarks(self.scene.curves, count)

    @functools.cached_property
    def five_points(self) -> npt.NDArray[np.float32]:
        """(5, 2) float32: eye centres, tip of the nose, mouth corners, from the image's left to its right."""
        return self.landmarks(19)[[7, 10, 13, 15, 17]]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the bare head in pixels, without ears, hair and hat."""
        outline = np.concatenate((self.scene.curves["jaw"], self.scene.curves["skull"]))
        left, top = outline.min(axis=0)
        right, bottom = outline.max(axis=0)
        return float(left), float(top), float(right), float(bottom)

    @functools.cached_property
    def attributes(self) -> tuple[int, ...]:
        """40 numbers in CelebA's order: 1 yes, 0 no, -1 unknown."""
        return celeba_attributes(self.person, self.look)

    @property
    def age(self) -> float:
        """Age in years."""
        return self.person.age + self.look.years_later

    @property
    def expression(self) -> int:
        """Index into :data:`~farl_lightning.datasets.synthetic.parameters.EXPRESSIONS`."""
        return self.look.expression

    @property
    def yaw(self) -> float:
        """Degrees, positive: turned towards the image's right."""
        return self.look.pose.yaw

    @property
    def pitch(self) -> float:
        """Degrees, positive: looking up."""
        return self.look.pose.pitch

    @property
    def roll(self) -> float:
        """Degrees, positive: tilted clockwise in the image."""
        return self.look.pose.roll

    @property
    def identity(self) -> int:
        """Number of the person."""
        return self.person.number


class SyntheticFaces(Dataset[SyntheticFace]):
    """Faces drawn from a seed, the same on every machine, byte for byte (Pillow 11.2 to 13 fill polygons alike).

    Index and seed name a picture: it depends neither on ``count`` nor on what was drawn before.
    ``pictures_per_identity`` consecutive indices show the same person, so that two index ranges that begin at multiples
    of it share nobody.

    Args:
        count: Number of pictures.
        image_size: Side of the pictures in pixels; the same face at any size.
        seed: Seed.
        start: Index of the first picture.
        cache: Draw all pictures at once, on construction, into one array that forked workers share.
        identities: Number of different people, shown in turn; None never runs out of new ones.
        num_captions: Captions per picture.
        pictures_per_identity: Pictures of one person that follow each other; of no effect with ``identities``.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(
        self,
        count: int,
        image_size: int = 64,
        seed: int = 0,
        start: int = 0,
        cache: bool = False,
        identities: int | None = None,
        num_captions: int = 5,
        pictures_per_identity: int = PICTURES_PER_IDENTITY,
    ) -> None:
        checks = {
            "count": (count, 1),
            "image_size": (image_size, 16),
            "start": (start, 0),
            "num_captions": (num_captions, 1),
            "pictures_per_identity": (pictures_per_identity, 1),
        }
        for name, (value, least) in (
            checks | ({"identities": (identities, 1)} if identities is not None else {})
        ).items():
            if value < least:
                raise ConfigError(f"{name} must be at least {least}, got {value}")
        self.count, self.image_size, self.seed, self.start = count, image_size, seed, start
        self.identities, self.num_captions = identities, num_captions
        self.pictures_per_identity = pictures_per_identity
        self._images: Pixels | None = None
        self._captions: list[list[str]] = []
        self._points: list[npt.NDArray[np.float32]] = []
        if cache:
            self._draw_all()

    def _draw_all(self) -> None:
        images = np.empty((self.count, self.image_size, self.image_size, 3), np.uint8)
        rows = tqdm(range(self.count), desc="drawing faces", unit="face", delay=3, leave=False, disable=None)
        for index in rows:
            face = self._face(index)
            images[index] = face.image
            self._captions.append(face.captions)
            self._points.append(face.five_points)  # while its scene is there: building one takes as long as painting
        images.flags.writeable = False
        self._images = images

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> SyntheticFace:
        """Return a face.

        Args:
            index: From 0 to ``count - 1``; negative indices count from the end.

        Raises:
            IndexError: If there is no such face.
        """
        if not -self.count <= index < self.count:
            raise IndexError(f"index {index} of {self.count} synthetic faces")
        index %= self.count
        face = self._face(index)
        if self._images is not None:
            face.__dict__["image"] = self._images[index]
            face.__dict__["captions"] = self._captions[index]
            face.__dict__["five_points"] = self._points[index].copy()
        return face

    def __iter__(self) -> Iterator[SyntheticFace]:
        return (self[index] for index in range(self.count))

    def _face(self, index: int) -> SyntheticFace:
        number = self.start + int(index)
        who = number // self.pictures_per_identity if self.identities is None else number % self.identities
        person = draw_identity(self.seed, who)
        key = f"synthetic-{self.seed}-{number}"
        return SyntheticFace(
            key, self.seed, self.image_size, person, draw_appearance(self.seed, number, person), self.num_captions
        )

    @staticmethod
    def spec(image_size: int = 64, classes: int = 11, landmarks: int = 68) -> FaceSpec:
        """Return what a model must know of these faces.

        Args:
            image_size: Side of the network's input.
            classes: 11 (LaPa) or 19 (CelebAMask-HQ).
            landmarks: 68, 98 or 19.

        Raises:
            ConfigError: If there is no such convention.
        """
        names = {11: (LAPA_CLASSES, LAPA_FLIPS), 19: (CELEBAMASK_CLASSES, CELEBAMASK_FLIPS)}
        if classes not in names or landmarks not in ORDERS:
            raise ConfigError(f"classes must be 11 or 19 and landmarks 68, 98 or 19, got {classes} and {landmarks}")
        return FaceSpec(
            image_size=image_size,
            classes=names[classes][0],
            class_flips=names[classes][1],
            num_landmarks=landmarks,
            landmark_flips=landmark_flips(landmarks),
            landmark_groups=landmark_groups(landmarks),
            attributes=CELEBA_ATTRIBUTES,
        )

    def write_folder(self, folder: str | Path, limit: int | None = None, suffix: str = "png") -> Path:
        """Write pictures and ``captions.jsonl`` (``file``, ``key``, ``captions``, ``attributes`` by name).

        Args:
            folder: Where to; made if needed.
            limit: Number of pictures; None writes all.
            suffix: Format, ``"png"`` or ``"jpg"``.

        Returns:
            The path of ``captions.jsonl``.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "captions.jsonl"
        with path.open("w", encoding="utf-8") as lines:
            for face in itertools.islice(self, limit):
                name = f"{face.key}.{suffix}"
                Image.fromarray(face.image).save(folder / name)
                attributes = dict(zip(CELEBA_ATTRIBUTES, face.attributes, strict=True))
                row = {"file": name, "key": face.key, "captions": face.captions, "attributes": attributes}
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")
        return path


__all__ = ["EXPRESSIONS", "PICTURES_PER_IDENTITY", "SyntheticFace", "SyntheticFaces"]
