"""Measure what is missing: pretraining first, then cell after cell; what fails is written down, the rest goes on."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from farl_lightning.benchmark.cells import Cell, list_cells, used_encoders
from farl_lightning.benchmark.config import Benchmark, Encoder
from farl_lightning.benchmark.store import Record, Store, digest
from farl_lightning.errors import FarlError

LOG = "log.txt"
"""What a cell or a pretraining printed, in its folder."""


_LONGEST = 400  # letters of a reason


@dataclass(frozen=True)
class Measurement:
    """What a cell was found to be.

    Attributes:
        value: The task's metric.
        metrics: All metrics of the test, by key.
        details: Whatever else is worth keeping, as plain data.
    """

    value: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


class Worker(Protocol):
    """Whoever trains and probes."""

    def describe_encoder(self, encoder: Encoder) -> Any:
        """Return all that an encoder depends on, as plain data.

        Args:
            encoder: One of the benchmark.

        Raises:
            ConfigError: If a config is missing: nothing is measured then.
        """

    def describe(self, cell: Cell) -> Any:
        """Return all that a cell depends on besides its encoder, as plain data.

        Args:
            cell: One of the benchmark.

        Raises:
            ConfigError: If a config is missing: nothing is measured then.
        """

    def pretrain(self, encoder: Encoder, folder: Path) -> tuple[str, dict[str, Any]]:
        """Make an encoder, or go on where an earlier attempt stopped.

        Args:
            encoder: With ``pretrain``.
            folder: For whatever it leaves behind.

        Returns:
            The file of weights, and what is worth keeping of the run.
        """

    def measure(self, cell: Cell, weights: str | None, folder: Path) -> Measurement:
        """Measure a cell.

        Args:
            cell: The cell.
            weights: Of its encoder; None for random ones.
            folder: For whatever it leaves behind.
        """


def run_benchmark(benchmark: Benchmark, worker: Worker, say: Callable[[str], None] = print) -> int:
    """Measure every cell that has no result yet; failed ones are tried again.

    Args:
        benchmark: What to measure.
        worker: Who measures.
        say: Takes a line for each cell.

    Returns:
        The number of cells without a result.

    Raises:
        ConfigError: If a config is missing.
    """
    return _Run(benchmark, worker, say).finish()


def records_of(benchmark: Benchmark, worker: Worker) -> dict[str, Record]:
    """Return the results that are there, by key of the cell.

    Args:
        benchmark: What is measured.
        worker: Who tells what results depend on.
    """
    run = _Run(benchmark, worker, lambda _: None)
    found = {cell.key: run.store.find("cells", cell.key, run.settings(cell)) for cell in run.cells}
    return {key: record for key, record in found.items() if record is not None}


def pretrainings_of(benchmark: Benchmark, worker: Worker) -> dict[str, Record]:
    """Return what became of the encoders that are pretrained, by name.

    Args:
        benchmark: What is measured.
        worker: Who tells what results depend on.
    """
    run = _Run(benchmark, worker, lambda _: None)
    found = {e.name: run.store.find("encoders", e.name, run.encoders[e.name]) for e in benchmark.encoders}
    return {name: record for name, record in found.items() if record is not None}


class _Run:
    """One pass over a benchmark."""

    def __init__(self, benchmark: Benchmark, worker: Worker, say: Callable[[str], None]) -> None:
        self.worker, self.say = worker, say
        self.store = Store(benchmark.output)
        self.cells = list_cells(benchmark)
        self.encoders = {e.name: digest(worker.describe_encoder(e)) for e in used_encoders(self.cells)}

    def settings(self, cell: Cell) -> str:
        """Return the digest of all that a cell depends on."""
        return digest([self.encoders[cell.encoder.name], self.worker.describe(cell)])

    def finish(self) -> int:
        """Measure what is missing; return how many cells failed."""
        wanted = {cell.key: self.settings(cell) for cell in self.cells}
        known = {key: self.store.find("cells", key, settings) for key, settings in wanted.items()}
        left = [cell for cell in self.cells if not _is_done(known[cell.key])]
        if len(left) < len(self.cells):
            self.say(f"{len(self.cells) - len(left)} of {len(self.cells)} cells are there already")
        for path in self.store.unreadable:
            self.say(f"'{path}' cannot be read; it is measured again")
        made = {encoder.name: self._make(encoder) for encoder in used_encoders(left)}
        failed = 0
        for number, cell in enumerate(left, 1):
            record = self._measure(cell, wanted[cell.key], made[cell.encoder.name])
            self.store.save("cells", record)
            self.say(f"[{number}/{len(left)}] {cell}: {_outcome(cell, record)}")
            failed += record.state == "failed"
        return failed

    def _make(self, encoder: Encoder) -> Record:
        """Return an encoder's weights (in ``details``), pretrained if need be."""
        blank = Record(encoder.name, self.encoders[encoder.name], "done", details={"weights": encoder.weights})
        if encoder.pretrain is None:
            return blank
        found = self.store.find("encoders", encoder.name, blank.settings)
        if _is_done(found) and found is not None and Path(str(found.details["weights"])).is_file():
            return found
        self.say(f"pretraining {encoder.name}")
        folder = self.store.place("encoders", encoder.name)

        def _work() -> Record:
            weights, details = self.worker.pretrain(encoder, folder)
            return replace(blank, details={**details, "weights": weights})

        record = _attempt(_work, blank, folder)
        self.store.save("encoders", record)
        words = f"failed: {record.reason}" if record.state == "failed" else f"{record.seconds:.0f} s"
        self.say(f"pretraining {encoder.name}: {words}")
        return record

    def _measure(self, cell: Cell, settings: str, encoder: Record) -> Record:
        """Measure a cell."""
        blank = Record(cell.key, settings, "done", details={"cell": _plain(cell)})
        if encoder.state == "failed":
            return replace(blank, state="failed", reason=f"pretraining of {cell.encoder.name} failed: {encoder.reason}")
        folder = self.store.place("cells", cell.key)

        def _work() -> Record:
            found = self.worker.measure(cell, encoder.details["weights"], folder)
            if not math.isfinite(found.value):
                raise FarlError(f"{cell.task.metric} is {found.value}")
            metrics = {name: float(value) for name, value in found.metrics.items() if math.isfinite(value)}
            return replace(blank, value=float(found.value), metrics=metrics, details={**blank.details, **found.details})

        return _attempt(_work, blank, folder)


def _attempt(work: Callable[[], Record], blank: Record, folder: Path) -> Record:
    """Do some work; whatever stops it becomes a failed record, with its traceback in the log."""
    began = time.monotonic()
    try:
        record = work()
    except Exception as error:
        with (folder / LOG).open("a", encoding="utf-8") as log:
            log.write("".join(traceback.format_exception(error)))
        record = replace(blank, state="failed", reason=_reason(error))
    return replace(record, seconds=round(time.monotonic() - began, 2))


def _reason(error: BaseException) -> str:
    """Return why something failed, in one line: what our own error says where another one wraps it."""
    wrapped: BaseException | None = error
    while wrapped is not None and not isinstance(wrapped, FarlError):
        wrapped = wrapped.__cause__
    words = " ".join(str(wrapped or error).split()) or "no reason given"
    text = words if wrapped is not None else f"{type(error).__name__}: {words}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... (the log has all of it)"


def _is_done(record: Record | None) -> bool:
    """Whether a record is a result."""
    return record is not None and record.state == "done"


def _outcome(cell: Cell, record: Record) -> str:
    """Say what became of a cell."""
    if record.value is None:
        return f"failed: {record.reason}"
    return f"{record.value:.{cell.task.digits}f} {cell.task.unit}".rstrip() + f" ({record.seconds:.1f} s)"


def _plain(cell: Cell) -> dict[str, Any]:
    """Return a cell as plain data."""
    return {
        "encoder": cell.encoder.name,
        "task": cell.task.name,
        "method": cell.method,
        "labels": cell.labels,
        "seed": cell.seed,
    }
