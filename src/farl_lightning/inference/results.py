"""What a network says of one face, in the pixels of its photograph."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.inference.pictures import Picture, Pixels
from farl_lightning.transforms.places import FacePlace
from farl_lightning.types import FaceSpec
from farl_lightning.visualization import class_palette, overlay_landmarks, overlay_mask, save_png


@dataclasses.dataclass(frozen=True, eq=False)
class FaceResult:
    """One face. What the network does not answer is None.

    Attributes:
        picture: The photograph; ``picture.pixels()`` reads it again.
        size: Height and width of the photograph, upright.
        place: Where the face was said to be or found: box, points, score.
        matrix: (3, 3) float64 from pixels of the photograph to pixels of the crop, before the tanh warp.
        spec: What the network expects of faces: names of classes and attributes, groups of landmarks.
        labels: (H, W) uint8 parsing labels; 0 where the crop does not reach.
        landmarks: (N, 2) float32 xy, pixel centres at integers.
        confidence: (N,) float32 in [0, 1], the highest value of each landmark's heatmap.
        attributes: Probability of each attribute, by name.
        probabilities: Probability of each class of the label that was learned, by name.
        age: In years.
        embedding: (E,) float32 of length 1, who it is: those of one person have a high dot product.
    """

    picture: Picture = dataclasses.field(repr=False)
    size: tuple[int, int]
    place: FacePlace
    matrix: NDArray[np.float64] = dataclasses.field(repr=False)
    spec: FaceSpec = dataclasses.field(repr=False)
    labels: NDArray[np.uint8] | None = dataclasses.field(default=None, repr=False)
    landmarks: NDArray[np.float32] | None = dataclasses.field(default=None, repr=False)
    confidence: NDArray[np.float32] | None = dataclasses.field(default=None, repr=False)
    attributes: dict[str, float] | None = dataclasses.field(default=None, repr=False)
    probabilities: dict[str, float] | None = dataclasses.field(default=None, repr=False)
    age: float | None = None
    embedding: NDArray[np.float32] | None = dataclasses.field(default=None, repr=False)

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        """Left, top, right, bottom of the face; None where nobody said."""
        return self.place.box

    @property
    def score(self) -> float | None:
        """How sure the detector is, 0 to 1; None for a face that was given."""
        return self.place.score

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the parsing classes, by label."""
        return self.spec.classes

    @property
    def label(self) -> str | None:
        """The most probable class; None where the network tells no classes."""
        return None if self.probabilities is None else max(self.probabilities, key=self.probabilities.__getitem__)

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Return where a class is.

        Args:
            name: Of the class, such as ``"hair"``.

        Returns:
            (H, W) bool.

        Raises:
            ConfigError: If there is no such class.
        """
        if self.labels is None or name not in self.classes:
            raise ConfigError(f"there is no class '{name}' here. {did_you_mean(name, self.classes)}".strip())
        found: NDArray[np.bool_] = self.labels == self.classes.index(name)
        return found

    def draw(self) -> Pixels:
        """Return the photograph with what was found drawn over it: tinted classes, dots for landmarks.

        Returns:
            (H, W, 3) uint8.
        """
        drawn = self.picture.pixels()
        if self.labels is not None:
            names = self.classes or tuple(map(str, range(int(self.labels.max()) + 1)))
            drawn = overlay_mask(drawn, self.labels, class_palette(names))
        return drawn if self.landmarks is None else overlay_landmarks(drawn, self.landmarks)

    def save(self, path: str | Path) -> Path:
        """Write what :meth:`draw` shows as a PNG.

        Args:
            path: The file; its folder is made.

        Returns:
            The path.
        """
        return save_png(self.draw(), path)

    def to_dict(self) -> dict[str, Any]:
        """Return what fits into JSON: everything but pictures and label maps."""
        points = self.place.points
        return {
            "picture": str(self.picture.path or self.picture.name),
            "size": list(self.size),
            "box": None if self.box is None else list(self.box),
            "points": None if points is None else points.tolist(),
            "score": self.score,
            "matrix": self.matrix.tolist(),
            "landmarks": None if self.landmarks is None else self.landmarks.tolist(),
            "confidence": None if self.confidence is None else self.confidence.tolist(),
            "attributes": self.attributes,
            "probabilities": self.probabilities,
            "label": self.label,
            "age": self.age,
            "embedding": None if self.embedding is None else self.embedding.tolist(),
        }
