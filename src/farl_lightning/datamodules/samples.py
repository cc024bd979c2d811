"""Samples of a face dataset: a bad one costs neither the run nor a count."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from farl_lightning.datasets.bad_sample import NO_CROP, BadSample
from farl_lightning.datasets.faces import IGNORE, FaceDataset
from farl_lightning.errors import DataError
from farl_lightning.functional.geometry import template_points
from farl_lightning.functional.random import derive_seed
from farl_lightning.transforms.crop import CropError
from farl_lightning.types import ATTRIBUTES, FaceRecord, FaceSpec

SUBSTITUTE_TRIES = 32
"""How many samples are tried in the place of a bad one, before the training data are given up."""


class FaceSamples:
    """A dataset and a transform as an ``EpochDataset``.

    A bad sample never raises. In training another sample takes its place, drawn by (seed, pass, key), so that batches
    stay full, processes stay in step and a resumed run draws the same; in evaluation an empty sample stands in with
    ``valid`` False. Either brings the reason in ``dropped``.

    Args:
        dataset: The faces.
        transform: (record, epoch) to a sample of a :class:`~farl_lightning.types.FaceBatch`; ``CropError`` and
            ``BadSample`` say that a sample cannot be used.
        seed: Key of what takes the place of bad samples.
        train: Whether bad samples are replaced rather than marked.
        length: Samples of a pass, when it is longer than the dataset: the rows are then seen several times, each time
            with another augmentation.
    """

    def __init__(
        self,
        dataset: FaceDataset,
        transform: Callable[[FaceRecord, int], dict[str, Any]],
        seed: int = 0,
        train: bool = False,
        length: int | None = None,
    ) -> None:
        self.dataset, self.transform, self.seed, self.train = dataset, transform, seed, train
        self._length = len(dataset) if length is None else length
        self._rounds = math.ceil(self._length / max(len(dataset), 1))

    def __len__(self) -> int:
        """Return the number of samples of a pass."""
        return self._length

    @property
    def fingerprint(self) -> str:
        """Hash of the samples' names: a saved position means nothing for other samples."""
        return hashlib.blake2b("\n".join(self.dataset.keys).encode(), digest_size=8).hexdigest()

    def sample(self, index: int, epoch: int) -> dict[str, Any]:
        """Return one sample.

        Args:
            index: From 0 to ``len(self) - 1``.
            epoch: Number of the pass; 0 in evaluation.

        Raises:
            DataError: In training, if neither the sample nor any drawn in its place can be used.
        """
        turn, row = divmod(index, len(self.dataset))
        number = epoch * self._rounds + turn
        try:
            return self._make(row, number)
        except BadSample as bad:
            sample = self._substitute(row, number, bad) if self.train else self._blank(row)
            return {**sample, "dropped": [bad.to_drop(self.dataset.keys[row])]}

    def _make(self, row: int, epoch: int) -> dict[str, Any]:
        """Return a sample, or raise ``BadSample``."""
        try:
            return self.transform(self.dataset[row], epoch)
        except CropError as error:
            raise BadSample(NO_CROP, str(error)) from error

    def _substitute(self, row: int, epoch: int, bad: BadSample) -> dict[str, Any]:
        """Return another sample. What is bad about those tried on the way is told when their own turn comes."""
        key = self.dataset.keys[row]
        for attempt in range(SUBSTITUTE_TRIES):
            other = derive_seed(self.seed, "substitute", epoch, key, attempt) % len(self.dataset)
            with contextlib.suppress(BadSample):
                return self._make(other, epoch)
        raise DataError(
            f"{key} cannot be used ({bad}), and neither can {SUBSTITUTE_TRIES} others that were drawn in its place; "
            "repair the data"
        )

    def _blank(self, row: int) -> dict[str, Any]:
        """Return an empty sample with the same entries as a good one."""
        data = self.dataset
        sample = self.transform(blank_record(data.keys[row], data.spec, labels=data.labels, groups=data.groups), 0)
        if "mask" in sample:
            sample["mask"] = torch.full_like(sample["mask"], IGNORE)
        return {**sample, "valid": False}


def blank_record(
    key: str, spec: FaceSpec, size: int = 64, labels: Sequence[str] = (), groups: Sequence[str] = ()
) -> FaceRecord:
    """Return a black picture with harmless labels, for the place of a sample that cannot be read.

    Args:
        key: Name of the sample.
        spec: Which labels there are.
        size: Side of the picture in pixels.
        labels: Columns of labels of the whole face.
        groups: Columns of subgroups.

    Returns:
        The record: all labels "ignore" or unknown, landmarks on a circle (distances between them are not 0).
    """
    angle = np.linspace(0, 2 * np.pi, max(spec.num_landmarks, 1), endpoint=False)
    circle = (size / 2 + size / 4 * np.stack([np.cos(angle), np.sin(angle)], -1)).astype(np.float32)
    return FaceRecord(
        key=key,
        image=np.zeros((size, size, 3), np.uint8),
        mask=np.full((size, size), IGNORE, np.uint8) if spec.classes else None,
        landmarks=circle if spec.num_landmarks else None,
        points=template_points(size).numpy(),
        box=(0.0, 0.0, float(size), float(size)),
        labels={name: unknown_label(name, spec) for name in labels},
        groups=dict.fromkeys(groups, ""),
    )


def unknown_label(name: str, spec: FaceSpec) -> int | float | npt.NDArray[np.int64]:
    """Return the label of a face of which nothing is known: -1 for a class and for each attribute, nan for a number.

    Args:
        name: Column of the label.
        spec: What the labels are.
    """
    if name == ATTRIBUTES:
        return np.full(len(spec.attributes), -1)
    return -1 if spec.label_names.get(name) else math.nan
