"""Labels of the whole face and identities are learned on drawn faces, each by its own config."""

from __future__ import annotations

from typing import Any, NamedTuple

from benchmarks.bars.quickstart import fit_as_a_stranger, judged
from benchmarks.registry import Outcome, Proof, bar

_SHORT = [
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--data.init_args.batch_size=16",
    "--model.init_args.optim.warmup_steps=1",
]
_SHORT_FACES = ["--data.init_args.train_count=32", "--data.init_args.val_count=16"]
_SHORT_PEOPLE = ["--data.init_args.train_people=8", "--data.init_args.val_people=12"]
_LIMIT = 300.0
_POINTS = 10.0
_SHARE = 1 / 3
_GOAL = "10 points better than never looking, or a third of its error less; outside the 95 % interval; < 5 min"


class Gain(NamedTuple):
    """A result beside that of an answer that never looks at the picture.

    Attributes:
        value: The result, in percent or years.
        baseline: The other one's.
        low: Lower end of the 95 % interval of the difference.
        high: Upper end.
    """

    value: float
    baseline: float
    low: float
    high: float

    def wins(self, *, percent: bool) -> bool:
        """Whether the result is better by enough.

        Args:
            percent: Whether it is a share in percent, of which more is better; else an error, of which less is.
        """
        if not percent:
            return self.high < 0 and self.value <= (1 - _SHARE) * self.baseline
        far = self.value - self.baseline >= _POINTS
        return self.low > 0 and (far or 100 - self.value <= (1 - _SHARE) * (100 - self.baseline))

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Gain:
        """Read a metric of ``results.json``.

        Args:
            entry: The metric.
        """
        return cls(*(float(entry[name]) for name in ("value", "baseline", "low", "high")))


def _learns(proof: Proof, config: str, metric: str, unit: str) -> Outcome:
    """Run a config as a stranger would, and set its validation metric beside its baseline."""
    seconds, fit = fit_as_a_stranger(proof, config, f"{config}.yaml", [*_SHORT, *_SHORT_FACES])
    gain = Gain.of(fit["metrics"][f"val/{metric}"])
    measured = (
        f"{gain.value:.1f}{unit} against {gain.baseline:.1f}{unit} "
        f"({gain.low:+.1f} .. {gain.high:+.1f}) in {seconds / 60:.1f} min"
    )
    return judged(proof, measured, gain.wins(percent=unit == " %") and seconds < _LIMIT)


@bar("attributes learn", _GOAL)
def attributes(proof: Proof) -> Outcome:
    """Mean accuracy of 40 attributes beside their majorities."""
    return _learns(proof, "attributes", "accuracy_mean", " %")


@bar("expression learns", _GOAL)
def expression(proof: Proof) -> Outcome:
    """Accuracy of seven expressions beside the most frequent one."""
    return _learns(proof, "expression", "accuracy", " %")


@bar("age learns", "a third less error than the median age; outside the 95 % interval; < 5 min")
def age(proof: Proof) -> Outcome:
    """Mean error in years beside that of the median age."""
    return _learns(proof, "age", "mae", " years")


@bar("verification learns", "ten-fold accuracy >= 90 % on pairs of unseen drawn people, < 5 min")
def verification(proof: Proof) -> Outcome:
    """Ten-fold accuracy of pairs of people who were not trained on."""
    seconds, fit = fit_as_a_stranger(proof, "verification", "verification.yaml", [*_SHORT, *_SHORT_PEOPLE])
    accuracy = float(fit["metrics"]["val/accuracy_mean"]["value"])
    return judged(proof, f"{accuracy:.1f} % in {seconds / 60:.1f} min", accuracy >= 90 and seconds < _LIMIT)
