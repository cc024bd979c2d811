"""Real photographs: the training pairs are learned, and exactly the planted faults are reported."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.registry import Outcome, Proof, bar

if TYPE_CHECKING:
    from benchmarks import real_input


def outcome(proof: Proof) -> real_input.Outcome | None:
    """Run once for both bars; None without the photographs."""
    from tests.shared import SHARED

    if SHARED is None:
        return None
    from benchmarks import real_input  # not at the top: it imports torch, and bars are only listed most of the time

    material = SHARED / "real"

    def run() -> real_input.Outcome:
        with tempfile.TemporaryDirectory() as folder:
            if proof.short:
                return real_input.run(material, Path(folder), real_input.SHORT, limit=40)
            return real_input.run(material, Path(folder), real_input.FULL)

    return proof.once("real input", run)


@bar("real input: learning", "training pairs, image-to-text R@1 > 80 %")
def learning(proof: Proof) -> Outcome:
    """Portraits and photographs from shards of which one sample in twenty is broken."""
    found = outcome(proof)
    if found is None:
        return "no real pictures here (set FARL_SHARED)", None
    recall = found.metrics["val/image_to_text_r1"]
    measured = f"{recall:.1%} in {found.seconds:.0f} s"
    return (f"{measured} (short form)", None) if proof.short else (measured, recall > 0.8)


@bar("real input: faults", "exactly the planted faults are reported")
def faults(proof: Proof) -> Outcome:
    """Keys and reasons in ``dropped.jsonl`` against what was broken on purpose."""
    found = outcome(proof)
    if found is None:
        return "no real pictures here (set FARL_SHARED)", None
    return f"{len(found.planted)} planted, {len(found.reported)} reported", found.planted == found.reported
