"""The errors that users meet: each says what happened, the value given, what is allowed and what to do."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from farl_lightning.types import Drop


class FarlError(Exception):
    """Base of every error raised on purpose by this package."""


class ConfigError(FarlError, ValueError):
    """A setting, or a combination of settings, that cannot work."""


class DataError(FarlError, RuntimeError):
    """Data that cannot be read, or too large a share of bad samples."""


class DatasetNotFoundError(DataError, FileNotFoundError):
    """A data folder or file that is not where it was expected."""


class TrainingError(FarlError, RuntimeError):
    """A run that cannot go on: its numbers are not finite any more, or a process stopped answering."""


class CheckpointError(FarlError, RuntimeError):
    """A weights file or checkpoint that does not fit."""


class MissingDependencyError(FarlError, ImportError):
    """An optional package that is not installed."""


class BadSample(Exception):
    """A sample that cannot be used. Never ends a run: whoever reads samples counts it and goes on.

    Args:
        reason: A constant of :mod:`farl_lightning.datasets.bad_sample` or :mod:`farl_lightning.transforms.decode`.
        detail: What exactly was wrong, in a few words.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[BadSample], tuple[str, str]]:
        """Pickle by both arguments, so that it crosses process borders."""
        return type(self), (self.reason, self.detail)

    def to_drop(self, key: str) -> Drop:
        """Return the entry of the drop report.

        Args:
            key: Name of the sample or shard.
        """
        from farl_lightning.types import Drop

        return Drop(key=key, reason=self.reason, detail=self.detail[:200])


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Name the nearest match of a mistyped word, and the allowed words when they are few.

    Args:
        name: The word that was given.
        options: The words that are allowed.

    Returns:
        A sentence (or two) that ends an error message; empty when nothing is allowed at all.

    Example:
        >>> did_you_mean("Parsng", ["ParsingTask", "Parsing"])
        "Did you mean 'Parsing'? Allowed: Parsing, ParsingTask."
    """
    allowed = sorted(set(options))
    lowered = {option.lower(): option for option in reversed(allowed)}
    near = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.6)
    hint = f"Did you mean '{lowered[near[0]]}'?" if near else ""
    listing = f"Allowed: {', '.join(allowed)}." if 0 < len(allowed) <= 12 else ""
    return " ".join(part for part in (hint, listing) if part)


def require(module: str, extra: str) -> ModuleType:
    """Import an optional package, or say in one line what to install.

    Args:
        module: Name of the module, such as ``"peft"``.
        extra: The extra of this package that brings it.

    Returns:
        The imported module.

    Raises:
        MissingDependencyError: If the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"'{module}' is not installed; run: pip install 'farl-lightning[{extra}]'"
        ) from error
