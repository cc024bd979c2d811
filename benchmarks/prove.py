"""Hold the project to every bar and print one table: bar, goal, measured, holds or not.

``python -m benchmarks.prove`` takes a while; ``--only NAME`` runs the bars whose name has this part, ``--short`` runs
tiny forms that show that everything works, ``--list`` names the bars. The table is also written as JSON.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import common
from benchmarks.common import Verdict
from benchmarks.registry import ROOT, Bar, Proof, load_bars
from farl_lightning.errors import did_you_mean


def judge(bar: Bar, proof: Proof) -> Verdict:
    """Measure one bar; whatever it raises is a bar that does not hold."""
    print(f"{bar.name} ...", end=" ", flush=True)
    began = time.perf_counter()
    try:
        measured, holds = bar.measure(proof)
    except Exception as error:
        measured, holds = f"{type(error).__name__}: {error}".replace("\n", " "), False
    verdict = Verdict(bar.name, bar.goal, measured, holds)
    print(f"{verdict.word} ({time.perf_counter() - began:.0f} s)", flush=True)
    return verdict


def choose(bars: dict[str, Bar], parts: Sequence[str]) -> list[Bar]:
    """Return the bars whose name has one of the parts; all when there are none.

    Raises:
        SystemExit: If a part is in no name.
    """
    for part in parts:
        if not any(part in name for name in bars):
            raise SystemExit(f"no bar has '{part}' in its name. {did_you_mean(part, bars)} See --list")
    return [bar for name, bar in bars.items() if not parts or any(part in name for part in parts)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bars, print the table, write the file; return 1 if a bar does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prove", description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="bars whose name has this part")
    parser.add_argument("--short", action="store_true", help="tiny forms, not judged: does everything run?")
    parser.add_argument("--list", action="store_true", help="name the bars and their goals")
    parser.add_argument("--output", type=Path, default=ROOT / "runs", metavar="FOLDER", help="default: %(default)s")
    options = parser.parse_args(arguments)
    chosen = choose(load_bars(), options.only)
    if options.list:
        print(common.format_table(["bar", "goal"], [[bar.name, bar.goal] for bar in chosen]))
        return 0
    proof = Proof(options.output / "prove", options.short)
    verdicts = [judge(bar, proof) for bar in chosen]
    print()
    common.print_verdicts(verdicts)
    path = options.output / "prove.json"
    rows = [asdict(verdict) | {"verdict": verdict.word} for verdict in verdicts]
    common.write_json(path, {"machine": common.machine(), "short": options.short, "bars": rows})
    print(f"\nwritten to {path}")
    return int(any(verdict.holds is False for verdict in verdicts))


if __name__ == "__main__":
    raise SystemExit(main())
