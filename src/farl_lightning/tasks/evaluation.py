"""What pretraining is worth: retrieval, masked tokens and zero-shot labels, each beside its baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from farl_lightning.functional.distributed import all_gather_cat
from farl_lightning.metrics import MaskedTokenAccuracy, RetrievalRecall
from farl_lightning.models.face_clip import FaceCLIP
from farl_lightning.objectives import MaskedImage, PretrainModel, PretrainResult
from farl_lightning.objectives.accumulate import take_rows
from farl_lightning.tasks.base import MetricReference
from farl_lightning.tasks.zero_shot import Findings, ZeroShot
from farl_lightning.text import Tokenizer
from farl_lightning.text.prompts import Prompts
from farl_lightning.types import FaceSpec, PretrainBatch


class PretrainEvaluation(nn.Module):
    """Metrics of pretraining, counted once per sample under any number of processes.

    Args:
        model: The model that is evaluated; only its make-up is read.
        spec: Which labels the data have.
        zero_shot: Attributes and labels to recognise by prompts; None means all that have prompts and labels.
        prompts: One's own prompts, see :class:`~farl_lightning.tasks.zero_shot.ZeroShot`.

    Attributes:
        uses_features: Whether image features are read.
        zero_shot: What tells labels by prompts, or None.
        outcomes: (B,) share of right zero-shot answers for each face of the last batch, in percent, or None.
    """

    anchor: Tensor

    def __init__(
        self,
        model: PretrainModel,
        spec: FaceSpec | None = None,
        zero_shot: Sequence[str] | None = None,
        prompts: Mapping[str, Prompts] | None = None,
    ) -> None:
        super().__init__()
        self.uses_features = "text" in model.needs
        self.retrieval: RetrievalRecall | None = None
        if self.uses_features:
            # features of a long validation set would fill a GPU: they wait on the CPU, and meet on the device
            self.retrieval = RetrievalRecall(compute_on_cpu=True, dist_sync_fn=self._gather)
        discrete = {name: objective.target for name, objective in masked_image_objectives(model).items()}
        discrete = {name: target for name, target in discrete.items() if target.is_discrete}
        self.masked_tokens = nn.ModuleDict({n: MaskedTokenAccuracy(t.out_features) for n, t in discrete.items()})
        self.zero_shot = self._zero_shot(model.clip, spec or FaceSpec(), zero_shot, prompts)
        self.outcomes: Tensor | None = None
        self.register_buffer("anchor", torch.empty(0), persistent=False)  # lies where the process group can reach

    def _zero_shot(
        self, clip: FaceCLIP, spec: FaceSpec, names: Sequence[str] | None, prompts: Mapping[str, Prompts] | None
    ) -> ZeroShot | None:
        """Return what tells labels by prompts; None where there are no labels, or no text tower that reads prompts."""
        config = clip.config.text
        if not self.uses_features or config is None or not (spec.attributes or spec.label_names):
            return None
        if config.vocab_size < Tokenizer.vocab_size:
            rank_zero_warn(
                f"zero-shot is off: prompts need {Tokenizer.vocab_size} tokens, clip.text has {config.vocab_size}"
            )
            return None
        told = ZeroShot(spec, names, prompts)
        return told if told.columns or told.questions else None

    def update(self, model: PretrainModel, result: PretrainResult, batch: PretrainBatch) -> None:
        """Add a batch.

        Args:
            model: The model.
            result: Its result on this batch.
            batch: The batch; ``valid`` False marks repeats that do not count.
        """
        valid = batch.get("valid")
        if self.retrieval is not None and result.outputs.image_features is not None:
            texts = batch["texts"] if "texts" in batch else batch["text"].unsqueeze(1)
            features = cast(Tensor, model.encode(text=texts[texts.ne(0).any(-1)]).text_features)
            self.retrieval.update(result.outputs.image_features, features, texts, valid)
        for name, metric in self.masked_tokens.items():
            details = result.results[name].details
            cast(MaskedTokenAccuracy, metric).update(
                details["predictions"], details["targets"], batch["patch_mask"], valid
            )
        if result.outputs.image_features is not None:
            self.outcomes = self.recognise(model.clip, result.outputs.image_features, batch.get("labels"), valid)

    def recognise(
        self, clip: FaceCLIP, features: Tensor, labels: Tensor | Mapping[str, Tensor] | None, valid: Tensor | None
    ) -> Tensor | None:
        """Add faces whose labels are told by prompts.

        Args:
            clip: The network.
            features: (B, E) of the images.
            labels: (B, A) attributes or labels by column; None where there are none.
            valid: (B,) bool; False marks faces that do not count.

        Returns:
            (B,) share of right answers for each face, in percent; None where nothing is told.
        """
        if self.zero_shot is None or labels is None:
            return None
        return self.zero_shot.update(clip, features, labels, valid)

    def compute(self) -> Findings:
        """Return all values over all processes and start anew; every process must call it."""
        values: dict[str, Tensor] = {}
        references: dict[str, MetricReference] = {}
        parts = [self._retrieval_findings, self._masked_findings]
        parts += [self.zero_shot.compute] if self.zero_shot is not None else []
        for found in (part() for part in parts):
            values.update(found.values)
            references.update(found.references)
        self.reset()
        return Findings(values, references)

    def reset(self) -> None:
        """Forget all batches."""
        for metric in (self.retrieval, *self.masked_tokens.values(), self.zero_shot):
            if metric is not None:
                cast(Any, metric).reset()

    def _retrieval_findings(self) -> Findings:
        """Recall at k; chance at k is at most k times chance at 1, and just that with one caption per image."""
        if self.retrieval is None or not self.retrieval.update_count:
            return Findings({}, {})
        values = dict(self.retrieval.compute())
        chance = float(values.pop("chance_r1"))
        references: dict[str, MetricReference] = {
            name: {"baseline": min(1.0, int(name.rpartition("_r")[2]) * chance), "kind": "chance"} for name in values
        }
        return Findings(values, references)

    def _masked_findings(self) -> Findings:
        """Accuracy of guessed tokens beside always guessing the most frequent."""
        found = Findings({}, {})
        for name, metric in self.masked_tokens.items():
            prefix = "mim" if len(self.masked_tokens) == 1 else f"mim_{name}"
            result = cast(Any, metric).compute() if cast(Any, metric).update_count else {}
            found.values.update({f"{prefix}_{key}": value for key, value in result.items()})
            if result:
                found.references[f"{prefix}_accuracy"] = {"baseline": float(result["majority"]), "kind": "majority"}
        return found

    def _gather(self, state: Tensor, group: Any = None) -> list[Tensor]:
        """Collect a state of all processes, over a device that they can reach."""
        del group
        return [all_gather_cat(state.to(self.anchor.device)).to(state.device)]


def masked_image_objectives(model: PretrainModel) -> dict[str, MaskedImage]:
    """Return the objectives that guess masked patches, by name.

    Args:
        model: Network and objectives.
    """
    return {name: part for name, part in model.objectives.items() if isinstance(part, MaskedImage)}


def without_repeats(batch: PretrainBatch) -> PretrainBatch:
    """Leave out the samples that pad a batch: they are no candidates, and have no loss.

    Where there are only such, one stays, which no metric counts: kernels need not take empty batches.

    Args:
        batch: A batch of evaluation; ``valid`` False marks repeats.
    """
    valid = batch.get("valid")
    if valid is None or bool(valid.all()):
        return batch
    return take_rows(batch, valid if bool(valid.any()) else slice(0, 1))


def with_repeats(outcomes: Tensor, valid: Tensor | None) -> Tensor:
    """Put outcomes of the samples that count back into the places of a whole batch.

    Args:
        outcomes: (M,) of the samples of :func:`without_repeats`.
        valid: (B,) bool of the whole batch; None where all count.

    Returns:
        (B,), nan for repeats.
    """
    if valid is None or len(outcomes) == len(valid):
        return outcomes
    whole = outcomes.new_full((len(valid),), torch.nan)
    if bool(valid.any()):
        whole[valid] = outcomes
    return whole
