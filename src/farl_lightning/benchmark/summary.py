"""Means and deviations over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from farl_lightning.benchmark.cells import Cell, list_cells
from farl_lightning.benchmark.config import Benchmark, Encoder, Task
from farl_lightning.benchmark.store import Record


@dataclass(frozen=True)
class Summary:
    """One entry of the table.

    Attributes:
        task: What was measured.
        encoder: Of which representation.
        method: How it was tuned.
        labels: Share of the labels.
        values: One for each seed that has a result.
        seeds: Number of seeds that are asked for.
        reasons: Why others failed.
        gains: Differences to the baseline at the same seed, above 0 where the encoder is better; for seeds that both
            have.
    """

    task: Task
    encoder: Encoder
    method: str
    labels: float
    values: Sequence[float]
    seeds: int
    reasons: Sequence[str] = ()
    gains: Sequence[float] = ()

    @property
    def mean(self) -> float | None:
        """Mean over seeds; None without any result."""
        return average(self.values)

    @property
    def std(self) -> float | None:
        """Standard deviation over seeds (divided by their number less one); None below two results."""
        return deviation(self.values)


def summarise(benchmark: Benchmark, records: Mapping[str, Record]) -> list[Summary]:
    """Join the seeds of each entry of the table.

    Args:
        benchmark: What was measured.
        records: Results by key of the cell.
    """
    groups: dict[tuple[str, str, str, float], list[Cell]] = {}
    for cell in list_cells(benchmark):
        groups.setdefault((cell.task.name, cell.encoder.name, cell.method, cell.labels), []).append(cell)
    return [_join(cells, records, groups, benchmark.baseline) for cells in groups.values()]


def _join(
    cells: Sequence[Cell],
    records: Mapping[str, Record],
    groups: Mapping[tuple[str, str, str, float], Sequence[Cell]],
    baseline: str | None,
) -> Summary:
    """Join the seeds of one entry."""
    first = cells[0]
    own = _values(cells, records)
    gains: list[float] = []
    if baseline is not None and baseline != first.encoder.name:
        other = _values(groups[first.task.name, baseline, first.method, first.labels], records)
        sign = 1 if first.task.mode == "max" else -1
        gains = [sign * (own[seed] - other[seed]) for seed in own if seed in other]
    failed = [records[cell.key].reason for cell in cells if cell.key in records and cell.seed not in own]
    return Summary(first.task, first.encoder, first.method, first.labels, list(own.values()), len(cells), failed, gains)


def _values(cells: Iterable[Cell], records: Mapping[str, Record]) -> dict[int, float]:
    """Return results by seed."""
    found = {cell.seed: records[cell.key].value for cell in cells if cell.key in records}
    return {seed: value for seed, value in found.items() if value is not None}


def average(values: Sequence[float]) -> float | None:
    """Return the mean; None of nothing.

    Args:
        values: Any number of them.
    """
    return math.fsum(values) / len(values) if values else None


def deviation(values: Sequence[float]) -> float | None:
    """Return the standard deviation of a sample, divided by n - 1; None below two values.

    Args:
        values: Any number of them.

    Example:
        >>> deviation([1.0, 3.0])
        1.4142135623730951
    """
    mean = average(values)
    if mean is None or len(values) < 2:
        return None
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def best(entries: Iterable[Summary]) -> Summary | None:
    """Return the entry with the best mean of one column; None if nothing has a result.

    Args:
        entries: Of one task, method and share of labels.
    """
    found = [entry for entry in entries if entry.mean is not None]
    if not found:
        return None
    sign = 1 if found[0].task.mode == "max" else -1
    return max(found, key=lambda entry: sign * (entry.mean or 0.0))
