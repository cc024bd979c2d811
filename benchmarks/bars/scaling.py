"""Scaling: processes, contrastive memory, batches that are embedded in parts."""

from __future__ import annotations

from benchmarks.bars.speed import benchmark
from benchmarks.registry import Outcome, Proof, bar


def _rows(proof: Proof, start: str) -> Outcome:
    """Join the verdicts whose names begin alike; those without a judgement do not count."""
    rows = [row for row in benchmark(proof, "scaling")["verdicts"] if row["name"].startswith(start)]
    measured = "; ".join(f"{row['name'].removeprefix(start).strip(' ,.')}: {row['measured']}" for row in rows)
    judged = [row["holds"] for row in rows if row["holds"] is not None]
    return measured, all(judged) if judged else None


@bar("scaling a: weak", ">= 85 % efficiency, 2 processes x 1 thread against 1 x 1, tiny and ViT-S")
def weak(proof: Proof) -> Outcome:
    """Training steps under DDP with the same batch per process."""
    return _rows(proof, "a. weak scaling")


@bar("scaling b: contrastive memory", "grows with b B as computed; below 1 byte per b B with chunk_rows")
def contrastive_memory(proof: Proof) -> Outcome:
    """Peak bytes of tensors on two processes."""
    return _rows(proof, "b.")


@bar("scaling c: accumulate_contrastive", "<= 1.4 x the time for a peak >= 3 x lower at k = 8")
def accumulation(proof: Proof) -> Outcome:
    """Training steps through the Trainer."""
    return _rows(proof, "c.")
