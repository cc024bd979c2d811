"""Feature tables on disk: Parquet, or NumPy's own format where pyarrow is not installed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from farl_lightning.errors import ConfigError, DataError, DatasetNotFoundError, require
from farl_lightning.probing.table import FeatureTable, concatenate
from farl_lightning.types import ATTRIBUTES

FORMAT = 1
"""Version of the layout."""

ENDINGS = (".parquet", ".npz")

_MARK = b"farl_lightning.features"
_KEY = "key"


def write_features(path: str | Path, parts: FeatureTable | Iterable[FeatureTable]) -> int:
    """Write a table, whole or part by part; a reader never meets half a file.

    A Parquet file has the columns ``key``, one list of float32 per feature, one column per label (integers are
    classes), ``attribute:<name>`` and ``group:<name>``; the names of classes stand in its metadata. An ``.npz`` holds
    the same, no pickle inside, and is made in memory.

    Args:
        path: Ends in ``.parquet`` (needs pyarrow) or ``.npz``.
        parts: The table, or its parts in order; of these one at a time is in memory.

    Returns:
        The number of faces.

    Raises:
        ConfigError: If the ending is another one.
        DataError: If there is no part, or the parts differ.
        MissingDependencyError: For Parquet without pyarrow.
    """
    path = checked_ending(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = iter([parts] if isinstance(parts, FeatureTable) else parts)
    first = next(listed, None)
    if first is None:
        raise DataError(f"'{path}' was not written: there is no face at all")
    scratch = path.with_name(f"{path.name}.tmp")
    try:
        write = _write_parquet if path.suffix == ".parquet" else _write_npz
        count = write(scratch, first, listed)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return count


def read_features(path: str | Path) -> FeatureTable:
    """Read a table of :func:`write_features`, or the ``features.npz`` that ``predict`` writes.

    Args:
        path: The file.

    Raises:
        ConfigError: If the ending is unknown.
        DatasetNotFoundError: If it is not there.
        DataError: If it is no such file.
        MissingDependencyError: For Parquet without pyarrow.
    """
    path = checked_ending(path)
    if not path.is_file():
        raise DatasetNotFoundError(f"features '{path.absolute()}' are not there; 'farl-lightning embed' makes them")
    try:
        return _read_parquet(path) if path.suffix == ".parquet" else _read_npz(path)
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"features '{path}' cannot be read: {error}") from error


def checked_ending(path: str | Path) -> Path:
    """Return a path whose ending says how it is written.

    Args:
        path: The file.

    Raises:
        ConfigError: If it does not.
    """
    path = Path(path).expanduser()
    if path.suffix not in ENDINGS:
        raise ConfigError(f"'{path}' ends in '{path.suffix}'; features are kept in {' or '.join(ENDINGS)}")
    return path


def _schema(table: FeatureTable) -> dict[str, Any]:
    """Return what columns alone do not say."""
    return {
        "format": FORMAT,
        "features": list(table.features),
        "labels": [name for name in table.labels if name != ATTRIBUTES],
        "groups": list(table.groups),
        "label_names": {name: list(names) for name, names in table.label_names.items()},
        "attributes": list(table.attributes),
    }


def _flat(table: FeatureTable) -> dict[str, Any]:
    """Return every column by its name in the file; 2-D ones are features."""
    columns: dict[str, Any] = {_KEY: table.keys}
    for name, column in table.labels.items():
        if name == ATTRIBUTES:
            columns |= {f"attribute:{own}": column[:, at] for at, own in enumerate(table.attributes)}
        else:
            columns[f"label:{name}"] = column
    columns |= {f"group:{name}": column for name, column in table.groups.items()}
    return columns | {f"feature:{name}": feature for name, feature in table.features.items()}


def _unflatten(columns: dict[str, Any], schema: dict[str, Any]) -> FeatureTable:
    """Turn columns back into a table."""
    if schema.get("format") != FORMAT:
        raise DataError(f"its layout has version {schema.get('format')}; this release reads version {FORMAT}")
    labels = {name: np.asarray(columns[f"label:{name}"]) for name in schema["labels"]}
    if schema["attributes"]:
        labels[ATTRIBUTES] = np.stack([np.asarray(columns[f"attribute:{name}"]) for name in schema["attributes"]], 1)
    return FeatureTable(
        [str(key) for key in columns[_KEY]],
        {name: np.asarray(columns[f"feature:{name}"], np.float32) for name in schema["features"]},
        labels,
        {name: [str(value) for value in columns[f"group:{name}"]] for name in schema["groups"]},
        {name: tuple(names) for name, names in schema["label_names"].items()},
        tuple(schema["attributes"]),
    )


def _write_parquet(path: Path, first: FeatureTable, rest: Iterable[FeatureTable]) -> int:
    """Write one row group per part."""
    pyarrow, parquet = require("pyarrow", "parquet"), require("pyarrow.parquet", "parquet")
    schema, count = _schema(first), 0
    metadata = {_MARK: json.dumps(schema).encode()}
    table = _arrow(pyarrow, first).replace_schema_metadata(metadata)
    with parquet.ParquetWriter(path, table.schema, compression="zstd", use_dictionary=False) as writer:
        writer.write_table(table)
        count += len(first)
        for part in rest:
            if _schema(part) != schema:
                raise DataError(f"parts of one table differ in their columns: {schema} and {_schema(part)}")
            writer.write_table(_arrow(pyarrow, part).replace_schema_metadata(metadata))
            count += len(part)
    return count


def _arrow(pyarrow: Any, table: FeatureTable) -> Any:
    """Return a table as Arrow has it; features without a copy."""
    columns = {}
    for name, column in _flat(table).items():
        if isinstance(column, np.ndarray) and column.ndim == 2:
            values = pyarrow.array(np.ascontiguousarray(column, np.float32).reshape(-1))
            columns[name] = pyarrow.FixedSizeListArray.from_arrays(values, column.shape[1])
        else:
            columns[name] = pyarrow.array(column)
    return pyarrow.table(columns)


def _read_parquet(path: Path) -> FeatureTable:
    """Read a Parquet file of ours."""
    parquet = require("pyarrow.parquet", "parquet")
    table = parquet.read_table(path)
    metadata = table.schema.metadata or {}
    if _MARK not in metadata:
        raise DataError(f"'{path}' is Parquet, but holds no features of 'farl-lightning embed'")
    columns = {name: _numpy(table.column(name).combine_chunks()) for name in table.column_names}
    return _unflatten(columns, json.loads(metadata[_MARK]))


def _numpy(column: Any) -> Any:
    """Return an Arrow column as an array, (N, D) for lists."""
    if hasattr(column, "flatten") and hasattr(column.type, "list_size"):
        return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)
    return column.to_numpy(zero_copy_only=False)


def _write_npz(path: Path, first: FeatureTable, rest: Iterable[FeatureTable]) -> int:
    """Write one archive."""
    table = concatenate([first, *rest])
    columns = {name: np.asarray(column) for name, column in _flat(table).items()}
    with path.open("wb") as file:
        np.savez(file, schema=np.array(json.dumps(_schema(table))), **columns)  # type: ignore[arg-type]
    return len(table)


def _read_npz(path: Path) -> FeatureTable:
    """Read an archive of ours, or one of ``predict``."""
    with np.load(path, allow_pickle=False) as archive:
        columns = dict(archive)
    if "schema" in columns:
        return _unflatten(columns, json.loads(str(columns.pop("schema"))))
    if not {_KEY, "image_features"} <= columns.keys():
        raise DataError(f"'{path}' holds {', '.join(columns) or 'nothing'}; 'key' and features were expected")
    return FeatureTable([str(key) for key in columns[_KEY]], {"feature": columns["image_features"].astype(np.float32)})
