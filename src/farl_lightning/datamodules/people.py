"""What datamodules for verification share: batches of people, and one evaluation loader per list or gallery."""

from __future__ import annotations

import dataclasses
import functools
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader

from farl_lightning.datamodules.faces import DenseDataModule
from farl_lightning.datamodules.loader import ResumableLoader
from farl_lightning.datamodules.samplers import ShuffledBatches
from farl_lightning.datamodules.samples import FaceSamples
from farl_lightning.datasets.faces import FaceDataset
from farl_lightning.datasets.pairs import PairList
from farl_lightning.datasets.source import Replica
from farl_lightning.errors import ConfigError
from farl_lightning.functional.random import keyed_generator
from farl_lightning.transforms.collate_faces import collate_faces
from farl_lightning.transforms.dense import DenseTransform
from farl_lightning.types import FaceSpec


class GroupedBatches(ShuffledBatches):
    """Shuffled batches in which pictures of one person come together (https://arxiv.org/abs/1703.07737).

    A pass still has every picture once: each person's pictures are shuffled and cut into groups, and the groups are
    shuffled. The rest of a person makes a smaller group. Under several processes a group may be shared out among them;
    :class:`~farl_lightning.tasks.VerificationTask` looks for triplets over all processes.

    Args:
        dataset: The training samples.
        collate: Makes a batch of a list of samples.
        batch_size: Samples per batch and process.
        seed: Key of the permutations.
        replica: The share of this process.
        pictures: Size of a group.
    """

    def __init__(
        self,
        dataset: FaceSamples,
        collate: Callable[[list[Any]], Any],
        batch_size: int,
        seed: int = 0,
        replica: Replica = Replica(),  # noqa: B008  -- an immutable tuple
        pictures: int = 4,
    ) -> None:
        super().__init__(dataset, collate, batch_size, seed, replica)
        self._pictures = pictures
        # a pass may be longer than the dataset, whose rows are then met again
        self._people = np.resize(number_people(dataset.dataset.photographs), len(dataset))
        self.fingerprint += f"/groups-{pictures}"

    def _permutation(self, number: int) -> torch.Tensor:
        """Return the order of one pass, (n,) int64."""
        order = super()._permutation(number).numpy()
        order = order[np.argsort(self._people[order], kind="stable")]  # by person, shuffled within
        groups = _number_groups(self._people[order], self._pictures)
        places = torch.randperm(int(groups[-1]) + 1, generator=keyed_generator(self._seed, "groups", number)).numpy()
        return torch.from_numpy(order[np.argsort(places[groups], kind="stable")])


def number_people(names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Number people in the order in which they first appear.

    Args:
        names: Who each picture shows.

    Returns:
        (N,) from 0.

    Example:
        >>> number_people(["ann", "bob", "ann"]).tolist()
        [0, 1, 0]
    """
    numbers: dict[str, int] = {}
    return np.fromiter((numbers.setdefault(name, len(numbers)) for name in names), np.int64, len(names))


def _number_groups(people: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """Number groups of up to ``size`` rows among rows that are sorted by person."""
    starts = np.flatnonzero(np.diff(people, prepend=-1))
    within = np.arange(len(people)) - np.repeat(starts, np.diff(starts, append=len(people)))
    return np.cumsum(within % size == 0) - 1


@dataclasses.dataclass(frozen=True)
class Trial:
    """Pictures that embeddings are judged by: in pairs (is it the same person?), by rank (who is it?), or in both ways.

    Attributes:
        faces: The pictures, each of them once.
        pairs: Pairs of their rows; None for none.
        identities: (N,) int64 who each row shows, -1 unknown; None where nobody says. A person's first picture is the
            gallery, the others are probes.
    """

    faces: FaceDataset
    pairs: PairList | None = None
    identities: npt.NDArray[np.int64] | None = None

    @functools.cached_property
    def rows(self) -> dict[str, int]:
        """The row of every picture by its key."""
        return {key: row for row, key in enumerate(self.faces.keys)}


class PeopleDataModule(DenseDataModule):
    """Base of datamodules that train on people and are judged by pictures of others.

    Validation and test have one loader per :class:`Trial`; every picture of a trial comes once.

    Attributes:
        pictures_per_person: Training pictures of one person that come together; None shuffles them one by one.
    """

    pictures_per_person: int | None

    @abstractmethod
    def trials(self, split: str) -> dict[str, Trial]:
        """Return what a split judges by, by name, in the order of its loaders.

        Args:
            split: ``"val"`` or ``"test"``.
        """

    def train_dataloader(self) -> ResumableLoader:
        """Return the shuffled, resumable training loader."""
        if (pictures := self.pictures_per_person) is None:
            return super().train_dataloader()
        return self.stream_loader(
            lambda replica: GroupedBatches(self.train_set, collate_faces, self.batch_size, self.seed, replica, pictures)
        )

    def _eval(self, split: str) -> DataLoader[Any] | list[Any]:
        """Return one loader per trial."""
        transform = DenseTransform(self.transform, FaceSpec(), self.seed, train=False)
        trials = self.trials(split).values()
        return [self.eval_loader(self._samples(trial.faces, transform), collate_faces) for trial in trials]


def checked_pictures(pictures: int | None) -> int | None:
    """Refuse groups without a pair.

    Args:
        pictures: Pictures of one person that come together; None for no groups.

    Raises:
        ConfigError: If it is below 2.
    """
    if pictures is not None and pictures < 2:
        raise ConfigError(f"pictures_per_person is {pictures}; give 2 or more, or null to shuffle pictures one by one")
    return pictures
