"""Faces for verification: people to learn from, pairs of others to judge by."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from farl_lightning.datamodules.global_faces import GlobalFaceDataModule
from farl_lightning.datamodules.people import PeopleDataModule, Trial, checked_pictures
from farl_lightning.datasets.faces import FaceDataset
from farl_lightning.datasets.labelled import LabelledFaces
from farl_lightning.datasets.pairs import FacePairs, PairList, identity_faces, open_pairs
from farl_lightning.errors import ConfigError
from farl_lightning.transforms.dense_config import DenseTransformConfig, global_recipe
from farl_lightning.types import FaceSpec


class VerificationDataModule(PeopleDataModule, GlobalFaceDataModule):
    """A folder of people to train on, and lists of pairs to validate and test on: LFW, CFP-FP, AgeDB-30, CALFW, CPLFW.

    Validation and test go through the same lists, one loader per list in the order of ``pairs``, then one per gallery;
    every picture comes once, and ``trials(split)`` says which two rows make a pair. Nothing is chosen on training
    people.

    Args:
        root: Folder with one subfolder per person; None where nothing is trained.
        pairs: Path of each list by its name, such as ``{"LFW": "data/lfw.bin"}``; see
            :func:`~farl_lightning.datasets.pairs.open_pairs`.
        galleries: Folders of people to be found by rank, by name, with one subfolder per person: the first picture of
            each is known, the others are looked for.
        pictures_per_person: Training pictures of one person that come together, as triplets need them; see
            :class:`~farl_lightning.datamodules.people.GroupedBatches`. None shuffles pictures one by one.
        **kwargs: Further settings of :class:`~farl_lightning.datamodules.global_faces.GlobalFaceDataModule`.

    Raises:
        ConfigError: If there is nothing to train or to judge by.
        DatasetNotFoundError: If a folder or list is not there.
    """

    official: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    crops: ClassVar[tuple[str, ...]] = ("none",)

    def __init__(
        self,
        root: str | None = None,
        pairs: dict[str, str] | None = None,
        galleries: dict[str, str] | None = None,
        pictures_per_person: int | None = None,
        **kwargs: Any,
    ) -> None:
        if root is None and not pairs and not galleries:
            raise ConfigError("give root (a folder of people), pairs (lists by name), galleries, or several of these")
        if twice := sorted({*(pairs or {})} & {*(galleries or {})}):
            raise ConfigError(
                f"'{twice[0]}' is the name of a list of pairs and of a gallery; name one of them otherwise"
            )
        self.pair_paths, self.gallery_paths = dict(pairs or {}), dict(galleries or {})
        self.pictures_per_person = checked_pictures(pictures_per_person)
        self._people = None if root is None else identity_faces(root)
        self.labels = FaceSpec() if self._people is None else self._people.spec
        super().__init__(root or "", **kwargs)

    def default_transform(self) -> DenseTransformConfig:
        """Return a recipe for aligned crops of 112 px, as InsightFace's files hold them: mirrored alone."""
        return global_recipe(size=112, shift=0.0, rotation=0.0, zoom=0.0, gray=0.0)

    def open_split(self, split: str) -> FaceDataset | None:
        """Open the training people; pairs are no single split, see :meth:`pair_sets`.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.
        """
        return self._people if split == "train" else None

    def setup(self, stage: str) -> None:
        """Open what a stage needs.

        Args:
            stage: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.
        """
        super().setup(stage)
        _ = self.pair_sets, self.galleries

    @functools.cached_property
    def pair_sets(self) -> dict[str, FacePairs]:
        """The lists of pairs by name, opened."""
        return {name: open_pairs(Path(path)) for name, path in self.pair_paths.items()}

    def pair_rows(self, name: str) -> tuple[PairList, dict[str, int]]:
        """Return the pairs of a list, and the row of every key in its batches.

        Args:
            name: Name of the list.
        """
        return self.pair_sets[name].pairs, self.pair_sets[name].rows

    @functools.cached_property
    def galleries(self) -> dict[str, LabelledFaces]:
        """The folders of people to find, by name, opened."""
        return {name: identity_faces(path) for name, path in self.gallery_paths.items()}

    def trials(self, split: str) -> dict[str, Trial]:
        """Return all lists and galleries: validation and test go through the same ones.

        Args:
            split: ``"val"`` or ``"test"``.
        """
        del split
        pairs = {name: Trial(faces, faces.pairs) for name, faces in self.pair_sets.items()}
        people = {name: Trial(faces, None, identities_of(faces)) for name, faces in self.galleries.items()}
        return pairs | people


def identities_of(faces: LabelledFaces) -> npt.NDArray[np.int64]:
    """Return who each picture of a folder of people shows.

    Args:
        faces: As :func:`~farl_lightning.datasets.pairs.identity_faces` opens them.
    """
    return np.asarray(faces.table.labels["identity"], np.int64)
