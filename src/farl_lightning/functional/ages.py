"""How years are read off the outputs of a network, whatever method it was trained by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.functional.precision import at_least_float32

RANGE = (0, 100)
"""Youngest and oldest age that methods tell apart where nobody says otherwise."""


class AgeDecoder(Protocol):
    """Whatever reads ages off outputs; every :class:`~farl_lightning.losses.AgeMethod` does."""

    @property
    def num_outputs(self) -> int:
        """Number of outputs that are read."""

    def decode(self, outputs: Tensor) -> Tensor:
        """Return (B,) years of (B, num_outputs) outputs.

        Args:
            outputs: Of the network.
        """


def expected_age(outputs: Tensor, min_age: int) -> Tensor:
    """Return the mean of the distribution that a softmax makes of one output per year.

    Args:
        outputs: (B, years), the first for ``min_age``.
        min_age: The youngest age.

    Returns:
        (B,) years, float32 at least.
    """
    wide = at_least_float32(outputs)
    years = torch.arange(min_age, min_age + outputs.shape[1], dtype=wide.dtype, device=wide.device)
    return wide.softmax(1) @ years


def counted_age(outputs: Tensor, min_age: int, soft: bool = False) -> Tensor:
    """Return the youngest age and the number of questions "older than k?" answered yes.

    Args:
        outputs: (B, questions) logits.
        min_age: The youngest age.
        soft: Add up the probabilities instead of counting those above a half.

    Returns:
        (B,) years, float32 at least.
    """
    yes = at_least_float32(outputs).sigmoid()
    return min_age + (yes if soft else (yes > 0.5).to(yes)).sum(1)


def scaled_age(outputs: Tensor, min_age: float, max_age: float, scale: float | None = None) -> Tensor:
    """Return the middle of a range and a multiple of the single output.

    Args:
        outputs: (B, 1).
        min_age: Lower end of the range.
        max_age: Upper end.
        scale: Years per unit of the output; None means a quarter of the range.

    Returns:
        (B,) years, float32 at least.
    """
    unit = (max_age - min_age) / 4 if scale is None else scale
    return at_least_float32(outputs)[:, 0] * unit + (min_age + max_age) / 2


class _Reading(NamedTuple):
    """How many outputs there are, and how they are read."""

    num_outputs: int
    decode: Callable[[Tensor], Tensor]


def _yearly(min_age: int = RANGE[0], max_age: int = RANGE[1], **_: Any) -> _Reading:
    return _Reading(max_age - min_age + 1, lambda outputs: expected_age(outputs, min_age))


def _ordinal(min_age: int = RANGE[0], max_age: int = RANGE[1], soft: bool = False, **_: Any) -> _Reading:
    return _Reading(max_age - min_age, lambda outputs: counted_age(outputs, min_age, soft))


def _linear(min_age: int = RANGE[0], max_age: int = RANGE[1], scale: float | None = None) -> _Reading:
    return _Reading(1, lambda outputs: scaled_age(outputs, min_age, max_age, scale))


_READINGS: dict[str, Callable[..., _Reading]] = {
    "AgeExpectation": _yearly,
    "AgeMeanVariance": _yearly,
    "AgeDistribution": _yearly,
    "AgeOrdinal": _ordinal,
    "AgeRegression": _linear,
}


def age_decoder(plain: Mapping[str, Any] | None) -> AgeDecoder:
    """Return how ages are read, after the settings inside a checkpoint; nothing that they name is imported.

    Args:
        plain: ``{"class_path", "init_args"}`` of one of this package's methods; None means ``AgeExpectation``.

    Raises:
        ConfigError: If it names another class, or settings that mean nothing.
    """
    path = str((plain or {}).get("class_path", "AgeExpectation"))
    package, _, name = path.rpartition(".")
    if name not in _READINGS or package.split(".")[0] not in ("", "farl_lightning"):
        raise ConfigError(
            f"age method '{path}' is not one of {', '.join(_READINGS)}, and a file is not allowed to name code that is "
            f"run; pass the method itself. {did_you_mean(name, _READINGS)}".strip()
        )
    arguments = dict((plain or {}).get("init_args") or {})
    try:
        return _READINGS[name](**arguments)
    except TypeError as error:
        raise ConfigError(f"{name} cannot be read with {arguments}: {error}") from error
