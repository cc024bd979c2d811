"""What a probe learns: one column of a table, as numbers, with the way it is judged."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from farl_lightning.errors import ConfigError, DataError, did_you_mean
from farl_lightning.functional.random import keyed_generator
from farl_lightning.probing.table import FeatureTable
from farl_lightning.types import ATTRIBUTES

Kind = Literal["class", "number", "attributes"]

METRICS: dict[Kind, str] = {"class": "accuracy", "number": "mae", "attributes": "accuracy_mean"}
"""What a column is judged by: percent, percent, and the column's own unit."""


@dataclasses.dataclass(frozen=True)
class Target:
    """The labels of a column.

    Attributes:
        kind: ``"class"``, ``"number"`` or ``"attributes"``.
        values: (n,) int64 classes with -1 unknown, (n,) float32 with nan unknown, or (n, A) int64 of 1, 0, -1.
        names: Names of the classes or attributes; none for numbers.
    """

    kind: Kind
    values: Tensor
    names: tuple[str, ...]

    @property
    def known(self) -> Tensor:
        """(n,) bool: whether anything is known of a face."""
        if self.kind == "number":
            return self.values.isfinite()
        return (self.values >= 0).any(1) if self.kind == "attributes" else self.values >= 0

    @property
    def outputs(self) -> int:
        """Number of outputs of a linear probe."""
        return 1 if self.kind == "number" else len(self.names)

    def take(self, rows: Tensor) -> Target:
        """Return some rows.

        Args:
            rows: Their numbers, or a mask.
        """
        return dataclasses.replace(self, values=self.values[rows])

    def to(self, device: torch.device) -> Target:
        """Return the labels on a device.

        Args:
            device: The device.
        """
        return dataclasses.replace(self, values=self.values.to(device))


def read_target(table: FeatureTable, column: str) -> Target:
    """Return the labels of a column.

    Args:
        table: The faces.
        column: A label, ``"attributes"`` (all of them), the name of one attribute, or a group (whose names become
            classes).

    Raises:
        ConfigError: If there is no such column, with the nearest match.
    """
    if column in table.labels:
        values = torch.from_numpy(table.labels[column])
        if column == ATTRIBUTES:
            return Target("attributes", values.long(), table.attributes)
        if values.is_floating_point():
            return Target("number", values.float(), ())
        names = table.label_names.get(column) or _numbered(values)
        return Target("class", values.long(), names)
    if column in table.attributes:
        answers = torch.from_numpy(table.labels[ATTRIBUTES])[:, table.attributes.index(column)]
        return Target("class", answers.long(), (f"not {column}", column))
    if column in table.groups:
        names = tuple(sorted(set(table.groups[column]) - {""}))
        places = {name: place for place, name in enumerate(names)} | {"": -1}
        return Target("class", torch.tensor([places[name] for name in table.groups[column]]).long(), names)
    hint = did_you_mean(column, table.columns) if table.columns else "They hold no labels: embed a table or a config."
    raise ConfigError(f"these features have no column '{column}' to learn. {hint}")


def _numbered(classes: Tensor) -> tuple[str, ...]:
    """Name classes by their numbers."""
    return tuple(str(number) for number in range(int(classes.max()) + 1 if len(classes) else 0))


def read_targets(train: FeatureTable, test: FeatureTable, column: str) -> tuple[Target, Target]:
    """Return the labels of two tables with common classes.

    Args:
        train: The faces that are learned from.
        test: The faces that are judged.
        column: See :func:`read_target`.

    Raises:
        ConfigError: If a table has no such column, or it means different things in both.
    """
    one, other = read_target(train, column), read_target(test, column)
    if one.kind != other.kind:
        raise ConfigError(f"column '{column}' is a {one.kind} in training, but a {other.kind} in the test")
    if one.names == other.names:
        return one, other
    if one.kind != "class":
        raise ConfigError(f"column '{column}' has other attributes in training than in the test; give equal ones")
    names = tuple(dict.fromkeys((*one.names, *other.names)))
    return _renamed(one, names), _renamed(other, names)


def _renamed(target: Target, names: tuple[str, ...]) -> Target:
    """Number classes by another list of names."""
    places = torch.tensor([*(names.index(name) for name in target.names), -1])
    return Target(target.kind, places[target.values], names)


def draw(target: Target, budget: int | float | None, seed: int) -> Tensor:
    """Choose the labelled faces that a probe may learn from.

    Args:
        target: The labels.
        budget: An int takes that many faces of each class (all that a class has where it has fewer; for numbers and
            attributes that many faces altogether), a float from 0 to 1 that share of all, None everything.
        seed: Which ones.

    Returns:
        Rising row numbers; a larger budget of the same seed holds a smaller one.

    Raises:
        ConfigError: If the budget is not positive, or a share above 1.
        DataError: If no face has a label.
    """
    rows = target.known.nonzero().flatten()
    if not len(rows):
        raise DataError("no training face has a label in this column")
    if budget is None:
        return rows
    _check_budget(budget)
    rows = rows[torch.randperm(len(rows), generator=keyed_generator(seed, "probe"))]
    if isinstance(budget, float):
        return rows[: max(1, int(budget * len(rows)))].sort().values
    if target.kind != "class":
        return rows[:budget].sort().values
    classes = target.values[rows]
    return torch.cat([rows[classes == value][:budget] for value in sorted(set(classes.tolist()))]).sort().values


def _check_budget(budget: int | float) -> None:
    """Refuse budgets that mean nothing."""
    if isinstance(budget, bool) or budget <= 0 or (isinstance(budget, float) and budget > 1):
        raise ConfigError(
            f"budget {budget!r} is neither a number of faces per class (an int from 1) nor a share of all faces "
            "(a float above 0 and up to 1)"
        )
