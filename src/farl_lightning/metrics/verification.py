"""Verification of pairs and identification in a gallery, from one embedding per picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.functional import verification
from farl_lightning.functional.bootstrap import bootstrap_mean_interval, bootstrap_sign_interval
from farl_lightning.metrics.gains import Baseline

_MAX_ROWS = 1 << 24  # numbers of rows travel beside float32 embeddings, which hold them exactly up to here


class Pairs(Protocol):
    """Pairs of rows, as :class:`~farl_lightning.datasets.pairs.PairList` has them: arrays or tensors of P entries."""

    @property
    def first(self) -> Any:
        """Rows."""

    @property
    def second(self) -> Any:
        """Rows."""

    @property
    def same(self) -> Any:
        """Whether both show the same person."""

    @property
    def folds(self) -> Any:
        """Numbers of the folds."""


class EmbeddedPictures(Metric):
    """Base: keeps one embedding per picture, of all processes; what it keeps is bounded by the number of pictures.

    Results are computed from embeddings in the order of rows, so they are the same to the last bit however pictures
    are spread over processes and batches. A picture that comes twice counts once.

    Args:
        rows: Row of every picture by its key.
        **kwargs: For ``torchmetrics.Metric``.

    Attributes:
        rows: One row per part of the last result, for tables.

    Raises:
        ConfigError: If there are no pictures, or more than 2^24.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    embedded: list[Tensor]
    width: Tensor

    def __init__(self, rows: Mapping[str, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < len(rows) <= _MAX_ROWS:
            raise ConfigError(f"{len(rows)} pictures cannot be compared; give from 1 to {_MAX_ROWS}")
        self.row_of = dict(rows)
        self.rows: list[dict[str, Any]] = []
        self._seen: set[int] = set()
        self.add_state("embedded", [], dist_reduce_fx="cat")  # flat: lengths may differ between processes, not widths
        self.add_state("width", torch.zeros((), dtype=torch.int64), dist_reduce_fx="max")

    def update(self, keys: Sequence[str], embeddings: Tensor, valid: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            keys: Names of the B pictures.
            embeddings: (B, E), any length.
            valid: (B,) bool; False marks repeats and skipped samples that must not count. All count by default.

        Raises:
            ConfigError: If sizes differ, or a picture is not among the rows.
        """
        if embeddings.ndim != 2 or len(keys) != len(embeddings):
            raise ConfigError(f"{len(keys)} keys and embeddings {tuple(embeddings.shape)} must be B and (B, E)")
        counted = [True] * len(keys) if valid is None else valid.tolist()
        new = {self._row(key): place for place, key in enumerate(keys) if counted[place]}
        new = {row: place for row, place in new.items() if row not in self._seen}
        if not new:
            return
        self._seen.update(new)
        values = embeddings.detach()[list(new.values())].float()
        number = torch.tensor(list(new), dtype=torch.float32, device=values.device)
        self.embedded.append(torch.cat([number[:, None], values], 1).flatten())
        self.width.fill_(1 + values.shape[1])

    def _row(self, key: str) -> int:
        """Return the row of a picture."""
        if key not in self.row_of:
            raise ConfigError(f"the picture '{key}' is in none of the pairs. {did_you_mean(key, self.row_of)}".strip())
        return self.row_of[key]

    def reset(self) -> None:
        """Forget all pictures."""
        super().reset()
        self._seen = set()

    def collected(self) -> tuple[Tensor, Tensor]:
        """Return what is known, on the CPU.

        Returns:
            (N, E) float32 embeddings in the order of rows, and (M,) int64: for each row its place among them, -1 where
            the picture never came. Inside :meth:`compute` those of all processes; outside, those of this one.
        """
        flat = dim_zero_cat(self.embedded) if len(self.embedded) else torch.zeros(0)
        table = flat.cpu().view(-1, max(1, int(self.width)))
        number = table[:, 0].long()
        order = number.argsort(stable=True)
        first = torch.ones_like(number, dtype=torch.bool)
        first[1:] = number[order][1:] != number[order][:-1]
        kept = order[first]
        place = torch.full((1 + max(self.row_of.values()),), -1)
        place[number[kept]] = torch.arange(len(kept))
        return table[kept, 1:], place


class VerificationScores(EmbeddedPictures):
    """Accuracy of verification after LFW's protocol, ROC, EER and TAR at FAR, of one list of pairs; all in percent.

    A threshold is chosen on all folds but one and judged on that one, by turns. Pairs of which a picture could not be
    read do not count; they are counted in ``missing_pairs``.

    Args:
        pairs: The pairs; folds are the list's.
        rows: Row of every picture by its key.
        fars: False accept rates at which the true accept rate is measured.
        **kwargs: For ``torchmetrics.Metric``.

    Attributes:
        baseline: The accuracy of always giving the more frequent answer, and the interval of the difference over
            pairs, as of the last :meth:`compute`, as all that follow.
        rows: One row per fold.
        reasons: Why a result is left out, by its name.
        curve: The receiver operating characteristic.
        scores: (P,) float64 cosines; nan for a pair that does not count.
        right: (P,) float64, 1 where a pair is judged rightly, 0 where not, nan where it does not count.

    Raises:
        ConfigError: If the pairs do not fit together or to the rows, or a rate is out of range.

    Example:
        >>> pairs = PairList(*np.array([[0, 2, 0, 1], [1, 3, 2, 3], [1, 1, 0, 0], [0, 1, 0, 1]]))
        >>> metric = VerificationScores(pairs, {"a1": 0, "a2": 1, "b1": 2, "b2": 3})
        >>> metric.update(["a1", "a2", "b1", "b2"], torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]))
        >>> metric.compute()["accuracy"].item()
        100.0
    """

    def __init__(
        self, pairs: Pairs, rows: Mapping[str, int], *, fars: Sequence[float] = (1e-2, 1e-3, 1e-4), **kwargs: Any
    ) -> None:
        super().__init__(rows, **kwargs)
        if bad := [far for far in fars if not 0 < far < 1]:
            raise ConfigError(f"false accept rates {bad} cannot be asked for; they must be above 0 and below 1")
        self.fars = tuple(dict.fromkeys(fars))
        self.first, self.second, self.folds = (
            torch.as_tensor(column, dtype=torch.int64) for column in (pairs.first, pairs.second, pairs.folds)
        )
        self.same = torch.as_tensor(pairs.same, dtype=torch.bool)
        self._check(max(rows.values()))
        self.reasons: dict[str, str] = {}
        self.baseline = Baseline(float("nan"), float("nan"), float("nan"), "majority")
        self.curve: verification.Roc | None = None
        self.scores = torch.full((len(self.same),), torch.nan, dtype=torch.float64)
        self.right = self.scores.clone()

    def _check(self, last: int) -> None:
        """Refuse pairs that do not fit."""
        sizes = {len(column) for column in (self.first, self.second, self.same, self.folds)}
        if len(sizes) > 1 or sizes == {0}:
            raise ConfigError(
                f"pairs must have one entry of each column for every pair; their sizes are {sorted(sizes)}"
            )
        named = torch.cat([self.first, self.second])
        if int(named.min()) < 0 or int(named.max()) > last:
            raise ConfigError(
                f"pairs name rows from {int(named.min())} to {int(named.max())}, the pictures have 0 to {last}"
            )

    def compute(self) -> dict[str, Tensor]:
        """Return scores, float64.

        Returns:
            In percent ``accuracy`` (mean over folds), ``accuracy_std`` (standard deviation over folds), ``auc``,
            ``eer`` and ``tar_far_<rate>`` such as ``tar_far_1e-3`` where there are pairs enough (else see
            ``reasons``); ``threshold`` (cosine; mean over folds, those that accept all or nothing left out);
            ``missing_pairs`` (how many).
        """
        features, place = self.collected()
        first, second = place[self.first], place[self.second]
        counted = (first >= 0) & (second >= 0)
        self.scores = torch.full_like(self.scores, torch.nan)
        self.scores[counted] = verification.pair_scores(features, first[counted], second[counted])
        self.reasons = {}
        found = self._accuracy(counted) | self._curve(counted)
        found["missing_pairs"] = float((~counted).sum())
        device = self.width.device
        return {name: torch.tensor(value, dtype=_widest(device), device=device) for name, value in found.items()}

    def _accuracy(self, counted: Tensor) -> dict[str, float]:
        """Judge with thresholds of other folds."""
        same, folds = self.same[counted], self.folds[counted]
        self.right, self.rows = torch.full_like(self.scores, torch.nan), []
        self.baseline = Baseline(float("nan"), float("nan"), float("nan"), "majority")
        if len(torch.unique(folds)) < 2:
            self.reasons["accuracy"] = f"{len(same)} pairs lie in fewer than two folds"
            return {}
        judged = verification.fold_accuracy(self.scores[counted], same, folds)
        self.right[counted] = judged.right.double()
        self.baseline = _majority(judged.right, same)
        self.rows = [
            {"fold": int(fold) + 1, "accuracy": 100 * float(accuracy), "threshold": float(threshold)}
            | {"pairs": int((folds == fold).sum())}
            for fold, accuracy, threshold in zip(judged.folds, judged.accuracies, judged.thresholds, strict=True)
        ]
        found = {
            "accuracy": 100 * float(judged.accuracies.mean()),
            "accuracy_std": 100 * float(judged.accuracies.std(correction=0)),
        }
        finite = judged.thresholds[judged.thresholds.isfinite()]
        return found | ({"threshold": float(finite.mean())} if len(finite) else {})

    def _curve(self, counted: Tensor) -> dict[str, float]:
        """Read scores off the curve of all pairs."""
        same = self.same[counted]
        self.curve = verification.roc_curve(self.scores[counted], same)
        genuine, impostors = int(same.sum()), int((~same).sum())
        if not genuine or not impostors:
            self.reasons["auc"] = self.reasons["eer"] = f"{genuine} pairs of one person, {impostors} of two"
            return {}
        found = {
            "auc": 100 * verification.area_under(self.curve),
            "eer": 100 * verification.equal_error_rate(self.curve),
        }
        for far in self.fars:
            name, point = f"tar_far_{_rate(far)}", verification.tar_at_far(self.curve, far, impostors)
            if point.value is None:
                self.reasons[name] = point.reason
            else:
                found[name] = 100 * point.value
        return found


class Identification(EmbeddedPictures):
    """Who is it? Share of probes, in percent, of whom a right picture is among the k nearest of a gallery.

    Closed-set: probes of people without a picture in the gallery are no question; they are counted. Ties count against
    the model.

    Args:
        identities: Number of the person in each row, M entries; -1 unknown: neither gallery nor probe.
        rows: Row of every picture by its key.
        gallery: Rows that are known; all others are probes. None takes the first picture of each person.
        ks: The numbers of answers looked at.
        **kwargs: For ``torchmetrics.Metric``.

    Attributes:
        baseline: What a random order is expected to reach at the smallest k, and the interval of the difference over
            probes, as of the last :meth:`compute`, as all that follow.
        rows: One row per k.
        ranks: (M,) int64, 1 is best; 0 for what is no probe, or has no answer.

    Raises:
        ConfigError: If sizes do not fit, or ``ks`` is empty or holds a number below 1.
    """

    def __init__(
        self,
        identities: Sequence[int],
        rows: Mapping[str, int],
        gallery: Sequence[int] | None = None,
        *,
        ks: Sequence[int] = (1, 5, 10),
        **kwargs: Any,
    ) -> None:
        super().__init__(rows, **kwargs)
        self.identities = torch.as_tensor(identities, dtype=torch.int64)
        if self.identities.shape != (1 + max(rows.values()),):
            raise ConfigError(
                f"{len(self.identities)} identities for pictures 0 to {max(rows.values())}; give one each"
            )
        if not ks or min(ks) < 1:
            raise ConfigError(f"ks={list(ks)} must name one or more numbers from 1 up")
        self.ks = tuple(sorted(set(ks)))
        self.gallery = _first_of_each(self.identities) if gallery is None else torch.as_tensor(gallery).long()
        if not len(self.gallery) or not 0 <= int(self.gallery.min()) <= int(self.gallery.max()) < len(self.identities):
            raise ConfigError(f"the gallery's rows must be some of the pictures 0 to {len(self.identities) - 1}")
        self.baseline = Baseline(float("nan"), float("nan"), float("nan"), "chance")
        self.ranks = torch.zeros_like(self.identities)

    def compute(self) -> dict[str, Tensor]:
        """Return shares, float64.

        Returns:
            ``rank<k>`` in percent for each k, nan without a probe; ``unmated_probes`` (of whom the gallery has no
            picture) and ``missing_pictures``, how many.
        """
        features, place = self.collected()
        known = (place >= 0) & (self.identities >= 0)
        in_gallery = torch.zeros_like(known)
        in_gallery[self.gallery] = True
        gallery, probes = (torch.nonzero(known & side)[:, 0] for side in (in_gallery, ~in_gallery))
        people, owners = self.identities[probes], self.identities[gallery]
        ranks = verification.identification_ranks(features[place[probes]], features[place[gallery]], people, owners)
        self.ranks = torch.zeros_like(self.identities)
        self.ranks[probes] = ranks
        asked = ranks > 0
        shares = {k: 100 * float((ranks[asked] <= k).double().mean()) for k in self.ks}
        self.baseline = _by_chance(ranks[asked], people[asked], owners, self.ks[0])
        self.rows = [{"k": k, "accuracy": share, "probes": int(asked.sum())} for k, share in shares.items()]
        found = {f"rank{k}": share for k, share in shares.items()}
        found |= {"unmated_probes": float((~asked).sum()), "missing_pictures": float((place < 0).sum())}
        device = self.width.device
        return {name: torch.tensor(value, dtype=_widest(device), device=device) for name, value in found.items()}


def _majority(right: Tensor, same: Tensor) -> Baseline:
    """Give the more frequent answer to every pair, and compare pair by pair."""
    trivial = same == bool(same.double().mean() >= 0.5)
    wins, losses = (x.sum().double().reshape(1) for x in (right & ~trivial, trivial & ~right))
    low, high = bootstrap_sign_interval(wins, losses, torch.tensor([float(len(same))]))
    return Baseline(100 * float(trivial.double().mean()), 100 * float(low), 100 * float(high), "majority")


def _by_chance(ranks: Tensor, people: Tensor, owners: Tensor, k: int) -> Baseline:
    """Order the gallery at random, and compare probe by probe.

    Args:
        ranks: (P,) of probes that have an answer.
        people: (P,) whom they show.
        owners: (G,) whom the gallery shows.
        k: The number of answers looked at.
    """
    names, counts = torch.unique(owners, return_counts=True)
    right = counts[torch.searchsorted(names, people)].double() if len(people) else people.double()
    missed = torch.ones_like(right)
    for place in range(min(k, len(owners))):  # drawn without being put back
        missed = missed * (len(owners) - right - place).clamp(min=0) / (len(owners) - place)
    low, high = bootstrap_mean_interval(100 * ((ranks <= k).double() - (1 - missed)))
    return Baseline(100 * float((1 - missed).mean()), low, high, "chance")


def _first_of_each(identities: Tensor) -> Tensor:
    """Return the first row of each person."""
    known = torch.nonzero(identities >= 0)[:, 0]
    seen: dict[int, int] = {}
    for row, person in zip(known.tolist(), identities[known].tolist(), strict=True):
        seen.setdefault(person, row)
    return torch.tensor(sorted(seen.values()), dtype=torch.int64)


def _rate(far: float) -> str:
    """Write a rate as in ``1e-3``; 0.01 as ``1e-2``."""
    digits, _, power = f"{far:.10e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


def _widest(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on a device without it."""
    return torch.float32 if device.type == "mps" else torch.float64
