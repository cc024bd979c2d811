"""Subgroups of pairs of faces, from those of their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from farl_lightning.callbacks.gather import gather_json
from farl_lightning.metrics.subgroups import ACROSS, cross_groups

LIST = "list"
"""Column that says which list a pair is of."""


class JudgedPairs(Protocol):
    """One list of pairs, as :class:`~farl_lightning.tasks.trials.JudgedPairs` has it."""

    @property
    def name(self) -> str:
        """The list's name."""

    @property
    def loader(self) -> int:
        """Number of the loader of its pictures."""

    @property
    def keys(self) -> Sequence[tuple[str, str]]:
        """Both pictures of each of P pairs."""

    @property
    def outcomes(self) -> Tensor:
        """(P,) 100 for a pair that is judged rightly, 0 for another, nan for one that does not count."""


class GroupedPairs(NamedTuple):
    """What became of the pairs of all lists.

    Attributes:
        outcomes: (P,) in percent, nan where a pair does not count.
        groups: P names of subgroups by column.
    """

    outcomes: Tensor
    groups: dict[str, list[str]]


class PictureGroups:
    """The subgroups of pictures as they pass by, on this process.

    A pair belongs to a group when both its pictures do; pairs of two groups are kept apart, since a model tells people
    of two groups apart more easily than people of one.

    Args:
        columns: What to split by; None takes every column that the pictures have.
    """

    def __init__(self, columns: Sequence[str] | None) -> None:
        self.columns = columns
        self._known: dict[tuple[int, str], dict[str, str]] = {}

    def add(self, loader: int, keys: Sequence[str], groups: Mapping[str, Sequence[str]]) -> None:
        """Add a batch.

        Args:
            loader: Number of its loader.
            keys: Names of the B pictures.
            groups: Names of their subgroups by column, B each.
        """
        names = {name: cross_groups(groups, name) for name in self.columns or list(groups) if name != LIST}
        for place, key in enumerate(keys):
            self._known[loader, key] = {column: own[place] for column, own in names.items()}

    def of_pairs(self, lists: Sequence[JudgedPairs], device: torch.device) -> GroupedPairs:
        """Return the pairs of all lists with their subgroups, the same on every process; every process has to call it.

        Args:
            lists: The lists of pairs, the same on every process.
            device: A device that the process group can reach.
        """
        own = [[loader, key, groups] for (loader, key), groups in self._known.items()]
        known = {(loader, key): groups for loader, key, groups in gather_json(own, device)}
        columns = list(self.columns or dict.fromkeys(name for groups in known.values() for name in groups))
        if self.columns is None and len(lists) > 1:
            columns.append(LIST)
        found: dict[str, list[str]] = {name: [] for name in columns}
        for judged in lists:
            for first, second in judged.keys:
                sides = known.get((judged.loader, first), {}), known.get((judged.loader, second), {})
                for name in columns:
                    found[name].append(judged.name if name == LIST else pair_group(*(s.get(name, "") for s in sides)))
        outcomes = [judged.outcomes for judged in lists]
        return GroupedPairs(torch.cat(outcomes) if outcomes else torch.zeros(0), found)


def pair_group(first: str, second: str) -> str:
    """Return the group of a pair.

    Args:
        first: Group of one picture; "" where nobody knows.
        second: Group of the other.

    Example:
        >>> pair_group("old", "old"), pair_group("old", "young"), pair_group("old", "")
        ('old', 'different groups', '')
    """
    if not first or not second:
        return ""
    return first if first == second else ACROSS
