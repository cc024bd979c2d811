"""Face parsing and alignment learn: on drawn faces by their quickstarts, and on real renders where there are any."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.bars.quickstart import fit_as_a_stranger, judged, quickstart
from benchmarks.registry import Outcome, Proof, bar
from benchmarks.renders import OVERFIT_GOAL, SCORES, shared_renders

_SHORT = [
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--data.init_args.train_count=32",
    "--data.init_args.val_count=8",
    "--data.init_args.batch_size=4",
    "--model.init_args.optim.warmup_steps=1",
    "--model.init_args.network.channels=16",
]
_LIMIT = 240.0


class Learning(NamedTuple):
    """What a quickstart left behind: wall seconds, and the ``fit`` section of its results."""

    seconds: float
    fit: dict[str, Any]

    @property
    def faces(self) -> int:
        """Unseen faces it was evaluated on."""
        return int(self.fit["settings"]["data"]["val_count"])

    def value(self, metric: str) -> float:
        """Return a validation metric, in percent."""
        return float(self.fit["metrics"][f"val/{metric}"]["value"])


def learning(proof: Proof, kind: str) -> Learning:
    """Run the quickstart of a task.

    Args:
        proof: Where, and whether the short form runs.
        kind: ``"parsing"`` or ``"alignment"``; its config has the same name.
    """
    return proof.once(kind, lambda: Learning(*fit_as_a_stranger(proof, kind, f"{kind}.yaml", _SHORT)))


@bar("parsing learns", "mean F1 >= 85 % on 128 unseen drawn faces, < 4 min")
def parsing(proof: Proof) -> Outcome:
    """``farl-lightning fit --config parsing.yaml``, judged by its own ``results.json``."""
    run = learning(proof, "parsing")
    score = run.value("f1_mean")
    measured = f"F1 {score:.1f} % of {run.faces} in {run.seconds / 60:.1f} min"
    return judged(proof, measured, score >= 85 and run.faces >= 128 and run.seconds < _LIMIT)


@bar("alignment learns", "NME (inter-ocular) <= 4 % on 128 unseen drawn faces, < 4 min")
def alignment(proof: Proof) -> Outcome:
    """``farl-lightning fit --config alignment.yaml``, judged by its own ``results.json``."""
    run = learning(proof, "alignment")
    error = run.value("nme")
    measured = f"NME {error:.2f} % of {run.faces} in {run.seconds / 60:.1f} min"
    return judged(proof, measured, error <= 4 and run.faces >= 128 and run.seconds < _LIMIT)


_NO_RENDERS = ("no renders here (set FARL_SHARED)", None)


def _real_renders(proof: Proof, name: str, renders: Path, options: list[str]) -> list[dict[str, Any]]:
    """Run the benchmark and return its runs."""
    folder = proof.folder / name
    shutil.rmtree(folder, ignore_errors=True)  # results of an earlier run are not this one's
    command = [sys.executable, "-m", "benchmarks.real_renders", "--renders", str(renders), "--output", str(folder)]
    finished = proof.run(name, [*command, *options, *(["--short"] * proof.short)], timeout=3600)
    results = folder / f"{name}.json"
    if not results.is_file():
        finished.check()
    runs: list[dict[str, Any]] = json.loads(results.read_text(encoding="utf-8"))["runs"]
    return runs


@bar("overfits 8 renders", f"F1 > {OVERFIT_GOAL:.0f} % on the 8 renders that were trained on")
def overfits(proof: Proof) -> Outcome:
    """The loss of parsing, the network and the way back to source pixels, on pictures that nobody here drew."""
    if (renders := shared_renders()) is None:
        return _NO_RENDERS
    (run,) = _real_renders(proof, "overfit", renders, ["--overfit"])
    score = run["metrics"]["f1_mean"]
    return judged(proof, f"F1 {score:.1f} % after {run['seconds'] / 60:.1f} min", score > OVERFIT_GOAL)


@bar("renders: F1 and NME", "measured from random weights and from the quickstart's pretraining")
def renders_measured(proof: Proof) -> Outcome:
    """Trained on four fifths of the renders, tested on the rest; few pictures, so that only the measuring is judged."""
    if (renders := shared_renders()) is None:
        return _NO_RENDERS
    quickstart(proof)
    checkpoint = next((proof.folder / "quickstart").rglob("last.ckpt"))
    runs = _real_renders(proof, "real_renders", renders, ["--pretrained", str(checkpoint)])
    scores: dict[str, list[float]] = {}
    for run in runs:
        scores.setdefault(run["start"], []).append(run["metrics"][SCORES[run["kind"]]])
    measured = "; ".join(f"{start}: " + " / ".join(f"{value:.1f}" for value in pair) for start, pair in scores.items())
    trained = [pair for start, pair in scores.items() if start != "without looking"]
    complete = len(trained) >= 2 and all(len(pair) == 2 and all(map(math.isfinite, pair)) for pair in trained)
    return judged(proof, measured, complete)
