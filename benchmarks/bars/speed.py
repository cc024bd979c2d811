"""The two speed benchmarks, each run once; every bar reads its rows."""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks.registry import Outcome, Proof, bar

_GOALS = {"fp32": ">= 1.25 x the plain way", "bf16": ">= 3.5 x the plain way, where the CPU has bf16"}


def benchmark(proof: Proof, name: str) -> dict[str, Any]:
    """Run ``benchmarks.<name>`` once and return its JSON file."""

    def run() -> dict[str, Any]:
        path = proof.folder / f"{name}.json"
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(path), *(["--short"] * proof.short)]
        proof.run(name, command, timeout=3600).check()
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return result

    return proof.once(name, run)


def _rows(proof: Proof, name: str, start: str) -> Outcome:
    """Join the verdicts of a benchmark whose names begin alike; those without a judgement do not count."""
    rows = [row for row in benchmark(proof, name)["verdicts"] if row["name"].startswith(start)]
    measured = "; ".join(
        f"{row['name'].removeprefix(start).strip(' ,.')}: {row['measured']}".lstrip(": ") for row in rows
    )
    judged = [row["holds"] for row in rows if row["holds"] is not None]
    return measured, all(judged) if judged else None


@bar("speed: same numbers", "loss and gradients of all sides agree")
def same_numbers(proof: Proof) -> Outcome:
    """The compared sides compute the same thing from the same weights."""
    return _rows(proof, "pretrain_step", "same numbers")


@bar("speed a: FaRL step, fp32", _GOALS["fp32"])
def farl_fp32(proof: Proof) -> Outcome:
    """ViT-B/16, 224 px, batch 8."""
    return _rows(proof, "pretrain_step", "a. FaRL step, fp32")


@bar("speed a: FaRL step, bf16", _GOALS["bf16"])
def farl_bf16(proof: Proof) -> Outcome:
    """The same under autocast."""
    return _rows(proof, "pretrain_step", "a. FaRL step, bf16")


@bar("speed b: contrast", ">= 1 x open_clip's step at equal precision")
def contrast(proof: Proof) -> Outcome:
    """Ordinary captions, and captions that fill every text position."""
    return _rows(proof, "pretrain_step", "b. ours")


@bar("speed c: share of the peak", "reported; the limit is 100 % of the measured GEMM peak")
def share_of_peak(proof: Proof) -> Outcome:
    """How much of the machine's matrix-product speed each step reaches."""
    return _rows(proof, "pretrain_step", "c. share of the GEMM peak")


@bar("speed d: stream", ">= 2 x open_clip's pipeline on JPEGs of 800 px and more")
def stream(proof: Proof) -> Outcome:
    """Images per second on one core; 256-px shards are reported beside."""
    return _rows(proof, "data_stream", "d. stream")
