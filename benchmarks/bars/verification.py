"""Verification: memory of centres for very many people."""

from __future__ import annotations

from benchmarks.bars.speed import benchmark
from benchmarks.registry import Outcome, Proof, bar


def _row(proof: Proof, name: str) -> Outcome:
    """Return one verdict of the benchmark."""
    row = next(row for row in benchmark(proof, "margin_memory")["verdicts"] if row["name"] == name)
    return row["measured"], row["holds"]


@bar("margin memory: 1,000,000 people", "a step of 1,000,000 x 512 in centres + gradient + < 500 MB, whole")
def whole(proof: Proof) -> Outcome:
    """Peak growth of a fresh process in a forward and a backward pass."""
    return _row(proof, "1 process")


@bar("margin memory: 1,000,000 people, sharded", "the same of 500,000 rows on each of 2 processes")
def sharded(proof: Proof) -> Outcome:
    """Peak growth of the larger of two fresh processes."""
    return _row(proof, "2 processes")


@bar("margin memory: against the plain way", "less than all logits and the library's cross entropy")
def against_plain(proof: Proof) -> Outcome:
    """Peak growth at 100,000 people."""
    return _row(proof, "against the plain way")


@bar("margin memory: same losses", "to 1e-5, whole, sharded and plain")
def same_losses(proof: Proof) -> Outcome:
    """Losses of all sides from the same centres and faces."""
    return _row(proof, "same losses")
