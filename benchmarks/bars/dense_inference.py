"""Dense inference against facer and segmentation_models_pytorch."""

from __future__ import annotations

from benchmarks.bars.speed import benchmark
from benchmarks.registry import Outcome, Proof, bar


def _row(proof: Proof, start: str) -> Outcome:
    """Return one verdict; where the peer is not installed, its section's own."""
    rows = benchmark(proof, "dense_inference")["verdicts"]
    names = (start, f"{start.removeprefix('same numbers: ')[0]}.")
    row = next(row for name in names for row in rows if row["name"] == name)
    return row["measured"], row["holds"]


@bar("dense inference: same features", "those of facer within 0.001")
def same_features(proof: Proof) -> Outcome:
    """All four levels of the pyramid, from the same random weights."""
    return _row(proof, "same numbers: a. features")


@bar("dense inference: same parser", "logits of the peer within 0.001")
def same_parser(proof: Proof) -> Outcome:
    """The logits before they are enlarged, from the same random weights."""
    return _row(proof, "same numbers: b. parser")


@bar("dense inference: features, fp32", ">= 1.1 x facer")
def features_fp32(proof: Proof) -> Outcome:
    """Encoder and pyramid, ViT-B/16, 448 px."""
    return _row(proof, "a. features, fp32")


@bar("dense inference: features, bf16", ">= 3 x facer in fp32, where the CPU has bf16")
def features_bf16(proof: Proof) -> Outcome:
    """The same under autocast."""
    return _row(proof, "a. features, bf16")


@bar("dense inference: parser", ">= 1.2 x segmentation_models_pytorch")
def parser(proof: Proof) -> Outcome:
    """Encoder, pyramid, UPerNet with 768 channels and 19 classes, 448 px."""
    return _row(proof, "b. parser, fp32")
