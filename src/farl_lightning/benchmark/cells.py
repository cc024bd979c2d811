"""The cells of a benchmark: one encoder, one task, one way of tuning, one share of labels, one seed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from farl_lightning.benchmark.config import PROBED, Benchmark, Encoder, Task


@dataclass(frozen=True)
class Cell:
    """One thing to measure.

    Attributes:
        encoder: The representation.
        task: What it is judged by.
        method: How it is tuned.
        labels: Share of the training labels, above 0 and up to 1.
        seed: Draws the labels, the batches and the new weights.
    """

    encoder: Encoder
    task: Task
    method: str
    labels: float
    seed: int

    @property
    def key(self) -> str:
        """Its name on disk, such as ``parsing.itc.frozen.10pct.seed0``."""
        return f"{self.task.name}.{self.encoder.name}.{self.method}.{percent(self.labels)}pct.seed{self.seed}"

    @property
    def probed(self) -> bool:
        """Whether it needs features alone."""
        return self.method in PROBED

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.task.name}, {self.encoder.name}, {self.method}, {percent(self.labels)} %, seed {self.seed}"


def list_cells(benchmark: Benchmark) -> list[Cell]:
    """Return all cells, in the order in which they are measured.

    One seed after the other, so that an unfinished benchmark is a whole table of fewer seeds.

    Args:
        benchmark: The benchmark.
    """
    return [
        Cell(encoder, task, method, float(labels), seed)
        for seed in benchmark.seeds
        for task in benchmark.tasks
        for method in benchmark.methods_of(task)
        for encoder in benchmark.encoders
        for labels in benchmark.labels
    ]


def used_encoders(cells: Iterable[Cell]) -> list[Encoder]:
    """Return the encoders of cells, each once.

    Args:
        cells: Any.
    """
    return list({cell.encoder.name: cell.encoder for cell in cells}.values())


def percent(share: float) -> str:
    """Write a share in percent.

    Args:
        share: From 0 to 1.

    Example:
        >>> percent(1), percent(0.1), percent(0.005)
        ('100', '10', '0.5')
    """
    return f"{100 * share:.6g}"
