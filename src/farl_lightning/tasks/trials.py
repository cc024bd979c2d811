"""Embeddings judged by trials: pairs (is it the same person?) and galleries (who is it?), several of them at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from farl_lightning.functional.verification import Roc
from farl_lightning.metrics import Baseline
from farl_lightning.metrics.verification import EmbeddedPictures, Identification, Pairs, VerificationScores


class Trial(Protocol):
    """Pictures that embeddings are judged by; see :class:`~farl_lightning.datamodules.people.Trial`."""

    @property
    def pairs(self) -> Pairs | None:
        """Pairs of rows, or None."""

    @property
    def identities(self) -> Any:
        """Who each row shows, an array of (N,) integers, or None."""

    @property
    def rows(self) -> Mapping[str, int]:
        """Row of every picture by its key."""


class TrialFindings(NamedTuple):
    """What became of all trials.

    Attributes:
        values: Results, such as ``accuracy_lfw``, ``rank1_tinyface`` and their means over trials ``accuracy_mean`` and
            ``rank1_mean``; ``accuracy_mean`` is always there, nan where nothing was judged.
        baselines: Results without any knowledge, for some of these. The interval of a mean over several trials is the
            mean of theirs, which is wider than need be.
        tables: ``per_fold`` and ``per_rank``, as far as there are any.
        curves: Receiver operating characteristic of each list of pairs.
        notes: Lines that say which results are left out, and why.
    """

    values: dict[str, Tensor]
    baselines: dict[str, Baseline]
    tables: dict[str, list[dict[str, Any]]]
    curves: dict[str, Roc]
    notes: list[str]


class JudgedPairs(NamedTuple):
    """What became of each pair of one list.

    Attributes:
        name: The list's name.
        loader: Number of the loader of its pictures.
        keys: Both pictures of each of P pairs.
        outcomes: (P,) float64, 100 for a pair that is judged rightly, 0 for another, nan for one that does not count.
    """

    name: str
    loader: int
    keys: list[tuple[str, str]]
    outcomes: Tensor


class TrialScores:
    """The metrics of several trials.

    Args:
        trials: By name, in the order of their loaders.
        fars: False accept rates at which the true accept rate is measured.
        ranks: Numbers of answers that are looked at in a gallery.
        device: Where processes meet.
    """

    def __init__(
        self,
        trials: Mapping[str, Trial],
        fars: Sequence[float] = (1e-2, 1e-3, 1e-4),
        ranks: Sequence[int] = (1, 5, 10),
        device: torch.device | str = "cpu",
    ) -> None:
        self.names = list(trials)
        self.first_rank = f"rank{min(ranks)}"
        self.pairs = {
            name: VerificationScores(trial.pairs, trial.rows, fars=fars).to(device)
            for name, trial in trials.items()
            if trial.pairs is not None
        }
        self.galleries = {
            name: Identification(trial.identities, trial.rows, ks=ranks).to(device)
            for name, trial in trials.items()
            if trial.identities is not None
        }

    def update(self, trial: int, keys: Sequence[str], embeddings: Tensor, valid: Tensor) -> None:
        """Add a batch of one trial.

        Args:
            trial: Its number, that of its loader.
            keys: Names of the B pictures.
            embeddings: (B, E), any length.
            valid: (B,) bool, which pictures count.
        """
        metrics: Iterable[Mapping[str, EmbeddedPictures]] = (self.pairs, self.galleries)
        for metric in metrics:
            if self.names[trial] in metric:
                metric[self.names[trial]].update(keys, embeddings, valid)

    def compute(self) -> TrialFindings:
        """Judge all trials, over all processes; every process has to call it."""
        found = TrialFindings({}, {}, {}, {}, [])
        for name, pairs in self.pairs.items():
            _add(found, name, pairs, "accuracy", "per_fold")
            found.notes.extend(f"{key}_{name} is left out: {reason}" for key, reason in pairs.reasons.items())
            if pairs.curve is not None:
                found.curves[name] = pairs.curve
        for name, gallery in self.galleries.items():
            _add(found, name, gallery, self.first_rank, "per_rank")
        _add_mean(found, "accuracy", self.pairs)
        if self.galleries:
            _add_mean(found, self.first_rank, self.galleries)
        return found

    def judged_pairs(self) -> list[JudgedPairs]:
        """Judge each pair of all lists, over all processes; every process has to call it."""
        found = []
        for name, pairs in self.pairs.items():
            pairs.compute()
            key_of = {row: key for key, row in pairs.row_of.items()}
            rows = zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
            keys = [(key_of.get(first, ""), key_of.get(second, "")) for first, second in rows]
            found.append(JudgedPairs(name, self.names.index(name), keys, 100 * pairs.right))
        return found


def _add(
    found: TrialFindings, name: str, metric: VerificationScores | Identification, judged_by: str, table: str
) -> None:
    """Compute one metric of one trial."""
    found.values.update({f"{key}_{name}": value for key, value in metric.compute().items()})
    found.tables.setdefault(table, []).extend({"trial": name, **row} for row in metric.rows)
    if f"{judged_by}_{name}" in found.values:
        found.baselines[f"{judged_by}_{name}"] = metric.baseline


def _add_mean(found: TrialFindings, key: str, names: Iterable[str]) -> None:
    """Average a result and its baseline over the trials that have it."""
    keys = [f"{key}_{name}" for name in names if f"{key}_{name}" in found.values]
    values = [float(found.values[name]) for name in keys]
    known = [name for name, value in zip(keys, values, strict=True) if not math.isnan(value)]
    found.values[f"{key}_mean"] = torch.tensor(_mean([float(found.values[name]) for name in known]))
    baselines = [found.baselines[name] for name in known]
    if baselines:
        value, low, high = (_mean([float(baseline[part]) for baseline in baselines]) for part in range(3))
        found.baselines[f"{key}_mean"] = Baseline(value, low, high, baselines[0].kind)


def _mean(values: list[float]) -> float:
    """Average numbers; nan for none."""
    return sum(values) / len(values) if values else math.nan
