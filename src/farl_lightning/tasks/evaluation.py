"""What pretraining is worth: retrieval, masked tokens and zero-shot attributes, each beside its baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.functional.distributed import all_gather_cat
from farl_lightning.functional.zero_shot import attribute_features, attribute_logits
from farl_lightning.metrics import MaskedTokenAccuracy, RetrievalRecall, ZeroShotAttributes
from farl_lightning.models.face_clip import FaceCLIP
from farl_lightning.objectives import MaskedImage, PretrainModel, PretrainResult
from farl_lightning.tasks.base import MetricReference
from farl_lightning.text import ATTRIBUTE_PROMPTS, Tokenizer
from farl_lightning.types import PretrainBatch


class Findings(NamedTuple):
    """What an evaluation found.

    Attributes:
        values: Metric values, without the stage's prefix.
        references: What to read them against.
    """

    values: dict[str, Tensor]
    references: dict[str, MetricReference]


class PretrainEvaluation(nn.Module):
    """Metrics of pretraining, counted once per sample under any number of processes.

    Args:
        model: The model that is evaluated; only its make-up is read.
        attributes: Names of the label columns of the data.
        zero_shot: Attributes to recognise by prompts; None means all that have prompts and labels.

    Attributes:
        uses_features: Whether image features are read.
    """

    anchor: Tensor

    def __init__(
        self, model: PretrainModel, attributes: Sequence[str] = (), zero_shot: Sequence[str] | None = None
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
        self.columns = self._columns(model.clip, attributes, zero_shot)
        self.attributes = ZeroShotAttributes(list(self.columns)) if self.columns else None
        self.register_buffer("anchor", torch.empty(0), persistent=False)  # lies where the process group can reach
        self._prompts: Tensor | None = None

    def _columns(self, clip: FaceCLIP, attributes: Sequence[str], zero_shot: Sequence[str] | None) -> dict[str, int]:
        """Return the label column of every attribute that is evaluated."""
        config = clip.config.text
        if not self.uses_features or config is None or not attributes:
            return {}
        if config.vocab_size < Tokenizer.vocab_size:
            rank_zero_warn(
                f"zero-shot is off: prompts need {Tokenizer.vocab_size} tokens, clip.text has {config.vocab_size}"
            )
            return {}
        if lacking := sorted(set(zero_shot or ()) - set(attributes)):
            rank_zero_warn(f"zero-shot leaves out {', '.join(lacking)}: the data has no such labels")
        wanted = ATTRIBUTE_PROMPTS if zero_shot is None else zero_shot
        return {name: attributes.index(name) for name in wanted if name in attributes}

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
        if self.attributes is not None and "labels" in batch and result.outputs.image_features is not None:
            labels = batch["labels"][:, list(self.columns.values())]
            self.attributes.update(self._recognise(model.clip, result.outputs.image_features), labels, valid)

    def _recognise(self, clip: FaceCLIP, image_features: Tensor) -> Tensor:
        """Return (B, A, 2) similarities of images to the prompts of absence and of presence."""
        if self._prompts is None:
            self._prompts = prompt_features(clip, list(self.columns))
        return attribute_logits(image_features, self._prompts)

    def compute(self) -> Findings:
        """Return all values over all processes and start anew; every process must call it."""
        values: dict[str, Tensor] = {}
        references: dict[str, MetricReference] = {}
        parts = [self._retrieval_findings, self._masked_findings, self._attribute_findings]
        for found in (part() for part in parts):
            values.update(found.values)
            references.update(found.references)
        self.reset()
        return Findings(values, references)

    def reset(self) -> None:
        """Forget all batches, and the prompts' features."""
        self._prompts = None
        for metric in (self.retrieval, *self.masked_tokens.values(), self.attributes):
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

    def _attribute_findings(self) -> Findings:
        """Accuracy per attribute beside its more frequent side."""
        if self.attributes is None or not self.attributes.update_count:
            return Findings({}, {})
        result = self.attributes.compute()
        kept = {k: v for k, v in result.items() if not k.endswith(("_gain", "_gain_low", "_gain_high"))}
        values = {f"zero_shot_{name}": value for name, value in kept.items()}
        values["zero_shot_mean"] = torch.stack([result[name] for name in self.columns]).nanmean()
        references: dict[str, MetricReference] = {
            f"zero_shot_{name}": {
                "baseline": float(result[f"{name}_majority"]),
                "kind": "majority",
                "low": float(result[f"{name}_gain_low"]),
                "high": float(result[f"{name}_gain_high"]),
            }
            for name in self.columns
        }
        return Findings(values, references)

    def _gather(self, state: Tensor, group: Any = None) -> list[Tensor]:
        """Collect a state of all processes, over a device that they can reach."""
        del group
        return [all_gather_cat(state.to(self.anchor.device)).to(state.device)]


@torch.no_grad()
def prompt_features(clip: FaceCLIP, names: Sequence[str]) -> Tensor:
    """Encode the prompts of attributes.

    Args:
        clip: A network with a text tower.
        names: Attributes of ``text.ATTRIBUTE_PROMPTS``.

    Returns:
        (A, 2, E) of length 1: index 0 absent, index 1 present.

    Raises:
        ConfigError: If an attribute has no prompts, or there is no text tower.
    """
    config, scale = clip.config.text, clip.logit_scale
    if config is None or scale is None:
        raise ConfigError("zero-shot recognition needs a text tower (clip.text)")
    tokenizer = Tokenizer(config.context_length)

    def _encode(prompts: list[str]) -> Tensor:
        features: Tensor = clip(text=tokenizer(prompts).to(scale.device)).text_features
        return features

    return attribute_features(_encode, [known_prompts(name) for name in names])


def known_prompts(name: str) -> tuple[list[str], list[str]]:
    """Return the prompts of presence and of absence of an attribute.

    Args:
        name: CelebA's name of the attribute.

    Raises:
        ConfigError: If it has none.
    """
    if name not in ATTRIBUTE_PROMPTS:
        raise ConfigError(f"zero_shot attribute '{name}' has no prompts. {did_you_mean(name, ATTRIBUTE_PROMPTS)}")
    return ATTRIBUTE_PROMPTS[name]


def masked_image_objectives(model: PretrainModel) -> dict[str, MaskedImage]:
    """Return the objectives that guess masked patches, by name.

    Args:
        model: Network and objectives.
    """
    return {name: part for name, part in model.objectives.items() if isinstance(part, MaskedImage)}
