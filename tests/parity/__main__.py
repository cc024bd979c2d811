"""Run every fixture of a folder and print one line per file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.parity import Check, checks


class Result(NamedTuple):
    """Outcome of one file."""

    file: str
    verdict: str
    """``pass``, ``FAIL``, ``ERROR`` or ``no check``."""
    text: str

    @property
    def failed(self) -> bool:
        """Whether the folder as a whole fails because of this file."""
        return self.verdict in ("FAIL", "ERROR")


class _Fixture(Mapping[str, Any]):
    """The keys of a file; a missing one is named."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = dict(content)

    def __getitem__(self, key: str) -> Any:
        if key not in self._content:
            raise LookupError(f"key '{key}' is missing")
        return self._content[key]

    def __iter__(self) -> Any:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)

    def __contains__(self, key: object) -> bool:
        return key in self._content


def load(file: Path) -> Mapping[str, Any]:
    """Read arrays (``.npz``, nothing pickled) or JSON."""
    if file.suffix == ".json":
        return _Fixture(json.loads(file.read_text()))
    with np.load(file, allow_pickle=False) as arrays:
        return _Fixture({name: arrays[name] for name in arrays.files})


def run_file(file: Path, check: Check) -> Result:
    """Run one check; whatever it raises is a failure of this file."""
    try:
        deviations = check(load(file))
    except Exception as error:
        return Result(file.name, "ERROR", f"{type(error).__name__}: {error}".replace("\n", " "))
    if not deviations:
        return Result(file.name, "ERROR", "the check compared nothing")
    worst = max(deviations, key=lambda d: d.deviation / d.tolerance if d.deviation == d.deviation else float("inf"))
    bad = [d.name for d in deviations if not d.deviation <= d.tolerance]
    text = f"largest deviation {worst.deviation:.3g} of tolerance {worst.tolerance:.3g} ({worst.name}), "
    text += f"{len(deviations)} compared"
    if bad:
        text += f", over tolerance: {', '.join(bad[:6])}{' ...' if len(bad) > 6 else ''}"
    return Result(file.name, "FAIL" if bad else "pass", text)


def run(folder: Path) -> list[Result]:
    """Run every check whose file is in a folder, and list the files that have none."""
    known = checks()
    files = sorted(file for file in folder.iterdir() if file.suffix in (".npz", ".json"))
    return [run_file(f, known[f.name]) if f.name in known else Result(f.name, "no check", "") for f in files]


def main(arguments: list[str] | None = None) -> int:
    """Print the outcome; return 0 only if something was checked and nothing failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of fixtures: 01_vit_mim.npz, ...")
    folder = parser.parse_args(arguments).folder
    if not folder.is_dir():
        parser.error(f"no folder '{folder}'")
    results = run(folder)
    for result in results:
        print(f"{result.file:28} {result.verdict:9} {result.text}".rstrip())
    checked = [result for result in results if result.verdict != "no check"]
    if not checked:
        print(f"nothing to check in {folder}")
    return 0 if checked and not any(result.failed for result in checked) else 1


if __name__ == "__main__":
    sys.exit(main())
