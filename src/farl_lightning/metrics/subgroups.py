"""Fairness: results split by subgroups, with sizes, intervals, the worst group and the gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from farl_lightning.errors import ConfigError
from farl_lightning.functional.precision import as_float64
from farl_lightning.functional.subgroups import Gap, group_gap, group_means
from farl_lightning.metrics.float64_states import Float64States
from farl_lightning.metrics.names import joined, name_bytes, name_code, read_names
from farl_lightning.text import natural

CROSS = " x "
"""Joins columns whose combinations are groups: ``"gender x age_group"``."""

UNKNOWN = "unknown"
"""Group of the samples of which nobody knows it: listed last, never worst or best."""


ACROSS = "different groups"
"""Group of the pairs whose faces are of two groups: listed late, never worst or best."""

_NOT_COMPARED = (ACROSS, UNKNOWN)


class SubgroupTable(NamedTuple):
    """Results by subgroup.

    Attributes:
        rows: One row per group, by name: ``group``, ``faces``, ``mean``, ``low`` and ``high`` (its 95 % interval),
            ``difference`` (to the mean over all samples) and ``note``: ``"worst"``, ``"best"``, ``"too few"`` or
            nothing.
        mean: Mean over all samples.
        faces: Number of samples with an outcome.
        unjudged: Number of samples without one (nan), which count nowhere.
        worst: Name of the worst group of enough samples; empty with fewer than two such groups.
        best: Name of the best one.
        gap: Distance between both, its interval, and what chance alone would do.
    """

    rows: list[dict[str, Any]]
    mean: float
    faces: int
    unjudged: int
    worst: str
    best: str
    gap: Gap

    def summary(self) -> dict[str, Any]:
        """Return the comparison of groups as one row: worst, best, gap, its interval, and the gap of chance."""
        gap = self.gap
        ends = {"gap": gap.value, "gap_low": gap.low, "gap_high": gap.high, "gap_by_chance": gap.chance}
        return {"faces": self.faces, "mean": self.mean, "worst": self.worst, "best": self.best, **ends}


def subgroup_table(
    outcomes: Tensor,
    groups: Sequence[str],
    *,
    higher_is_better: bool = True,
    min_faces: int = 10,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> SubgroupTable:
    """Split results by subgroup, as Casual Conversations does (https://arxiv.org/abs/2104.02821).

    The result does not depend on the order of the samples.

    Args:
        outcomes: (N,) result of each sample: 1 or 0 (100 or 0) for right or wrong, an error in years, an NME, ...; nan
            where there is none.
        groups: N names; "" where nobody knows.
        higher_is_better: Whether a larger outcome is the better one.
        min_faces: Groups of fewer samples are listed, but are neither worst nor best.
        level: Probability that intervals cover.
        resamples: Number of bootstrap resamples.
        seed: Seed of the draws.

    Raises:
        ConfigError: If sizes differ, or ``min_faces`` is below 1.

    Example:
        >>> right = torch.tensor([1.0, 1, 1, 0, 1, 0, 0, 0])
        >>> table = subgroup_table(right, ["a"] * 4 + ["b"] * 4, min_faces=4)
        >>> table.worst, table.best, table.gap.value
        ('b', 'a', 0.5)
    """
    if outcomes.ndim != 1 or len(outcomes) != len(groups):
        raise ConfigError(f"outcomes {tuple(outcomes.shape)} and {len(groups)} groups must be one for each sample")
    if min_faces < 1:
        raise ConfigError(f"min_faces is {min_faces}, it must be 1 or more")
    draws: dict[str, Any] = {"level": level, "resamples": resamples, "seed": seed}
    judged = outcomes.isfinite().cpu()
    values = as_float64(outcomes).cpu()[judged]
    named = [name or UNKNOWN for name, kept in zip(groups, judged.tolist(), strict=True) if kept]
    names = sorted(set(named), key=lambda name: (name in _NOT_COMPARED, natural(name)))
    index = {name: number for number, name in enumerate(names)}
    codes = torch.tensor([index[name] for name in named], dtype=torch.int64)
    values, order = values.sort()  # the same under any order of the samples
    codes = codes[order]
    found = group_means(values, codes, len(names), **draws)
    mean = float(values.mean()) if len(values) else float("nan")
    columns = zip(names, *(part.tolist() for part in found), strict=True)
    rows: list[dict[str, Any]] = [
        {"group": n, "faces": f, "mean": m, "low": a, "high": b, "difference": m - mean, "note": ""}
        for n, f, m, a, b in columns
    ]
    worst, best = _extremes(rows, higher_is_better, min_faces)
    gap = _gap(values, codes, rows, draws)
    return SubgroupTable(rows, mean, len(values), int((~judged).sum()), worst, best, gap)


class SubgroupScores(Float64States):
    """Outcomes of single faces, split by any number of columns of subgroups; exact under any number of processes.

    Args:
        columns: Names of columns, or of several joined by ``" x "``, whose combinations are groups then.
        higher_is_better: Whether a larger outcome is the better one.
        min_faces: Groups of fewer faces are listed, but are neither worst nor best.
        level: Probability that intervals cover.
        resamples: Number of bootstrap resamples.
        seed: Seed of the draws.
        **kwargs: For ``torchmetrics.Metric``.

    Attributes:
        tables: For each column its :class:`SubgroupTable`, as of the last :meth:`compute`.

    Raises:
        ConfigError: If ``columns`` is empty or names one twice.
    """

    is_differentiable = False
    full_state_update = False

    outcomes: list[Tensor]
    codes: list[Tensor]
    letters: list[Tensor]

    def __init__(
        self,
        columns: Sequence[str],
        *,
        higher_is_better: bool = True,
        min_faces: int = 10,
        level: float = 0.95,
        resamples: int = 1000,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not columns or len(set(columns)) < len(columns):
            raise ConfigError(f"columns={list(columns)} must hold one or more columns of subgroups, each once")
        self.columns = tuple(columns)
        self.settings: dict[str, Any] = {
            "higher_is_better": higher_is_better,
            "min_faces": min_faces,
            "level": level,
            "resamples": resamples,
            "seed": seed,
        }
        self.tables: dict[str, SubgroupTable] = {}
        self._known: dict[str, float] = {}
        self.add_state("outcomes", [], dist_reduce_fx="cat")
        self.add_state("codes", [], dist_reduce_fx="cat")  # 48 bits of each name: processes need not agree on numbers
        self.add_state("letters", [], dist_reduce_fx="cat")  # UTF-8 of each name that this process met first, by lines

    def update(self, outcomes: Tensor, groups: Mapping[str, Sequence[str]], valid: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            outcomes: (B,) result of each face; nan where there is none.
            groups: Names of the subgroups by column, B each; "" where nobody knows.
            valid: (B,) bool; False marks repeats and skipped samples that must not count. All count by default.

        Raises:
            ConfigError: If a column is missing or sizes differ.
        """
        kept = torch.ones(len(outcomes), dtype=torch.bool) if valid is None else valid.cpu()
        columns = [cross_groups(groups, column) for column in self.columns]
        if any(len(names) != len(outcomes) for names in columns) or outcomes.ndim != 1 or len(kept) != len(outcomes):
            sizes = ", ".join(f"{column}: {len(n)}" for column, n in zip(self.columns, columns, strict=True))
            raise ConfigError(f"{tuple(outcomes.shape)} outcomes do not go with the groups ({sizes})")
        values = as_float64(outcomes.to(self.device))  # states lie where the process group can reach them
        device = values.device
        rows = torch.tensor([self._codes(names, device) for names in columns], dtype=torch.float64).T[kept]
        self.outcomes.append(values[kept.to(device)])
        self.codes.append(rows.flatten().to(device))

    def _codes(self, names: Sequence[str], device: torch.device) -> list[float]:
        """Return the code of each name, and keep the names that are new."""
        for name in dict.fromkeys(names):
            if name not in self._known:
                text = " ".join(name.split())  # a name is one line
                self._known[name] = name_code(text)
                self.letters.append(torch.tensor(name_bytes(text), dtype=torch.float64, device=device))
        return [self._known[name] for name in names]

    def compute(self) -> dict[str, Tensor]:
        """Split all outcomes of all processes.

        Returns:
            For each column ``worst_<column>`` (mean of the worst group), ``gap_<column>``, and ``gap_low_<column>`` and
            ``gap_high_<column>``, its interval; float64, nan with fewer than two groups of enough faces.
        """
        states = (self.outcomes, self.codes, self.letters)
        outcomes, codes, letters = (joined(state, self.device).cpu() for state in states)
        names = {name_code(name): name for name in read_names(letters)}
        rows = codes.view(-1, len(self.columns)).T.tolist()
        self.tables = {
            column: subgroup_table(outcomes, [names[code] for code in own], **self.settings)
            for column, own in zip(self.columns, rows, strict=True)
        }
        found: dict[str, float] = {}
        for column, table in self.tables.items():
            worst = next((row["mean"] for row in table.rows if row["group"] == table.worst), float("nan"))
            gap = table.gap
            keys = {"worst": worst, "gap": gap.value, "gap_low": gap.low, "gap_high": gap.high}
            found |= {f"{key}_{column}": value for key, value in keys.items()}
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in found.items()}

    def reset(self) -> None:
        """Forget all faces, and the names of their groups."""
        super().reset()
        self._known = {}


def cross_groups(groups: Mapping[str, Sequence[str]], column: str) -> list[str]:
    """Return the subgroup of each sample, combining columns that are joined by ``" x "``.

    Args:
        groups: Names by column.
        column: One column, or several such as ``"gender x age_group"``.

    Returns:
        A name for each sample; "" where one of its parts is not known.

    Raises:
        ConfigError: If there is no such column.
    """
    parts = [column] if column in groups else [part.strip() for part in column.split(CROSS)]
    if missing := [part for part in parts if part not in groups]:
        raise ConfigError(f"there is no column of subgroups '{missing[0]}'; there are: {', '.join(groups) or 'none'}")
    rows = zip(*(groups[part] for part in parts), strict=True)
    return [CROSS.join(row) if all(row) else "" for row in rows]


def _extremes(rows: list[dict[str, Any]], higher_is_better: bool, min_faces: int) -> tuple[str, str]:
    """Mark worst, best and too small groups; return the names of the first two."""
    for row in rows:
        row["note"] = "too few" if row["faces"] < min_faces else ""
    compared = [row for row in rows if not row["note"] and row["group"] not in _NOT_COMPARED]
    if len(compared) < 2:
        return "", ""
    ordered = sorted(compared, key=lambda row: row["mean"], reverse=not higher_is_better)
    ordered[0]["note"], ordered[-1]["note"] = "worst", "best"
    return ordered[0]["group"], ordered[-1]["group"]


def _gap(values: Tensor, codes: Tensor, rows: list[dict[str, Any]], draws: dict[str, Any]) -> Gap:
    """Compare the groups of enough samples."""
    compared = [n for n, row in enumerate(rows) if row["note"] != "too few" and row["group"] not in _NOT_COMPARED]
    number = torch.full((max(1, len(rows)),), -1)
    number[compared] = torch.arange(len(compared))
    own = number[codes]
    return group_gap(values[own >= 0], own[own >= 0], len(compared), **draws)
