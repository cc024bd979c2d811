"""Reference numbers are met, and a killed run continues exactly."""

from __future__ import annotations

import sys

from benchmarks.registry import ROOT, Outcome, Proof, bar


@bar("parity", "every fixture within its tolerance")
def parity(proof: Proof) -> Outcome:
    """Run the reference numbers, where they are, through the public modules."""
    from tests.shared import SHARED

    if SHARED is None:
        return "no reference numbers here (set FARL_SHARED)", None
    finished = proof.run("parity", [sys.executable, "-m", "tests.parity", str(SHARED / "parity")])
    passed = sum(" pass" in line for line in finished.output.splitlines())
    failed = [line.split()[0] for line in finished.output.splitlines() if " FAIL" in line or " ERROR" in line]
    measured = f"{passed} files pass" + (f"; not: {', '.join(failed)}" if failed else "")
    return measured, finished.code == 0 and passed > 0


@bar("resume", "kill -9 and resume: same keys and losses, bit for bit")
def resume(proof: Proof) -> Outcome:
    """Run the tests that kill a run in the middle of an epoch: workers 0 and 2, one process and two."""
    tests = ROOT / "tests" / "distributed" / "test_resume.py"
    finished = proof.run("resume", [sys.executable, "-m", "pytest", str(tests), "-q", "-p", "no:cacheprovider"])
    summary = next((line for line in reversed(finished.output.splitlines()) if line.strip()), "no output")
    return summary.strip("= "), finished.code == 0 and "skipped" not in summary
