"""Drawn faces as a face dataset: masks and landmarks without a download."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from tqdm import tqdm  # type: ignore[import-untyped]

from farl_lightning.datasets.faces import DatasetSource, FaceDataset
from farl_lightning.datasets.synthetic import SyntheticFace, SyntheticFaces
from farl_lightning.types import FaceRecord, FaceSpec


class DrawnFaces(FaceDataset):
    """Faces of :class:`~farl_lightning.datasets.synthetic.SyntheticFaces` with the labels that dense tasks need.

    Args:
        faces: The faces.
        classes: 11 (LaPa's classes), 19 (CelebAMask-HQ's), or 0 for no masks.
        landmarks: 68, 98 or 19, or 0 for none.
        cache: Draw every picture once, now, into arrays that forked workers share (28 kB each at 96 px).

    Raises:
        ConfigError: If there is no such convention.
    """

    source = DatasetSource("SyntheticFaces", "farl_lightning", ("nothing",), "drawn from a seed", ())

    def __init__(self, faces: SyntheticFaces, classes: int = 11, landmarks: int = 68, cache: bool = False) -> None:
        self.spec = drawn_labels(classes, landmarks)
        self.faces = faces
        self.keys = [f"synthetic-{faces.seed}-{faces.start + index}" for index in range(len(faces))]
        self._records: Sequence[FaceRecord] = ()
        if cache:
            self._records = self._draw_all()

    def read(self, index: int) -> FaceRecord:
        """Draw one sample, or take it from the cache.

        Args:
            index: From 0 to ``len(self) - 1``.
        """
        return self._records[index] if self._records else self._record(self.faces[index])

    def _record(self, face: SyntheticFace) -> FaceRecord:
        """Return a face with its labels."""
        return FaceRecord(
            key=face.key,
            image=face.image,
            mask=self._mask(face),
            landmarks=face.landmarks(self.spec.num_landmarks) if self.spec.num_landmarks else None,
            points=face.five_points,
            box=face.box,
        )

    def _mask(self, face: SyntheticFace) -> npt.NDArray[np.uint8] | None:
        """Return the labels in the wanted classes, if any are wanted."""
        if not self.spec.classes:
            return None
        return face.mask_lapa if len(self.spec.classes) == 11 else face.mask_celebamask

    def _draw_all(self) -> list[FaceRecord]:
        """Draw everything into two arrays, so that forked workers copy no pages of pictures."""
        count, side = len(self), self.faces.image_size
        images = np.empty((count, side, side, 3), np.uint8)
        masks = np.empty((count, side, side), np.uint8)
        records = []
        for index in tqdm(range(count), desc="drawing faces", unit="face", delay=3, leave=False, disable=None):
            record = self._record(self.faces[index])
            images[index] = record.image
            if record.mask is not None:
                masks[index] = record.mask
                record = dataclasses.replace(record, mask=masks[index])
            records.append(dataclasses.replace(record, image=images[index]))
        images.flags.writeable = masks.flags.writeable = False
        return records


def drawn_labels(classes: int, landmarks: int) -> FaceSpec:
    """Return the labels of drawn faces alone, without crop and size.

    Args:
        classes: 11, 19, or 0 for no masks.
        landmarks: 68, 98, 19, or 0 for none.

    Raises:
        ConfigError: If there is no such convention.
    """
    spec = SyntheticFaces.spec(classes=classes or 11, landmarks=landmarks or 68)
    kept = FaceSpec()
    if classes:
        kept = dataclasses.replace(kept, classes=spec.classes, class_flips=spec.class_flips)
    if landmarks:
        names = ("num_landmarks", "landmark_flips", "landmark_groups")
        kept = dataclasses.replace(kept, **{name: getattr(spec, name) for name in names})
    return kept
