"""Drawn people, several pictures of each, and pairs of their pictures: who is who is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from farl_lightning.datasets.drawn import DrawnFaces
from farl_lightning.datasets.drawn_global import GENDERS, age_group
from farl_lightning.datasets.pairs import FOLDS, PairList, tenths
from farl_lightning.datasets.synthetic import SyntheticFace, SyntheticFaces
from farl_lightning.datasets.synthetic.draws import Draws
from farl_lightning.errors import ConfigError
from farl_lightning.types import FaceRecord, FaceSpec

Pair = tuple[int, int]
"""Two rows, the lower one first."""


class DrawnIdentities(DrawnFaces):
    """Faces of :class:`~farl_lightning.datasets.synthetic.SyntheticFaces` with the label ``identity``.

    Consecutive rows show the same person, ``faces.pictures_per_identity`` each. Expression, age, pose, light,
    background, hats and glasses differ from picture to picture. Groups: ``gender`` and ``age_group``.

    Args:
        faces: The faces, from a person's first picture on.
        cache: Draw every picture once, now, into an array that forked workers share.

    Attributes:
        identities: (N,) int64, who each row shows, counted from 0.
    """

    def __init__(self, faces: SyntheticFaces, cache: bool = False) -> None:
        super().__init__(faces, 0, 0, cache=False)
        self.labels, self.groups = ("identity",), ("gender", "age_group")
        self.identities = np.arange(len(faces), dtype=np.int64) // faces.pictures_per_identity
        self._first = faces.start // faces.pictures_per_identity
        self.spec = identity_labels(int(self.identities[-1]) + 1, self._first)
        if cache:
            self._records = self._draw_all()

    @property
    def photographs(self) -> list[str]:
        """Who each face shows: parts that are held out share nobody with the rest."""
        return [self.spec.label_names["identity"][person] for person in self.identities]

    def _record(self, face: SyntheticFace) -> FaceRecord:
        """Return a face with its labels."""
        return dataclasses.replace(
            super()._record(face),
            labels={"identity": face.identity - self._first},
            groups={"gender": GENDERS[int(face.person.male)], "age_group": age_group(face.age)},
        )


def identity_labels(people: int, first: int = 0) -> FaceSpec:
    """Return the labels of drawn people, without crop and size.

    Args:
        people: How many there are.
        first: Number of the first one.
    """
    return FaceSpec(label_names={"identity": tuple(f"person-{number}" for number in range(first, first + people))})


def draw_pairs(people: int, pictures: int, count: int, seed: int = 0) -> PairList:
    """Draw pairs of pictures as LFW does: ten folds that share nobody, in each as many pairs of one person as of two.

    Args:
        people: Number of people; each has consecutive rows.
        pictures: Pictures of each person.
        count: Number of pairs, a multiple of 20.
        seed: Which pairs are drawn; no pair comes twice.

    Returns:
        The pairs, fold by fold, those of one person first.

    Raises:
        ConfigError: If there are not so many different pairs, or the count cannot be shared out evenly.
    """
    if count < 2 * FOLDS or count % (2 * FOLDS):
        raise ConfigError(f"the number of pairs is {count}; give a multiple of {2 * FOLDS}: ten folds, half the same")
    share, groups = count // (2 * FOLDS), tenths(people)
    rows: list[Pair] = []
    for fold in range(FOLDS):
        members = np.flatnonzero(groups == fold)
        _check_enough(len(members), pictures, share, people, count)
        draws = Draws(seed, "pairs", fold)
        rows += _take(_same(members, pictures, draws), share) + _take(_different(members, pictures, draws), share)
    first, second = np.array(rows, np.int64).T
    same = np.tile(np.repeat([True, False], share), FOLDS)
    return PairList(first, second, same, np.repeat(np.arange(FOLDS, dtype=np.int64), 2 * share))


def _check_enough(people: int, pictures: int, share: int, everybody: int, count: int) -> None:
    """Refuse a fold that is too small for its share of pairs."""
    same, different = people * pictures * (pictures - 1) // 2, people * (people - 1) // 2 * pictures**2
    if min(same, different) < share:
        raise ConfigError(
            f"{everybody} people with {pictures} pictures each do not make {count} different pairs in ten folds that "
            f"share nobody (a fold has {same} pairs of one person and {different} of two, of each {share} are needed); "
            "give more people, more pictures of each, or fewer pairs"
        )


def _same(members: npt.NDArray[np.int64], pictures: int, draws: Draws) -> Iterator[Pair]:
    """Yield pairs of pictures of one person."""
    while True:
        person = int(draws.choice(members.tolist()))
        one, other = draws.choice(range(pictures)), draws.choice(range(pictures))
        if one != other:
            yield person * pictures + min(one, other), person * pictures + max(one, other)


def _different(members: npt.NDArray[np.int64], pictures: int, draws: Draws) -> Iterator[Pair]:
    """Yield pairs of pictures of two people."""
    while True:
        one, other = sorted(int(draws.choice(members.tolist())) for _ in range(2))
        if one != other:
            yield one * pictures + draws.choice(range(pictures)), other * pictures + draws.choice(range(pictures))


def _take(pairs: Iterator[Pair], count: int) -> list[Pair]:
    """Return the first pairs that differ from each other."""
    found: dict[Pair, None] = {}
    while len(found) < count:
        found[next(pairs)] = None
    return list(found)
