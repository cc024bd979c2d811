"""Results on disk: one small file per cell, written at once when it is measured, so that nothing is measured twice."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

State = Literal["done", "failed"]


@dataclasses.dataclass(frozen=True)
class Record:
    """What became of a cell, or of the pretraining of an encoder.

    Attributes:
        key: Its name.
        settings: Digest of all that the result depends on.
        state: ``"done"`` or ``"failed"``.
        value: The metric; None without a result, and for pretraining.
        metrics: All metrics, by key.
        seconds: How long it took.
        reason: Why it failed; empty otherwise.
        details: Whatever else is worth keeping, as plain data.
    """

    key: str
    settings: str
    state: State
    value: float | None = None
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Store:
    """The folder of a benchmark.

    ``cells/KEY.json`` are results, ``cells/KEY`` what a cell leaves behind (its config, its log), ``encoders/NAME`` the
    same of a pretraining, ``features`` what probes share.

    Args:
        folder: Made when something is written.

    Attributes:
        unreadable: Files of results that could not be read, and count as missing.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        self.unreadable: list[Path] = []

    def place(self, kind: Literal["cells", "encoders"], key: str) -> Path:
        """Return the folder that a cell, or a pretraining, may fill; it is made.

        Args:
            kind: What it is.
            key: Its name.
        """
        folder = self.folder / kind / key
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def find(self, kind: Literal["cells", "encoders"], key: str, settings: str) -> Record | None:
        """Return what is known of a cell or pretraining.

        Args:
            kind: What it is.
            key: Its name.
            settings: Digest of its settings; a result of others does not count.
        """
        path = self._path(kind, key)
        if not path.is_file():
            return None
        try:
            found = Record(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, OSError):
            self.unreadable.append(path)
            return None
        return found if found.settings == settings else None

    def save(self, kind: Literal["cells", "encoders"], record: Record) -> None:
        """Write a result; a reader never meets half a file.

        Args:
            kind: What it is of.
            record: The result.
        """
        path = self._path(kind, record.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".tmp")
        scratch.write_text(json.dumps(dataclasses.asdict(record), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        scratch.replace(path)

    def _path(self, kind: str, key: str) -> Path:
        return self.folder / kind / f"{key}.json"


def digest(settings: Any) -> str:
    """Return a short name of settings: equal settings have equal names.

    Args:
        settings: Plain data, in any order of keys.

    Example:
        >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
        True
    """
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
