"""Labels told by prompts alone: attributes and classes, each beside its baseline with a bootstrap interval."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.functional.bootstrap import bootstrap_counts
from farl_lightning.functional.segmentation import f1_scores
from farl_lightning.functional.zero_shot import attribute_features, attribute_logits, class_features, class_similarity
from farl_lightning.metrics import AttributeScores, ClassificationScores, ZeroShotAttributes
from farl_lightning.models.face_clip import FaceCLIP
from farl_lightning.models.zero_shot import text_encoder
from farl_lightning.tasks.base import MetricReference
from farl_lightning.text import bin_name
from farl_lightning.text.prompts import (
    AGE_LIMITS,
    ATTRIBUTE_PROMPTS,
    CLASS_PROMPTS,
    Prompts,
    attribute_prompts,
    class_prompts,
)
from farl_lightning.types import ATTRIBUTES, FaceSpec

AGE = "age"
"""Label that may be a number of years, told by age groups."""


class Findings(NamedTuple):
    """What an evaluation found.

    Attributes:
        values: Metric values, without the stage's prefix.
        references: What to read them against.
    """

    values: dict[str, Tensor]
    references: dict[str, MetricReference]


class Question(NamedTuple):
    """A label of several classes that prompts can tell.

    Attributes:
        names: Names of the classes.
        prompts: Phrasings of each class.
        limits: Years at which a number is cut into the classes; none for a label that has classes.
    """

    names: tuple[str, ...]
    prompts: list[list[str]]
    limits: tuple[int, ...] = ()

    def truth(self, labels: Tensor) -> Tensor:
        """Return (B,) int64 classes, -1 unknown.

        Args:
            labels: (B,) of the data.
        """
        if not self.limits:
            return labels
        classes = torch.bucketize(labels, torch.tensor(self.limits, device=labels.device).to(labels), right=True)
        return classes.masked_fill(labels.isnan(), -1)


class ZeroShot(nn.Module):
    """Attributes and classes told by prompts, counted once per face under any number of processes.

    Args:
        spec: Which labels the data have.
        names: Attributes and labels to tell; None means all that have prompts and labels, an empty list none.
        own: One's own prompts: by attribute under ``yes`` and ``no``, or by label and class.

    Attributes:
        columns: Label column of every attribute that is told.
        questions: Every label of several classes that is told.
    """

    def __init__(
        self, spec: FaceSpec, names: Sequence[str] | None = None, own: Mapping[str, Prompts] | None = None
    ) -> None:
        super().__init__()
        self.own = own or {}
        found = find_questions(spec, self.own)
        wanted = [*ATTRIBUTE_PROMPTS, *self.own, *found] if names is None else names
        if lacking := sorted(set(names or ()) - set(spec.attributes) - set(found)):
            rank_zero_warn(f"zero-shot leaves out {', '.join(lacking)}: the data has no such labels")
        self.columns = {name: spec.attributes.index(name) for name in wanted if name in spec.attributes}
        self.questions = {name: found[name] for name in dict.fromkeys(wanted) if name in found}
        self.attributes = ZeroShotAttributes(list(self.columns)) if self.columns else None
        self.mean = AttributeScores(list(self.columns)) if self.columns else None
        self.scores = nn.ModuleDict({n: ClassificationScores(len(q.names), q.names) for n, q in self.questions.items()})
        self._features: dict[str, Tensor] = {}

    def update(
        self, clip: FaceCLIP, image_features: Tensor, labels: Tensor | Mapping[str, Tensor], valid: Tensor | None = None
    ) -> Tensor:
        """Add a batch.

        Args:
            clip: The network, whose text tower reads the prompts once per evaluation.
            image_features: (B, E), any length.
            labels: (B, A) attributes, or all labels by column.
            valid: (B,) bool; False marks faces that do not count.

        Returns:
            (B,) share of right answers among those of each face that are known, in percent; nan where none is.
        """
        given = labels if isinstance(labels, Mapping) else {ATTRIBUTES: labels}
        right = [image_features.new_zeros(len(image_features), 0)]
        if self.attributes is not None and self.mean is not None and ATTRIBUTES in given:
            truth = given[ATTRIBUTES][:, list(self.columns.values())]
            logits = attribute_logits(image_features, self._encoded(clip, ATTRIBUTES, self._attribute_features))
            self.attributes.update(logits, truth, valid)
            self.mean.update(logits[..., 1] - logits[..., 0], truth, valid)
            right.append(_right(logits.argmax(-1), truth))
        for name, question in self.questions.items():
            if name not in given:
                continue
            truth = question.truth(given[name])
            features = self._encoded(clip, name, functools.partial(class_features, prompts=question.prompts))
            answers = class_similarity(image_features, features).argmax(1)
            cast(ClassificationScores, self.scores[name]).update(answers, truth, valid)
            right.append(_right(answers, truth)[:, None])
        return 100 * torch.cat([part.to(torch.float32) for part in right], 1).nanmean(1)

    def _attribute_features(self, encode: Callable[[list[str]], Tensor]) -> Tensor:
        return attribute_features(encode, [attribute_prompts(name, self.own) for name in self.columns])

    def _encoded(self, clip: FaceCLIP, name: str, make: Callable[[Callable[[list[str]], Tensor]], Tensor]) -> Tensor:
        """Encode prompts, once per evaluation."""
        if name not in self._features:
            self._features[name] = make(text_encoder(clip))
        return self._features[name]

    def compute(self) -> Findings:
        """Return all values over all processes; every process must call it."""
        found = self._attribute_findings()
        for name, metric in self.scores.items():
            scores = cast(ClassificationScores, metric)
            if scores.update_count:
                values, references = class_findings(f"zero_shot_{name}", scores)
                found.values.update(values)
                found.references.update(references)
        return found

    def reset(self) -> None:
        """Forget all faces, and the prompts' features: other weights need other features."""
        self._features = {}
        for metric in (self.attributes, self.mean, *self.scores.values()):
            if metric is not None:
                cast(ZeroShotAttributes, metric).reset()

    def _attribute_findings(self) -> Findings:
        """Accuracy per attribute beside its more frequent side, and the mean over attributes."""
        if self.attributes is None or self.mean is None or not self.attributes.update_count:
            return Findings({}, {})
        result = self.attributes.compute()
        values, references = dict[str, Tensor](), dict[str, MetricReference]()
        for name in self.columns:
            key = f"zero_shot_{name}"
            values |= {f"{key}{end}": result[f"{name}{end}"] for end in ("", "_majority", "_balanced")}
            numbers = {end: float(result[f"{name}_{end}"]) for end in ("majority", "gain_low", "gain_high")}
            references[key] = _reference(numbers["majority"], numbers["gain_low"], numbers["gain_high"], "majority")
            low, high = (float(result[f"{name}_balanced_{end}"]) - 0.5 for end in ("low", "high"))
            references[f"{key}_balanced"] = _reference(0.5, low, high, "chance")
        values["zero_shot_mean"] = self.mean.compute()["accuracy_mean"].float() / 100
        base = self.mean.baseline
        references["zero_shot_mean"] = _reference(base.value / 100, base.low / 100, base.high / 100, "majority")
        return Findings(values, references)


def find_questions(spec: FaceSpec, own: Mapping[str, Prompts]) -> dict[str, Question]:
    """Return the labels of several classes that have prompts.

    Args:
        spec: Which labels the data have.
        own: One's own prompts by label and class.
    """
    found = {}
    for column, names in spec.label_names.items():
        limits = AGE_LIMITS if column == AGE and not names else ()
        classes = _age_classes(limits) if limits else names
        prompts = class_prompts(column, classes, own)
        if prompts is not None and len(classes) > 1:
            found[column] = Question(tuple(classes), prompts, limits)
    return found


def _age_classes(limits: Sequence[int]) -> tuple[str, ...]:
    """Name the groups that limits cut ages into."""
    return tuple(bin_name(float(year), limits) for year in (-1, *limits))


def class_findings(key: str, scores: ClassificationScores) -> Findings:
    """Return accuracy, balanced accuracy and macro F1 of a label, shares in [0, 1], each beside its baseline.

    Accuracy and F1 stand beside those of always answering the most frequent class, balanced accuracy beside chance.

    Args:
        key: Of the accuracy; the others end in ``_balanced`` and ``_f1``.
        scores: With all faces.
    """
    found = scores.compute()
    base, table = scores.baseline, scores.table
    names = {"accuracy": key, "balanced_accuracy": f"{key}_balanced", "f1_macro": f"{key}_f1"}
    values = {new: found[old].float() / 100 for old, new in names.items()}
    values[f"{key}_majority"] = values[key].new_tensor(base.value / 100)
    draws = bootstrap_counts(table.flatten()).view(-1, *table.shape)
    recall = (draws.diagonal(dim1=1, dim2=2) / draws.sum(2)).nanmean(1)
    f1 = torch.stack([f1_scores(draw).nanmean() for draw in draws])
    majority = torch.zeros_like(table)
    majority[:, int(table.sum(1).argmax())] = table.sum(1)
    chance, trivial = 1 / max(1, int((table.sum(1) > 0).sum())), float(f1_scores(majority).nanmean())
    references = {
        key: _reference(base.value / 100, base.low / 100, base.high / 100, "majority"),
        f"{key}_balanced": _reference(chance, *_ends(recall - chance), "chance"),
        f"{key}_f1": _reference(trivial, *_ends(f1 - trivial), "majority"),
    }
    return Findings(values, references)


def _reference(baseline: float, low: float, high: float, kind: str) -> MetricReference:
    return {"baseline": baseline, "kind": kind, "low": low, "high": high}


def _ends(draws: Tensor) -> tuple[float, float]:
    """Return both ends of the 95 % interval."""
    low, high = draws.nanquantile(torch.tensor([0.025, 0.975], dtype=draws.dtype)).tolist()
    return low, high


def _right(answers: Tensor, truth: Tensor) -> Tensor:
    """Return 1 for right, 0 for wrong, nan where the truth is not known."""
    return (answers == truth).float().masked_fill(truth < 0, torch.nan)


def check_names(names: Sequence[str] | None, own: Mapping[str, Prompts] | None) -> None:
    """Refuse names that no prompts are known for.

    Args:
        names: Attributes and labels.
        own: One's own prompts.

    Raises:
        ConfigError: If there are none, with the nearest match.
    """
    known = [*ATTRIBUTE_PROMPTS, *CLASS_PROMPTS, AGE, *(own or {})]
    for name in names or ():
        if name not in known and not name.startswith(AGE):
            raise ConfigError(f"zero_shot attribute '{name}' has no prompts. {did_you_mean(name, known)}")
