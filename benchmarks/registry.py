"""How bars are registered, and what they are given."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from benchmarks import bars

ROOT = Path(__file__).resolve().parents[1]

T = TypeVar("T")
Outcome = tuple[str, "bool | None"]
"""What was measured, as text, and whether the goal is reached; None where it does not apply."""


class Bar(NamedTuple):
    """One promise: its name, its goal in words, and the function that measures it."""

    name: str
    goal: str
    measure: Callable[[Proof], Outcome]


BARS: dict[str, Bar] = {}


def bar(name: str, goal: str) -> Callable[[Callable[[Proof], Outcome]], Callable[[Proof], Outcome]]:
    """Register the decorated function as a bar.

    Args:
        name: Unique name; ``--only`` finds it by any part of it.
        goal: What must be reached, as text.

    Raises:
        ValueError: If the name is taken.
    """

    def register(measure: Callable[[Proof], Outcome]) -> Callable[[Proof], Outcome]:
        if name in BARS:
            raise ValueError(f"there are two bars named '{name}'")
        BARS[name] = Bar(name, goal, measure)
        return measure

    return register


def load_bars() -> dict[str, Bar]:
    """Import every file of ``benchmarks/bars`` and return what is registered, by name."""
    for module in sorted(info.name for info in pkgutil.iter_modules(bars.__path__)):
        importlib.import_module(f"benchmarks.bars.{module}")
    return BARS


class CommandError(RuntimeError):
    """A command that failed; the message has the end of what it printed."""


@dataclass
class Proof:
    """What a bar is given.

    Attributes:
        folder: Where logs and results go.
        short: Whether tiny forms run; these show that everything works and are not judged.
    """

    folder: Path
    short: bool = False
    _shared: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Return what ``make`` returned (or raise what it raised) the first time: several bars read one run.

        Args:
            name: What is shared.
            make: Makes it.
        """
        if name not in self._shared:
            try:
                self._shared[name] = make()
            except Exception as error:
                self._shared[name] = error
        result = self._shared[name]
        if isinstance(result, Exception):
            raise result
        return result

    def run(self, name: str, command: Sequence[str], *, timeout: float = 1800, cwd: Path = ROOT) -> Finished:
        """Run a command to its end, with its output in ``<name>.log``.

        Args:
            name: Name of the log.
            command: Program and arguments.
            timeout: Seconds after which it is stopped.
            cwd: Where it runs; the repository's own code is importable from anywhere.

        Raises:
            CommandError: If it was stopped.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / f"{name}.log"
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        began = time.perf_counter()
        with log.open("w", encoding="utf-8") as out:
            try:
                code = subprocess.run(
                    command,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    timeout=timeout,
                    cwd=cwd,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired as error:
                raise CommandError(f"stopped after {timeout:.0f} s; see {log}") from error
        return Finished(code, time.perf_counter() - began, log.read_text(encoding="utf-8", errors="replace"), log)


class Finished(NamedTuple):
    """A command that came to its end: exit code, wall seconds, output, and the file that has the output."""

    code: int
    seconds: float
    output: str
    log: Path

    def check(self) -> Finished:
        """Return itself.

        Raises:
            CommandError: If the exit code is not 0.
        """
        if self.code:
            last = next((line for line in reversed(self.output.splitlines()) if line.strip()), "no output")
            raise CommandError(f"exit code {self.code}: {last.strip()[:160]} (see {self.log})")
        return self


def program(name: str) -> str:
    """Return the path of a console script beside this Python, such as ``farl-lightning``."""
    return str(Path(sys.executable).with_name(name))
