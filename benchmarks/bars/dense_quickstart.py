"""Parsing and alignment learn on drawn faces: ``farl-lightning fit --config parsing.yaml``, and ``alignment.yaml``."""

from __future__ import annotations

import json
import shutil
from typing import Any

from benchmarks.registry import Outcome, Proof, bar, program

_SHORT = [
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--data.train_count=16",
    "--data.val_count=8",
    "--model.optim.warmup_steps=1",
]
SECONDS = 240


def fitted(proof: Proof, name: str) -> tuple[float, dict[str, Any]]:
    """Run one config in an empty folder, once for all bars; return wall seconds and what its results say of the fit."""

    def run() -> tuple[float, dict[str, Any]]:
        folder = proof.folder / f"quickstart_{name}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = [program("farl-lightning"), "fit", "--config", f"{name}.yaml", *(_SHORT if proof.short else [])]
        finished = proof.run(f"quickstart_{name}", command, cwd=folder).check()
        (results,) = folder.rglob("results.json")
        return finished.seconds, json.loads(results.read_text(encoding="utf-8"))["fit"]

    return proof.once(f"quickstart_{name}", run)


def _time(proof: Proof, name: str) -> Outcome:
    seconds, fit = fitted(proof, name)
    return f"{seconds:.0f} s, {fit['steps']} steps", None if proof.short else seconds < SECONDS


def _score(proof: Proof, name: str, metric: str) -> tuple[float, str]:
    _, fit = fitted(proof, name)
    value = float(fit["metrics"][f"val/{metric}"]["value"])
    return value, f"{value:.2f} % on {fit['settings']['data']['val_count']} unseen faces"


@bar("parsing quickstart: time", "< 4 min on 2 cores")
def parsing_time(proof: Proof) -> Outcome:
    """Wall time of the whole command."""
    return _time(proof, "parsing")


@bar("parsing quickstart: F1", "mean foreground F1 >= 85 %, in the pixels of the pictures")
def parsing_f1(proof: Proof) -> Outcome:
    """Mean over the ten foreground classes after the last step."""
    value, measured = _score(proof, "parsing", "f1_mean")
    return measured, None if proof.short else value >= 85


@bar("alignment quickstart: time", "< 4 min on 2 cores")
def alignment_time(proof: Proof) -> Outcome:
    """Wall time of the whole command."""
    return _time(proof, "alignment")


@bar("alignment quickstart: NME", "inter-ocular NME <= 4 %, in the pixels of the pictures")
def alignment_nme(proof: Proof) -> Outcome:
    """68 landmarks, after the last step."""
    value, measured = _score(proof, "alignment", "nme")
    return measured, None if proof.short else value <= 4
