"""Memory of labels in source pixels."""

from __future__ import annotations

from benchmarks.bars.speed import benchmark
from benchmarks.registry import Outcome, Proof, bar


def _row(proof: Proof, name: str) -> Outcome:
    """Return one verdict of the benchmark."""
    rows = benchmark(proof, "restore_memory")["verdicts"]
    row = next((row for row in rows if row["name"] == name), None)
    return (row["measured"], row["holds"]) if row else ("no facer here (pip install pyfacer)", None)


@bar("dense memory: against facer", "labels of 3 faces at 2,000 px in less memory than facer")
def against_facer(proof: Proof) -> Outcome:
    """Peak growth of a fresh process while crops are mapped back to the picture."""
    return _row(proof, "3 faces at 2,000 px")


@bar("dense memory: same labels", ">= 99.9 % of facer's pixels")
def same_labels(proof: Proof) -> Outcome:
    """The labels of both sides from the same logits."""
    return _row(proof, "same labels as facer")


@bar("dense memory: 12 megapixels", "< 1 GB above the encoder's own at 19 classes")
def large_picture(proof: Proof) -> Outcome:
    """Peak growth of a fresh process."""
    return _row(proof, "12 megapixels, 19 classes")
