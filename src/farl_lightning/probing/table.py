"""Features of many faces with all that is known of them, in memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from farl_lightning.errors import ConfigError, DataError, did_you_mean
from farl_lightning.types import ATTRIBUTES

Floats = npt.NDArray[np.float32]
Column = npt.NDArray[np.generic]

SPLIT = "split"
"""Name of the group that says which split of a dataset a face belongs to."""


@dataclasses.dataclass
class FeatureTable:
    """N faces: one or more features each, labels and subgroups by column.

    Attributes:
        keys: Name of each face.
        features: (N, D) float32 by name, such as ``"block11.mean"``.
        labels: Labels by column: (N,) integers are classes (-1 unknown), (N,) floats numbers (nan unknown),
            ``"attributes"`` is (N, A) of 1, 0 and -1 (unknown).
        groups: Subgroups by column, one name per face; empty where nobody knows.
        label_names: Names of the classes of a label column.
        attributes: Names of the attributes.

    Raises:
        DataError: If columns differ in length, or a class has no name.
    """

    keys: list[str]
    features: dict[str, Floats]
    labels: dict[str, Column] = dataclasses.field(default_factory=dict)
    groups: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    label_names: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    attributes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        columns: dict[str, Sequence[object] | Column] = {**self.features, **self.labels, **self.groups}
        for name, column in columns.items():
            if len(column) != len(self.keys):
                raise DataError(f"column '{name}' has {len(column)} rows, but there are {len(self.keys)} keys")
        for name, feature in self.features.items():
            if feature.ndim != 2:
                raise DataError(f"feature '{name}' has shape {feature.shape}; (faces, numbers) was expected")
        for name, names in self.label_names.items():
            top = int(self.labels[name].max(initial=-1)) if names and name in self.labels else -1
            if top >= len(names) > 0:
                raise DataError(f"column '{name}' has class {top}, but {len(names)} names: {', '.join(names)}")
        attributes = self.labels.get(ATTRIBUTES)
        if attributes is not None and attributes.shape[1:] != (len(self.attributes),):
            raise DataError(f"attributes have shape {attributes.shape}, but there are {len(self.attributes)} names")

    def __len__(self) -> int:
        """Return the number of faces."""
        return len(self.keys)

    def write(self, path: str | Path) -> None:
        """Write the table; see :func:`farl_lightning.probing.files.write_features`.

        Args:
            path: Ends in ``.parquet`` or ``.npz``.
        """
        from farl_lightning.probing.files import write_features

        write_features(path, self)

    def take(self, rows: Sequence[int] | npt.NDArray[np.integer]) -> FeatureTable:
        """Return some rows.

        Args:
            rows: Their numbers, in the order of the result.
        """
        index = np.asarray(rows, np.int64)
        return FeatureTable(
            [self.keys[row] for row in index],
            {name: feature[index] for name, feature in self.features.items()},
            {name: column[index] for name, column in self.labels.items()},
            {name: [column[row] for row in index] for name, column in self.groups.items()},
            dict(self.label_names),
            self.attributes,
        )

    def split(self, name: str) -> FeatureTable:
        """Return the faces of a split, by the group ``split``.

        Args:
            name: Such as ``"train"``.

        Raises:
            ConfigError: If the table knows no splits, or not this one.
        """
        column = self.groups.get(SPLIT)
        if column is None:
            raise ConfigError("these features do not say which split a face belongs to; give train and test separately")
        if name not in column:
            raise ConfigError(f"there is no split '{name}'. {did_you_mean(name, column)}")
        return self.take([row for row, split in enumerate(column) if split == name])

    def matrix(self, features: str | Sequence[str] | None = None) -> Floats:
        """Return the features side by side.

        Args:
            features: A name, or several; None takes ``"feature"`` if it is there, else the last one.

        Returns:
            (N, D) float32.

        Raises:
            ConfigError: If there is no such feature, with the nearest match.
        """
        names = [self.default_feature] if features is None else [features] if isinstance(features, str) else features
        for name in names:
            if name not in self.features:
                raise ConfigError(f"there is no feature '{name}'. {did_you_mean(name, self.features)}")
        if not names:
            raise ConfigError(f"no feature is named; these are there: {', '.join(self.features)}")
        found = [self.features[name] for name in names]
        return found[0] if len(found) == 1 else np.concatenate(found, axis=1)

    @property
    def default_feature(self) -> str:
        """The feature that is read when none is named: ``"feature"``, else the last one."""
        if not self.features:
            raise ConfigError("this table holds no features")
        return "feature" if "feature" in self.features else list(self.features)[-1]

    def group(self, column: str) -> list[str]:
        """Return the subgroup of each face by any column: a group, or the classes of a label.

        Args:
            column: Its name.

        Returns:
            (N,) names; empty where nobody knows.

        Raises:
            ConfigError: If there is no such column, or it holds numbers.
        """
        if column in self.groups:
            return self.groups[column]
        if column in self.attributes:
            answers = self.labels[ATTRIBUTES][:, self.attributes.index(column)]
            return [("", f"not {column}", column)[int(answer) + 1] for answer in answers]
        names = self.label_names.get(column)
        if not names:
            allowed = [*self.groups, *(name for name, classes in self.label_names.items() if classes)]
            raise ConfigError(f"there is no column of groups '{column}'. {did_you_mean(column, allowed)}")
        return ["" if value < 0 else names[int(value)] for value in self.labels[column]]

    def has_column(self, column: str) -> bool:
        """Whether a probe can learn this column.

        Args:
            column: Name of a label, of one attribute, or of a group.
        """
        return column in self.labels or column in self.attributes or column in self.groups

    @property
    def columns(self) -> list[str]:
        """All that a probe can learn: labels, single attributes, groups."""
        return [*self.labels, *self.attributes, *(name for name in self.groups if name not in self.labels)]


def concatenate(tables: Sequence[FeatureTable]) -> FeatureTable:
    """Put tables with the same columns behind each other.

    Args:
        tables: At least one.

    Raises:
        DataError: If their columns or classes differ.
    """
    first = tables[0]
    for table in tables[1:]:
        if _schema(table) != _schema(first):
            raise DataError(f"tables differ in their columns: {_schema(first)} and {_schema(table)}")
    return FeatureTable(
        [key for table in tables for key in table.keys],
        {name: np.concatenate([table.features[name] for table in tables]) for name in first.features},
        {name: np.concatenate([table.labels[name] for table in tables]) for name in first.labels},
        {name: [value for table in tables for value in table.groups[name]] for name in first.groups},
        dict(first.label_names),
        first.attributes,
    )


def _schema(table: FeatureTable) -> tuple[object, ...]:
    """Return what has to agree between parts of a table."""
    sizes = {name: feature.shape[1] for name, feature in table.features.items()}
    return sizes, sorted(table.labels), sorted(table.groups), table.label_names, table.attributes


def words_to_labels(columns: Mapping[str, Sequence[str | None]]) -> FeatureTable:
    """Turn columns of words into labels: numbers where every word is one, else classes in alphabetical order.

    Args:
        columns: Words by column; None and "" mean unknown.

    Returns:
        A table without features, whose keys are row numbers.
    """
    size = len(next(iter(columns.values()), ()))
    table = FeatureTable([str(row) for row in range(size)], {})
    for name, words in columns.items():
        numbers = [_number(word) for word in words]
        if all(number is not None for number in numbers):
            table.labels[name], table.label_names[name] = np.array(numbers, np.float32), ()
        else:
            names = tuple(sorted({word for word in words if word}))
            places = {word: place for place, word in enumerate(names)}
            table.labels[name] = np.array([places[word] if word else -1 for word in words], np.int64)
            table.label_names[name] = names
    return table


def _number(word: str | None) -> float | None:
    """Return the number that a word writes; nan for unknown, None for a word that is no number."""
    if not word:
        return math.nan
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
