"""Reference numbers, run through the public modules. ``python -m tests.parity DIR`` checks a folder of fixtures.

A check is a function in a module ``fixture_*.py`` of this package::

    @fixture("06_heatmaps")
    def check(data: Mapping[str, np.ndarray]) -> list[Deviation]:
        return [compare("heatmap", heatmap(...), data["out/heatmap"])]

It reads every size from the fixture. A key that is missing, or a shape that does not fit, is a failure. A JSON file
beside the arrays is asked for by name with ``@fixture("10_clip_joint.npz")`` or ``@fixture("10_tokenizer.json")``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

RTOL, ATOL = 1e-4, 2e-5
GRAD_RTOL, GRAD_ATOL = 1e-3, 1e-5

Check = Callable[[Mapping[str, Any]], "list[Deviation]"]
_CHECKS: dict[str, Check] = {}


class Deviation(NamedTuple):
    """How far one result is from its reference."""

    name: str
    deviation: float
    """Largest deviation, in units that ``tolerance`` has."""
    tolerance: float


def fixture(name: str) -> Callable[[Check], Check]:
    """Register the check of one fixture file.

    Args:
        name: The file's name; ``.npz`` when it has no suffix.
    """
    file = name if "." in name else f"{name}.npz"

    def register(check: Check) -> Check:
        _CHECKS[file] = check
        return check

    return register


def checks() -> dict[str, Check]:
    """Import every ``fixture_*`` module of this package and return the checks by file name."""
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith("fixture_"):
            importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(_CHECKS.items()))


def compare(name: str, ours: Any, reference: Any, *, rtol: float = RTOL, atol: float = ATOL) -> Deviation:
    """Measure ``|ours - reference|`` in units of ``atol + rtol * |reference|``, so that 1 is the limit.

    Args:
        name: What is compared.
        ours: Tensor or array.
        reference: Array of the fixture.
        rtol: Relative tolerance.
        atol: Absolute tolerance.

    Raises:
        ValueError: If the shapes differ.
    """
    a = np.asarray(ours.detach().cpu() if isinstance(ours, torch.Tensor) else ours, dtype=np.float64)
    b = np.asarray(reference, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"{name}: shape {a.shape}, reference {b.shape}")
    if not a.size:
        return Deviation(name, 0.0, 1.0)
    units = np.abs(a - b) / (atol + rtol * np.abs(b))
    same_nan = np.isnan(a) & np.isnan(b)
    worst = float(np.max(np.where(same_nan, 0.0, units)))
    return Deviation(name, float("inf") if np.isnan(worst) else worst, 1.0)


def compare_grad(name: str, ours: Any, reference: Any) -> Deviation:
    """:func:`compare` with the tolerances of gradients."""
    return compare(name, ours, reference, rtol=GRAD_RTOL, atol=GRAD_ATOL)


def tensor(array: Any, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Copy an array of a fixture into a tensor; read-only arrays would warn."""
    return torch.from_numpy(np.array(array)).to(dtype=dtype)
