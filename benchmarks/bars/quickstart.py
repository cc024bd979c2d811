"""The quickstart learns: ``farl-lightning fit --config pretrain.yaml``, judged by its own ``results.json``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.registry import Outcome, Proof, bar, program

_SHORT = [
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--data.init_args.train_count=128",
    "--data.init_args.val_count=64",
    "--model.init_args.optim.warmup_steps=1",
]


class Quickstart(NamedTuple):
    """What the run left behind: wall seconds, and the ``fit`` section of its results."""

    seconds: float
    fit: dict[str, Any]

    def metric(self, name: str) -> dict[str, Any]:
        """Return a metric with what stands beside it; its validation name goes without ``val/``."""
        entry: dict[str, Any] = self.fit["metrics"][f"val/{name}"]
        return entry

    @property
    def faces(self) -> int:
        """Unseen faces it was evaluated on."""
        return int(self.fit["settings"]["data"]["val_count"])

    @property
    def vocabulary(self) -> int:
        """Tokens of the codebook that masked patches are guessed from."""
        target = self.fit["settings"]["model"]["objectives"]["masked_image"]["init_args"]["target"]
        return int(target["init_args"]["vocab_size"])


def quickstart(proof: Proof) -> Quickstart:
    """Run it once for all bars of this file."""
    return proof.once("quickstart", lambda: _run(proof))


def _run(proof: Proof) -> Quickstart:
    """Run with ``pretrain.yaml``."""
    return Quickstart(*fit_as_a_stranger(proof, "quickstart", "pretrain.yaml", _SHORT))


def fit_as_a_stranger(proof: Proof, name: str, config: str, short: Sequence[str]) -> tuple[float, dict[str, Any]]:
    """Run ``farl-lightning fit`` in an empty folder, as a stranger would, and read the results.

    Args:
        proof: Where, and whether the short form runs.
        name: Name of the folder and of the log.
        config: Name of a shipped config.
        short: Options of the short form.

    Returns:
        Wall seconds of the command, and the ``fit`` section of ``results.json``.
    """
    folder = proof.folder / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [program("farl-lightning"), "fit", "--config", config, *(short if proof.short else [])]
    finished = proof.run(name, command, cwd=folder).check()
    (results,) = folder.rglob("results.json")
    return finished.seconds, json.loads(results.read_text(encoding="utf-8"))["fit"]


def judged(proof: Proof, measured: str, holds: bool) -> Outcome:
    """Leave a short run unjudged."""
    return (f"{measured} (short form)", None) if proof.short else (measured, holds)


@bar("quickstart: time", "< 5 min after installation")
def time(proof: Proof) -> Outcome:
    """Wall time of the whole command."""
    run = quickstart(proof)
    return judged(proof, f"{run.seconds / 60:.1f} min, {run.fit['steps']} steps", run.seconds < 300)


@bar("quickstart: retrieval", "image-to-text R@1 >= 50 % on 256 unseen faces")
def retrieval(proof: Proof) -> Outcome:
    """Captions found for images that were not trained on."""
    run = quickstart(proof)
    recall = run.metric("image_to_text_r1")
    measured = f"{recall['value']:.1%} of {run.faces} (chance {recall['baseline']:.1%})"
    return judged(proof, measured, recall["value"] >= 0.5 and run.faces >= 256)


@bar("quickstart: masked tokens", ">= 2 x majority token; vocabulary >= 256, majority share <= 15 %")
def masked_tokens(proof: Proof) -> Outcome:
    """Top-1 accuracy of masked patches against always answering the most frequent token."""
    run = quickstart(proof)
    accuracy, majority = run.metric("mim_accuracy")["value"], run.metric("mim_majority")["value"]
    share = max(run.metric("mim_majority_share")["value"], majority)
    measured = f"{accuracy:.1%} against {majority:.1%}; vocabulary {run.vocabulary}, majority share {share:.1%}"
    return judged(proof, measured, accuracy >= 2 * majority and run.vocabulary >= 256 and share <= 0.15)


@bar("quickstart: zero-shot", "3 attributes >= 10 points over majority, 95 % interval above 0")
def zero_shot(proof: Proof) -> Outcome:
    """Attributes told by prompts, against the more frequent side; balanced accuracies and the mean do not count."""
    prefix, metrics = "val/zero_shot_", quickstart(proof).fit["metrics"]
    single = [name for name in metrics if name.startswith(prefix) and not name.endswith(("_balanced", "_mean"))]
    attributes = {name.removeprefix(prefix): metrics[name] for name in single if "low" in metrics[name]}
    good = [name for name, entry in attributes.items() if entry["difference"] >= 0.1 and entry["low"] > 0]
    points = ", ".join(f"{name} {100 * entry['difference']:+.0f}" for name, entry in attributes.items())
    return judged(proof, f"{len(good)} of {len(attributes)}: {points}", len(good) >= 3)
