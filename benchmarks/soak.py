"""Kills trainings at random moments, for as long as is asked for, and counts what was lost.

    python -m benchmarks.soak --minutes 60

Cells are {one process, two under DDP, two under FSDP2} x {0, 2 loader workers}. Each cell trains once undisturbed on
shards of which five samples in a hundred are broken. Then storms go over it in turn: the same run is ended again and
again (SIGKILL at any moment, while a checkpoint is written included; now and then SIGTERM to one process, or a flipped
bit in the newest checkpoint) and resumed from its newest whole checkpoint, until it comes to its end. Every step that
counts (those up to the checkpoint from which training went on) and the last weights must equal the undisturbed run's
bit for bit. An hour on two cores sees about a hundred kills per cell; Ctrl-C ends it early, with a summary.

Where the machine can make hosts of network namespaces (root, iproute2), one more training runs over two of them while
their cable is cut and slowed down again and again (``--cuts``).
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cuts import LONGEST, storm_of_cuts
from benchmarks.hosts import obstacle
from farl_lightning.callbacks.checkpoint_io import newest_intact
from farl_lightning.testing.shards import write_fake_laion_face

CELLS: dict[str, dict[str, Any]] = {
    f"{name}, {workers} workers": {**settings, "workers": workers}
    for name, settings in {
        "one process": {"world": 1},
        "DDP 2": {"world": 2, "strategy": "ddp"},
        "FSDP2 2": {"world": 2, "strategy": "fsdp2"},
    }.items()
    for workers in (0, 2)
}
"""What is tried, as settings of a job."""

BAD = {"not_an_image": 4, "empty_caption": 3, "duplicate_key": 3, "shard_truncated": 1, "shard_missing": 1}
"""Planted faults: one sample in twenty of 240."""

_EARLY = "ended early; a cell that finished no run counts as not survived"

_LAST_KILL = 5  # steps before the end at which a kill may fall: a later one might come too late


@dataclass
class Tally:
    """What happened to one cell."""

    kills: int = 0
    signals: int = 0
    damaged: int = 0
    finished: int = 0
    lost: int = 0
    repeated: int = 0
    different: list[str] = field(default_factory=list)

    def holds(self) -> bool:
        """Whether every storm was survived without a trace."""
        return self.finished > 0 and not (self.lost or self.repeated or self.different)


@dataclass
class Storm:
    """One run that is ended and resumed until it comes to its end.

    Attributes:
        server: Runs jobs.
        job: The cell's settings.
        folder: For its files.
        dice: What is random.
        tally: Is added to.
    """

    server: Any
    job: dict[str, Any]
    folder: Path
    dice: random.Random
    tally: Tally

    def ride(self, whole: list[list[dict[str, Any]]], most: int) -> None:
        """Go through at most so many ends, then let the run finish, and compare.

        Args:
            whole: Rows of the undisturbed run, by rank.
            most: Ends.
        """
        steps, counted = len(whole[0]) - 1, [[] for _ in whole]  # type: list[Any]
        checkpoint, done = None, 0
        for number in range(most + 1):
            first, last = done + 3, steps - _LAST_KILL
            end = self._end(first, last) if number < most and first < last else {}
            out = self.folder / f"run{number}"
            rows = self.server.run(out, **self.job, **end, ckpt=checkpoint and str(checkpoint))
            if not end:
                return self._compare(whole, [[*seen, *own] for seen, own in zip(counted, rows, strict=True)])
            checkpoint = self._newest()
            reached = _step(checkpoint)
            counted = [[*seen, *own[: reached - done]] for seen, own in zip(counted, rows, strict=True)]
            done = reached
        return None

    def _end(self, first: int, last: int) -> dict[str, Any]:
        """Choose how and when the run ends: mostly by SIGKILL."""
        if self.dice.random() < 0.2:
            self.tally.signals += 1
            return {"signal_at": self.dice.randint(first, min(first + 6, last))}
        self.tally.kills += 1
        return {"kill_at": self.dice.uniform(first, min(first + 6, last))}

    def _newest(self) -> Path:
        """Return the newest whole checkpoint; now and then, the newest one is damaged before."""
        found = sorted(self.folder.glob("run*/checkpoints/*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
        usable = newest_intact(found)
        if self.dice.random() < 0.2 and usable is not None and usable.is_file() and len(found) > 1:
            content = bytearray(usable.read_bytes())
            content[len(content) // 2] ^= 1
            usable.write_bytes(content)
            self.tally.damaged += 1
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                usable = newest_intact(found)
        if usable is None:
            raise RuntimeError(f"no whole checkpoint is left in {self.folder}")
        return usable

    def _compare(self, whole: list[list[dict[str, Any]]], found: list[list[dict[str, Any]]]) -> None:
        """Count samples that are missing or too many, and look for any other difference."""
        self.tally.finished += 1
        expected, got = _keys(whole), _keys(found)
        self.tally.lost += (expected - got).total()
        self.tally.repeated += (got - expected).total()
        for rank, (own, other) in enumerate(zip(whole, found, strict=True)):
            for row, seen in zip(own, other, strict=False):
                names = sorted(name for name in row if name != "samples" and row[name] != seen.get(name))
                if names:
                    self.tally.different.append(f"rank {rank}, step {row['step']}: {', '.join(names)}")
                    break


def _step(checkpoint: Path) -> int:
    """Return the number of steps in a checkpoint."""
    import torch

    file = checkpoint / "meta.pt" if checkpoint.is_dir() else checkpoint
    return int(torch.load(file, map_location="cpu", weights_only=True)["global_step"])


def _keys(rows: Sequence[Sequence[dict[str, Any]]]) -> Counter[str]:
    """Count how often every sample was trained on, over all ranks."""
    return Counter(key for own in rows for row in own for key in row.get("keys", ()))


def soak(
    minutes: float, cells: Sequence[str] = tuple(CELLS), ends: int = 4, seed: int | None = None, epochs: int = 6
) -> dict[str, Tally]:
    """Send storms over all cells in turn.

    Args:
        minutes: How long; every cell gets one storm in any case.
        cells: Names in :data:`CELLS`.
        ends: How often a run is ended at most before it may finish.
        seed: Of all that is random but the moment of a kill within its step.
        epochs: Length of each run: ten steps on one process, five on two.

    Returns:
        What happened, by cell.
    """
    from tests.distributed.resume_runs import Server

    dice, tallies, until = random.Random(seed), {name: Tally() for name in cells}, time.monotonic() + 60 * minutes
    server = Server()
    try:
        with tempfile.TemporaryDirectory(prefix="farl-soak-") as folder:
            fake = write_fake_laion_face(Path(folder) / "shards", shards=6, samples=40, faults=BAD, size=36)
            jobs = {name: _job(CELLS[name], fake.shards, epochs) for name in cells}
            whole = {name: server.run(Path(folder) / f"whole{n}", **jobs[name]) for n, name in enumerate(cells)}
            number = 0
            while number < len(cells) or time.monotonic() < until:
                name = cells[number % len(cells)]
                with tempfile.TemporaryDirectory(dir=folder) as storm:  # an hour of checkpoints would fill a disk
                    Storm(server, jobs[name], Path(storm), dice, tallies[name]).ride(whole[name], ends)
                number += 1
    except KeyboardInterrupt:
        print(f"{_EARLY}\n{summary(tallies)}")
        raise SystemExit(130) from None
    except Exception:
        print(f"{_EARLY}\n{summary(tallies)}")
        raise
    finally:
        server.close()
    return tallies


def _job(cell: dict[str, Any], shards: Sequence[Path], epochs: int) -> dict[str, Any]:
    """Return the settings of a cell's runs."""
    return {"kind": "shards", "shards": [str(shard) for shard in shards], "epochs": epochs, **cell}


def summary(tallies: dict[str, Tally]) -> str:
    """Return the table of faults injected, survived, samples lost and repeated.

    Args:
        tallies: What happened, by cell.
    """
    head = f"{'cell':<24}{'kills':>7}{'SIGTERM':>9}{'damaged':>9}{'finished':>10}{'lost':>6}{'repeated':>10}  equal"
    lines = [head]
    for name, tally in tallies.items():
        numbers = f"{tally.kills:>7}{tally.signals:>9}{tally.damaged:>9}{tally.finished:>10}{tally.lost:>6}"
        first = tally.different[0] if tally.different else ""
        other = f"not {len(tally.different)} of {tally.finished}, first {first}" if first else "yes"
        lines.append(f"{name:<24}{numbers}{tally.repeated:>10}  {other}")
    faults = sum(tally.kills + tally.signals + tally.damaged for tally in tallies.values())
    lost, repeated = (sum(getattr(tally, name) for tally in tallies.values()) for name in ("lost", "repeated"))
    survived = "all survived" if all(tally.holds() for tally in tallies.values()) else "NOT all survived"
    lines.append(f"{faults} faults injected, {survived}; samples lost {lost}, samples repeated {repeated}")
    return "\n".join(lines)


def main() -> None:
    """Run from the command line; the exit code is 1 if anything was lost, repeated or different."""
    parser = argparse.ArgumentParser(description="Kill and resume trainings, and count what was lost.")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (default: an hour)")
    parser.add_argument("--ends", type=int, default=4, help="how often each run is ended before it may finish")
    parser.add_argument("--cuts", type=int, default=20, help="how often the cable between two hosts is cut")
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args()
    tallies = soak(given.minutes, tuple(CELLS), given.ends, given.seed)
    print(summary(tallies))
    text, holds = soak_cable(given.cuts, given.seed)
    print(text)
    raise SystemExit(not (holds and all(tally.holds() for tally in tallies.values())))


def soak_cable(
    cuts: int, seed: int | None = None, steps: int | None = None, longest: float = LONGEST
) -> tuple[str, bool]:
    """Cut the cable between two hosts again and again.

    Args:
        cuts: How often.
        seed: Of what is random.
        steps: Length of the run; None is two per cut, and some more.
        longest: Seconds of the longest cut.

    Returns:
        A line that says what happened, and whether all was survived; True where hosts cannot be made.
    """
    if reason := obstacle():
        return f"two hosts: not tried: {reason}", True
    with tempfile.TemporaryDirectory(prefix="farl-cuts-") as folder:
        found = storm_of_cuts(Path(folder), random.Random(seed), cuts, steps or 2 * cuts + 10, longest)
    holds = not (found.lost or found.repeated or found.different)
    end = "survived" if holds else "NOT survived"
    text = f"two hosts: cable cut {found.cuts} times, {found.seconds:.0f} s in all, {end}"
    equal = "equal" if not found.different else f"different from {found.different[0]} on"
    return f"{text}; samples lost {found.lost}, samples repeated {found.repeated}, {equal}", holds


if __name__ == "__main__":
    main()
