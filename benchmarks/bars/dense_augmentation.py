"""Augmentation for dense tasks against the same chain in OpenCV."""

from __future__ import annotations

import importlib.util

from benchmarks.bars.speed import benchmark
from benchmarks.registry import Outcome, Proof, bar


def _row(proof: Proof, recipe: str) -> Outcome:
    """Return the verdict of one recipe."""
    if importlib.util.find_spec("cv2") is None:
        return "no OpenCV here (pip install opencv-python-headless)", None
    rows = benchmark(proof, "augmentation")["verdicts"]
    row = next(row for row in rows if row["name"] == f"augmentation, {recipe}")
    return row["measured"], row["holds"]


@bar("dense augmentation: parsing", ">= 0.7 x OpenCV on one core")
def parsing(proof: Proof) -> Outcome:
    """FaRL's parsing recipe, 512 px, from decoded picture to tensors."""
    return _row(proof, "parsing")


@bar("dense augmentation: alignment", ">= 0.7 x OpenCV on one core")
def alignment(proof: Proof) -> Outcome:
    """FaRL's alignment recipe, 512 px, with occlusion and noise."""
    return _row(proof, "alignment")
