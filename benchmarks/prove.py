"""Hold the project to every bar and print one table: bar, goal, measured, holds or not.

``python -m benchmarks.prove`` takes a while; ``--only NAME`` runs the bars whose name has this part, ``--short`` runs
tiny forms that show that everything works, ``--list`` names the bars. The table is also written as JSON, row by row,
and ``--resume`` goes on from there: what held, on the same code, is not measured again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
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


def source_digest(root: Path = ROOT) -> str:
    """Return what tells one state of the code from another: a digest of all programs and configs."""
    found = hashlib.sha256()
    for folder in ("src", "benchmarks", "configs", "tests"):
        for path in sorted(path for kind in ("*.py", "*.yaml") for path in (root / folder).rglob(kind)):
            found.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def earlier_rows(path: Path, code: str, short: bool) -> dict[str, Verdict]:
    """Return what an earlier proof of the same code has shown, by name: bars that hold, or that only report.

    Args:
        path: Its JSON file; nothing is known where it is missing.
        code: Digest of the code.
        short: Whether tiny forms are asked for, which are another proof.
    """
    written = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if (written.get("code"), written.get("short")) != (code, short):
        return {}
    rows = [row for row in written["bars"] if row["verdict"] in ("holds", "reported")]
    return {row["name"]: Verdict(row["name"], row["goal"], row["measured"], row["holds"]) for row in rows}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bars, print the table, write the file; return 1 if a bar does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prove", description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="bars whose name has this part")
    parser.add_argument("--short", action="store_true", help="tiny forms, not judged: does everything run?")
    parser.add_argument("--list", action="store_true", help="name the bars and their goals")
    parser.add_argument("--resume", action="store_true", help="keep what an earlier proof of the same code has shown")
    parser.add_argument("--output", type=Path, default=ROOT / "runs", metavar="FOLDER", help="default: %(default)s")
    options = parser.parse_args(arguments)
    chosen = choose(load_bars(), options.only)
    if options.list:
        print(common.format_table(["bar", "goal"], [[bar.name, bar.goal] for bar in chosen]))
        return 0
    proof, path, code = Proof(options.output / "prove", options.short), options.output / "prove.json", source_digest()
    verdicts = earlier_rows(path, code, options.short) if options.resume else {}
    about = {"machine": common.machine(), "code": code, "short": options.short}
    for bar in [bar for bar in chosen if bar.name not in verdicts]:
        verdicts[bar.name] = judge(bar, proof)
        shown = [verdicts[name] for name in load_bars() if name in verdicts]
        common.write_json(path, {**about, "bars": [asdict(row) | {"verdict": row.word} for row in shown]})
    print()
    common.print_verdicts([verdicts[name] for name in load_bars() if name in verdicts])
    print(f"\nwritten to {path}")
    return int(any(verdict.holds is False for verdict in verdicts.values()))


if __name__ == "__main__":
    raise SystemExit(main())
