"""How much a simple learner gets out of features that stay as they are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from farl_lightning.errors import ConfigError, DataError, did_you_mean
from farl_lightning.functional.bootstrap import bootstrap_mean_interval, bootstrap_sign_interval
from farl_lightning.metrics import AgeErrors, AttributeScores, Baseline, ClassificationScores
from farl_lightning.probing.logistic import fit_logistic
from farl_lightning.probing.neighbours import nearest, vote
from farl_lightning.probing.ridge import fit_ridge
from farl_lightning.probing.sgd import fit_sgd
from farl_lightning.probing.spectrum import spectrum
from farl_lightning.probing.table import FeatureTable
from farl_lightning.probing.targets import METRICS, Target, draw, read_targets

Method = Literal["linear", "sgd", "ridge", "knn"]

METHODS: tuple[str, ...] = get_args(Method)

NEIGHBOURS = 20
"""Training faces that answer for each test face in k-NN, as in DINO (arXiv:2104.14294)."""


@dataclasses.dataclass(frozen=True)
class ProbeResult:
    """What one probe found.

    Attributes:
        column: What was learned.
        method: How.
        feature: From which features.
        metric: ``"accuracy"`` or ``"accuracy_mean"`` in percent, or ``"mae"`` in the column's unit.
        value: The metric over all test faces with a label.
        low: Lower end of its bootstrap 95 % interval over test faces.
        high: Upper end.
        baseline: The metric of the answer that needs no picture: the most frequent class of the test faces (for each
            attribute), or their median.
        gain_low: Lower end of the bootstrap 95 % interval of ``value - baseline``, paired by face.
        gain_high: Upper end.
        n_train: Number of faces that were learned from.
        n_test: Number of faces that were judged.
        budget: As it was given.
        seed: Seed of the draw.
        setting: What was chosen on the training faces: the penalty, or the number of neighbours.
        scores: Further results by name, ``metric`` among them.
        outcomes: (N,) float64, one per row of the test table, nan without a label: what the face adds to ``value``,
            which is their mean: 100 for right and 0 for wrong, the absolute error, or the share of attributes that are
            right (those known of fewer faces weigh more).
    """

    column: str
    method: str
    feature: str
    metric: str
    value: float
    low: float
    high: float
    baseline: float
    gain_low: float
    gain_high: float
    n_train: int
    n_test: int
    budget: int | float | None
    seed: int
    setting: float
    scores: dict[str, float]
    outcomes: npt.NDArray[np.float64] = dataclasses.field(repr=False, compare=False)

    def row(self) -> dict[str, Any]:
        """Return the result as plain data, without the outcomes and further scores."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in plain.items() if name not in ("outcomes", "scores")}


def run_probe(
    train: FeatureTable,
    test: FeatureTable,
    column: str,
    method: Method = "linear",
    budget: int | float | None = None,
    seed: int = 0,
    features: str | Sequence[str] | None = None,
    *,
    neighbours: int = NEIGHBOURS,
    device: str | torch.device = "cpu",
) -> ProbeResult:
    """Learn a column from features of some faces, and judge the answers on others.

    Args:
        train: Faces that are learned from.
        test: Faces that are judged.
        column: A label, ``"attributes"`` (all of them at once), the name of one attribute, or a group.
        method: ``"linear"`` (logistic regression by L-BFGS, its penalty chosen on a fifth of the training faces;
            for numbers the same as ridge), ``"ridge"`` (least squares in closed form, its penalty chosen by leaving
            out one face at a time), ``"sgd"`` (logistic regression, or least squares, by stochastic gradient descent)
            or ``"knn"`` (neighbours by cosine, weighted as in DINO).
        budget: Training faces per class (int; altogether where there are no classes), or a share of all (float);
            None takes all. A larger budget holds the faces of a smaller one of the same seed.
        seed: Which faces the budget draws, which are held out for penalties, and the order of SGD.
        features: Name of the features, or several names; None takes ``"feature"`` if it is there, else the last.
        neighbours: Number of neighbours of ``"knn"``.
        device: Where it is computed.

    Raises:
        ConfigError: If the method, a column, a feature or the budget means nothing.
        DataError: If no training or no test face has a label, or a feature is not finite.
    """
    if method not in METHODS:
        raise ConfigError(f"probe method '{method}' is unknown. {did_you_mean(method, METHODS)}")
    if neighbours < 1:
        raise ConfigError(f"neighbours is {neighbours}; it has to be at least 1")
    device = torch.device(device)
    ours, theirs = (target.to(device) for target in read_targets(train, test, column))
    rows = draw(ours, budget, seed)
    known = theirs.known
    if not known.any():
        raise DataError(f"no test face has a label '{column}'")
    x, z = (_checked(table.matrix(features), device) for table in (train, test))
    if x.shape[1] != z.shape[1]:
        raise ConfigError(f"training faces have {x.shape[1]} features, test faces {z.shape[1]}; embed both alike")
    answers, setting = predict(x[rows], ours.take(rows), z[known], method, seed, neighbours)
    judged = judge(answers, theirs.take(known))
    outcomes = torch.full((len(test),), math.nan, dtype=torch.float64)
    outcomes[known.cpu()] = judged.outcomes
    name = features if isinstance(features, str) else "+".join(features or [train.default_feature])
    return ProbeResult(
        column=column,
        method=method,
        feature=name,
        metric=METRICS[ours.kind],
        value=judged.scores[METRICS[ours.kind]],
        low=judged.low,
        high=judged.high,
        baseline=judged.baseline.value,
        gain_low=judged.baseline.low,
        gain_high=judged.baseline.high,
        n_train=len(rows),
        n_test=int(known.sum()),
        budget=budget,
        seed=seed,
        setting=setting,
        scores=judged.scores,
        outcomes=outcomes.numpy(),
    )


def predict(
    train: Tensor, target: Target, test: Tensor, method: str = "linear", seed: int = 0, neighbours: int = NEIGHBOURS
) -> tuple[Tensor, float]:
    """Learn from features, and answer for other faces.

    Args:
        train: (n, D) float32 or float64.
        target: What is known of them; all n faces have a label.
        test: (m, D).
        method: See :func:`run_probe`.
        seed: See :func:`run_probe`.
        neighbours: See :func:`run_probe`.

    Returns:
        (m, C) scores of classes, (m, A) logits of attributes (above 0 means yes) or (m,) numbers; and the penalty, the
        number of neighbours or, for SGD, the number of passes.
    """
    if method == "knn":
        return _predict_knn(train, target, test, neighbours)
    directions = spectrum(train)
    shift, unit = torch.zeros((), device=train.device), torch.ones((), device=train.device)
    labels = target.values
    if target.kind == "number":
        labels = labels.to(train.dtype)
        shift, unit = labels.mean(), labels.std(correction=0).clamp(min=1e-12)
        labels = (labels - shift) / unit
    rotated = directions.rotate(test)
    if method == "sgd":
        weights, bias, setting = fit_sgd(directions, labels, target.outputs, target.kind, seed=seed)
    elif method == "linear" and target.kind != "number":
        weights, bias, setting = fit_logistic(directions, labels, target.outputs, target.kind, seed)
    else:
        weights, bias, setting = fit_ridge(directions, *_regressed(target, labels, train.dtype))
    outputs = torch.addmm(bias, rotated, weights)
    return (outputs[:, 0] * unit + shift if target.kind == "number" else outputs), setting


def _regressed(target: Target, labels: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Return what least squares fits: one column per class (1 or 0), attribute (1 or -1), or number."""
    if target.kind == "number":
        return labels[:, None], None
    if target.kind == "class":
        return F.one_hot(labels, target.outputs).to(dtype), None
    return (2 * labels - 1).to(dtype), labels >= 0


def _predict_knn(train: Tensor, target: Target, test: Tensor, neighbours: int) -> tuple[Tensor, float]:
    """Answer by the nearest training faces."""
    cosines, rows = nearest(train, test, neighbours)
    said = target.values[rows]
    if target.kind == "number":
        return vote(cosines, said.to(cosines.dtype).unsqueeze(-1))[:, 0], rows.shape[1]
    if target.kind == "class":
        return vote(cosines, F.one_hot(said, target.outputs).to(cosines.dtype)), rows.shape[1]
    return vote(cosines, (2 * said - 1).to(cosines.dtype), said >= 0), rows.shape[1]


@dataclasses.dataclass(frozen=True)
class Judged:
    """Answers beside the truth.

    Attributes:
        scores: Results by name, the column's metric among them.
        low: Lower end of the bootstrap 95 % interval of the metric.
        high: Upper end.
        outcomes: (m,) float64 what each face adds to the metric, which is their mean.
        baseline: The answer that needs no picture.
    """

    scores: dict[str, float]
    low: float
    high: float
    outcomes: Tensor
    baseline: Baseline


def judge(answers: Tensor, target: Target) -> Judged:
    """Compare answers with labels.

    Args:
        answers: (m, C) scores of classes, (m, A) logits of attributes, or (m,) numbers, as :func:`predict` gives them.
        target: The labels of the same faces; all have one.
    """
    answers, labels = answers.cpu(), target.values.cpu()
    metric = _metric(target)
    metric.update(answers, labels)
    wanted = ("accuracy", "balanced_accuracy", "f1_macro", "accuracy_mean", "balanced_mean", "mae")
    scores = {name: float(value) for name, value in metric.compute().items() if name in wanted}
    outcomes = _outcomes(answers, labels, target.kind)
    if target.kind == "class":
        right = (outcomes > 0).sum()[None]
        low, high = (100 * float(end) for end in bootstrap_sign_interval(right, 0 * right, 0 * right + len(outcomes)))
    else:
        low, high = bootstrap_mean_interval(outcomes)
    return Judged(scores, low, high, outcomes, metric.baseline)


def _metric(target: Target) -> Any:
    """Return what judges a column, of the faces of this process alone."""
    if target.kind == "class":
        return ClassificationScores(target.outputs, target.names, sync_on_compute=False)
    if target.kind == "attributes":
        return AttributeScores(target.names, sync_on_compute=False)
    return AgeErrors(sync_on_compute=False)


def _outcomes(answers: Tensor, labels: Tensor, kind: str) -> Tensor:
    """Return what each face adds to the metric, (m,) float64."""
    if kind == "class":
        return 100.0 * (answers.argmax(1) == labels).double()
    if kind == "number":
        return (answers.double() - labels.double()).abs()
    known = labels >= 0
    counts = known.sum(0)
    share = torch.where(counts > 0, len(labels) / counts.clamp(min=1), 0.0) / (counts > 0).sum()
    return 100 * ((((answers > 0) == (labels > 0)) & known).double() * share.double()).sum(1)


def _checked(features: npt.NDArray[np.float32], device: torch.device) -> Tensor:
    """Return features as a tensor; refuse what is not finite."""
    tensor = torch.from_numpy(np.ascontiguousarray(features)).to(device)
    if bad := int((~tensor.isfinite().all(1)).sum()):
        raise DataError(f"{bad} of {len(tensor)} faces have features that are not finite; embed them anew")
    return tensor
