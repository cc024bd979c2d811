"""What every benchmark shares: interleaved timing, ratios pair by pair, verdicts, one table, one JSON file."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Timing:
    """Repeated measurements of one thing.

    Attributes:
        name: What was timed.
        seconds: Wall time of each repetition.
        cpu_seconds: Processor time of this process (all threads) in each repetition: on a machine that others use
            too it moves less than wall time.
    """

    name: str
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median wall time in seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Distance between the quartiles as a share of the median; 0 below four repetitions."""
        if len(self.seconds) < 4:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4)
        return (high - low) / self.median


@dataclass(frozen=True)
class Verdict:
    """One promise and what became of it.

    Attributes:
        name: The promise in a few words.
        goal: What must be reached, as text.
        measured: What was reached, as text.
        holds: Whether the goal is reached; None where it does not apply to this machine (``measured`` says why).
    """

    name: str
    goal: str
    measured: str
    holds: bool | None

    @property
    def word(self) -> str:
        """``"holds"``, ``"DOES NOT HOLD"``, ``"not applicable"``, or ``"reported"`` where that is the whole goal."""
        if self.holds is None:
            return "reported" if self.goal.startswith("reported") else "not applicable"
        return "holds" if self.holds else "DOES NOT HOLD"


def interleave(runs: Mapping[str, Callable[[], Any]], repeats: int, warmup: int = 1) -> dict[str, Timing]:
    """Time several callables in turn (A B A B ...), so that a disturbance of the machine meets all of them.

    Garbage is collected before each repetition, and not during it.

    Args:
        runs: The callables by name, in the order in which they take turns.
        repeats: Timed rounds.
        warmup: Rounds before the timed ones.

    Returns:
        The timings by name; repetition ``i`` of every name was measured in the same round.
    """
    wall: dict[str, list[float]] = {name: [] for name in runs}
    busy: dict[str, list[float]] = {name: [] for name in runs}
    with _quiet_collector():
        for turn in range(warmup + repeats):
            for name, run in runs.items():
                gc.collect()
                seconds, cpu_seconds = _time_once(run)
                if turn >= warmup:
                    wall[name].append(seconds)
                    busy[name].append(cpu_seconds)
    return {name: Timing(name, tuple(wall[name]), tuple(busy[name])) for name in runs}


@contextmanager
def _quiet_collector() -> Iterator[None]:
    """Keep the garbage collector off, and what exists already out of the collections that are asked for."""
    collecting = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if collecting:
            gc.enable()


def _time_once(run: Callable[[], Any]) -> tuple[float, float]:
    """Return wall and processor seconds of one call."""
    wall, busy = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - busy


def speedup(slow: Timing, fast: Timing) -> float:
    """Return how many times faster ``fast`` is: the median of the ratios taken round by round.

    Args:
        slow: The peer.
        fast: Ours, timed in the same rounds.
    """
    return statistics.median(a / b for a, b in zip(slow.seconds, fast.seconds, strict=True))


def format_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows of text under headings, each column as wide as its widest cell."""
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    head = "  ".join(cell.ljust(width) for cell, width in zip(columns, widths, strict=True)).rstrip()
    return "\n".join([head, "  ".join("-" * width for width in widths), *lines])


def print_timings(timings: Mapping[str, Timing], *, items: int | None = None, unit: str = "images") -> None:
    """Print one row per timing: median, spread, and throughput if the number of items per repetition is given.

    Args:
        timings: As returned by :func:`interleave`.
        items: How many images (or other units) one repetition works through.
        unit: The name of what is counted.
    """
    rate = [] if items is None else [f"{unit}/s"]
    rows = [
        [
            t.name,
            _seconds(t.median),
            f"{t.spread:.0%}",
            str(len(t.seconds)),
            *([f"{items / t.median:.1f}"] if items else []),
        ]
        for t in timings.values()
    ]
    print(format_table(["", "median", "spread", "repeats", *rate], rows), flush=True)


def print_verdicts(verdicts: Sequence[Verdict]) -> None:
    """Print the table of promises: name, goal, measured, holds or not."""
    print(
        format_table(["", "goal", "measured", ""], [[v.name, v.goal, v.measured, v.word] for v in verdicts]), flush=True
    )


def _seconds(value: float) -> str:
    """Write a duration with a unit that suits its size."""
    return f"{value:.3f} s" if value >= 1 else f"{value * 1e3:.2f} ms"


def add_arguments(parser: argparse.ArgumentParser, *, repeats: int) -> None:
    """Add the options that every benchmark has: ``--repeats --threads --short --json --require``.

    Args:
        parser: The parser of one benchmark.
        repeats: Default number of timed rounds.
    """
    parser.add_argument("--repeats", type=int, default=repeats, help="timed rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=None, help="threads of torch (default: torch's own choice)")
    parser.add_argument(
        "--short", action="store_true", help="a small form that takes seconds; its goals are not judged"
    )
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write every number to this file")
    parser.add_argument("--require", action="store_true", help="exit with code 1 if a goal is missed")


def finish(args: argparse.Namespace, timings: Mapping[str, Timing], verdicts: Sequence[Verdict], **extra: Any) -> int:
    """Print the verdicts, write the JSON file if one is asked for, and return the exit code.

    Args:
        args: The parsed options of :func:`add_arguments`.
        timings: Every timing of the run.
        verdicts: Every promise of the run.
        extra: Further plain data for the JSON file.

    Returns:
        1 if ``--require`` was given and a goal is missed, else 0.
    """
    print_verdicts(verdicts)
    if args.json is not None:
        write_json(
            args.json,
            {
                "machine": machine(),
                "options": {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()},
                "timings": {name: asdict(timing) | {"median": timing.median} for name, timing in timings.items()},
                "verdicts": [asdict(verdict) for verdict in verdicts],
                **extra,
            },
        )
    return int(args.require and any(verdict.holds is False for verdict in verdicts))


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write plain data to a file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """Describe the machine in general terms: system, architecture, usable cores, vector instructions, versions."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cores": cores,
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "native_bf16": has_native_bf16(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def has_native_bf16() -> bool:
    """Tell whether this CPU multiplies bf16 in hardware (AVX512-BF16 or AMX on x86, BF16 on Arm)."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return False
    words = set(info.read_text(encoding="utf-8", errors="replace").split())
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})
