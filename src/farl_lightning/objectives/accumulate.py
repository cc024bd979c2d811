"""Large contrastive batches on small memory: a batch goes through the towers in parts, and is contrasted as a whole.

The features of all parts are computed first, without a graph; the losses that compare samples see their union and say
what gradient each feature should get; then each part is computed again, with a graph, and that gradient is propagated
(GradCache: Gao et al., 2021, https://arxiv.org/abs/2101.06983). Gradients are those of the whole batch at once, the
activations in memory are those of one part, and the price is one more forward pass without a graph. Losses that belong
to single samples, such as masked image modelling, ride on the second pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import get_device_states, set_device_states

from farl_lightning.errors import ConfigError
from farl_lightning.functional.distributed import global_sum, row_counts
from farl_lightning.functional.precision import as_float64, at_least_float32
from farl_lightning.models.face_clip import FaceCLIPOutput
from farl_lightning.objectives.base import ObjectiveResult
from farl_lightning.objectives.model import PretrainModel, PretrainResult
from farl_lightning.types import PretrainBatch

Backward = Callable[[Tensor], object]
"""Propagates the loss of a part, such as ``torch.Tensor.backward``."""

_FIELDS = {"image": "image_features", "text": "text_features", "masked": "masked_tokens", "tokens": "tokens"}


def split_batch(batch: PretrainBatch, parts: int) -> list[PretrainBatch]:
    """Split a batch into parts of nearly equal size, in order.

    Args:
        batch: Is split as :func:`take_rows` does.
        parts: Number of parts, from 1 to the number of samples.

    Returns:
        Exactly ``parts`` batches.
    """
    count = len(batch["image"])
    bounds = [round(count * part / parts) for part in range(parts + 1)]
    slices = [slice(*pair) for pair in pairwise(bounds)]
    return [take_rows(batch, own) for own in slices]


def take_rows(batch: PretrainBatch, rows: slice | Tensor) -> PretrainBatch:
    """Take some samples of a batch.

    Args:
        batch: Tensors of B rows and lists of B entries are cut; anything else (``dropped``) stays as it is.
        rows: Which samples: a slice, or (B,) bool.
    """
    count = len(batch["image"])
    numbers = (
        range(count)[rows] if isinstance(rows, slice) else [index for index, keep in enumerate(rows.tolist()) if keep]
    )
    taken: dict[str, Any] = dict(batch)
    for name, value in batch.items():
        if isinstance(value, Tensor) and len(value) == count:
            taken[name] = value[rows]
        elif isinstance(value, list) and len(value) == count and name != "dropped":
            taken[name] = [value[index] for index in numbers]
    return cast(PretrainBatch, taken)


class RandomState(NamedTuple):
    """The state of torch's random numbers, on the CPU and on the devices of a batch."""

    cpu: Tensor
    devices: list[int]
    states: list[Tensor]

    @classmethod
    def of(cls, batch: PretrainBatch) -> RandomState:
        """Read the state that the next pass over the batch begins with."""
        return cls(torch.get_rng_state(), *get_device_states(*batch.values()))

    def restore(self) -> None:
        """Go back to this state."""
        torch.set_rng_state(self.cpu)
        set_device_states(self.devices, self.states)

    def equals(self, other: RandomState) -> bool:
        """Whether no random number was drawn in between."""
        pairs = zip([self.cpu, *self.states], [other.cpu, *other.states], strict=True)
        return all(torch.equal(mine, theirs) for mine, theirs in pairs)


class _Cached(NamedTuple):
    """What the first pass leaves behind.

    Attributes:
        union: Outputs of the whole batch, without graph.
        gradients: By the name of an output, what the losses that compare samples ask of it, (B, ...).
        states: Random numbers that each part began with.
    """

    union: FaceCLIPOutput
    gradients: dict[str, Tensor]
    states: list[RandomState]


class ContrastiveAccumulation:
    """Runs a training step in parts whose gradients add up to those of the whole batch.

    Dropout and the like draw the same random numbers in both passes over a part. Where the network draws any, the first
    pass must run everything that the second does; else it leaves the masked pictures out, which saves time.

    Args:
        parts: Number of parts; 1 is the ordinary step. A process with fewer samples makes all take fewer parts.

    Raises:
        ConfigError: If it is below 1.

    Example:
        >>> step = ContrastiveAccumulation(parts=4)
        >>> result = step(model, batch, torch.Tensor.backward)  # the first three parts  # doctest: +SKIP
        >>> result.loss.backward()  # the last part  # doctest: +SKIP
    """

    def __init__(self, parts: int) -> None:
        if parts < 1:
            raise ConfigError(f"accumulate_contrastive is {parts}, it must be 1 or more: the parts of a batch")
        self.parts = parts
        self._random = False

    def __call__(self, model: PretrainModel, batch: PretrainBatch, backward: Backward) -> PretrainResult:
        """Compute the losses of a batch, and propagate those of all parts but the last.

        Every process has to call it.

        Args:
            model: Network and objectives, possibly sharded.
            batch: The whole batch of this process.
            backward: Is called with the loss of each part but the last. Gradients must not be averaged over processes
                there: they are added to those of the last part, whose backward pass is the caller's.

        Returns:
            As the model returns it: values are those of the whole batch. The gradient of ``loss`` is the last part's.
            Results of objectives that go by samples have no ``details``, and ``outputs`` has what the others read.
        """
        count = self.parts if self.parts == 1 else max(1, min(self.parts, *row_counts(batch["image"])))
        if count == 1:
            result: PretrainResult = model(batch)
            return result
        parts = split_batch(batch, count)
        shares = _shares(model, parts)
        cached = self._embed(model, batch, parts)
        done = []
        for index in range(count - 1):
            _replay(cached, index)
            own = _own_gradients(cached, parts, index)
            loss, results = model.inside(partial(_inner_part, shares=_at(shares, index), gradients=own), parts[index])
            if loss.requires_grad:
                backward(loss)
            done.append(results)
            torch.clear_autocast_cache()  # its graph is gone
        _replay(cached, count - 1)
        last = partial(_last_part, whole=batch, cached=cached, shares=_at(shares, count - 1), done=done)
        return model.inside(last, parts[-1])

    def _embed(self, model: PretrainModel, batch: PretrainBatch, parts: Sequence[PretrainBatch]) -> _Cached | None:
        """Compute what the losses that compare samples read, and what they ask of it."""
        needs = frozenset[str]().union(*(model.objective(name).needs for name in _comparing(model)))
        if not needs:
            return None
        begin = RandomState.of(batch)
        while True:
            states, outputs = [], []
            passes = model.needs if self._random else needs
            for part in parts:
                states.append(RandomState.of(part))
                with torch.no_grad():
                    outputs.append(model.inside(partial(_outputs, needs=passes, kept=needs), part))
            torch.clear_autocast_cache()  # what was cast without a graph must not be used with one
            if passes == model.needs or begin.equals(RandomState.of(batch)):
                break
            self._random = True
            begin.restore()
        union = _join(outputs)
        return _Cached(union, model.inside(partial(_feature_gradients, union=union), batch), states)


def _comparing(model: PretrainModel) -> list[str]:
    """Return the names of the objectives that compare samples."""
    return [name for name in model.objectives if not model.objective(name).per_sample]


def _shares(model: PretrainModel, parts: Sequence[PretrainBatch]) -> dict[str, Tensor]:
    """Return, for each objective that goes by samples, each part's share in its mean over all processes: (parts,)."""
    names = [name for name in model.objectives if model.objective(name).per_sample]
    if not names:
        return {}
    counts = torch.stack([torch.stack([model.objective(name).count(part) for part in parts]) for name in names])
    totals = as_float64(global_sum(counts))
    return dict(zip(names, totals / totals.sum(1, keepdim=True).clamp(min=1), strict=True))


def _at(shares: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
    """Return the shares of one part."""
    return {name: values[index] for name, values in shares.items()}


def _replay(cached: _Cached | None, index: int) -> None:
    """Let a part draw the random numbers that it drew before."""
    if cached is not None:
        cached.states[index].restore()


def _own_gradients(cached: _Cached | None, parts: Sequence[PretrainBatch], index: int) -> dict[str, Tensor]:
    """Return the rows of the cached gradients that belong to a part."""
    first = sum(len(part["image"]) for part in parts[:index])
    own = slice(first, first + len(parts[index]["image"]))
    return {} if cached is None else {name: gradient[own] for name, gradient in cached.gradients.items()}


def _outputs(model: PretrainModel, batch: PretrainBatch, needs: frozenset[str], kept: frozenset[str]) -> FaceCLIPOutput:
    """Run the passes for ``needs``, keep what is in ``kept``."""
    outputs = model.run_passes(batch, needs)
    dropped: dict[str, Any] = {field: None for need, field in _FIELDS.items() if need not in kept}
    scale = outputs.logit_scale
    # a copy: sharding frees the parameter after the pass
    return outputs._replace(**dropped, logit_scale=None if scale is None else scale.detach().clone())


def _join(outputs: Sequence[FaceCLIPOutput]) -> FaceCLIPOutput:
    """Put the outputs of parts one after the other."""

    def _cat(field: str) -> Tensor | None:
        values = [getattr(output, field) for output in outputs]
        return None if values[0] is None else torch.cat(values)

    rows: dict[str, Any] = {field: _cat(field) for field in (*_FIELDS.values(), "patch_mask")}
    return outputs[-1]._replace(**rows)


@torch.enable_grad()
def _feature_gradients(model: PretrainModel, batch: PretrainBatch, union: FaceCLIPOutput) -> dict[str, Tensor]:
    """Return what the losses that compare samples ask of each output; parameters get no gradient here."""
    leaves = {f: getattr(union, f).detach().requires_grad_() for f in _FIELDS.values() if getattr(union, f) is not None}
    outputs = union._replace(**leaves)
    losses = [model.objective(name).weight * model.objective(name)(outputs, batch).loss for name in _comparing(model)]
    found = torch.autograd.grad(sum(losses[1:], losses[0]), list(leaves.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(leaves, found, strict=True) if gradient is not None}


def _inner_part(
    model: PretrainModel, batch: PretrainBatch, shares: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, ObjectiveResult]]:
    """Return a loss with the gradient of this part, and this part's share in the results that go by samples."""
    outputs = model.run_passes(batch, model.needs)
    results = _shared_results(model, outputs, batch, shares)
    terms = [model.objective(name).weight * result.loss for name, result in results.items()]
    terms += [(at_least_float32(getattr(outputs, name)) * wanted).sum() for name, wanted in gradients.items()]
    return sum(terms[1:], terms[0]), _without_graph(results)


def _last_part(
    model: PretrainModel,
    batch: PretrainBatch,
    whole: PretrainBatch,
    cached: _Cached | None,
    shares: Mapping[str, Tensor],
    done: Sequence[Mapping[str, ObjectiveResult]],
) -> PretrainResult:
    """Return the result of the whole batch, whose graph reaches this part and every parameter of the objectives."""
    outputs = model.run_passes(batch, model.needs)
    results = _shared_results(model, outputs, batch, shares)
    results = {name: _add_up([result, *(before[name] for before in done)]) for name, result in results.items()}
    union = outputs if cached is None else _with_live_rows(cached.union, outputs, len(batch["image"]))
    results |= {name: model.objective(name)(union, whole) for name in _comparing(model)}
    ordered = {name: results[name] for name in model.objectives}
    return PretrainResult(model.weighted_loss(ordered), ordered, union)


def _with_live_rows(union: FaceCLIPOutput, live: FaceCLIPOutput, count: int) -> FaceCLIPOutput:
    """Replace the last ``count`` rows of cached outputs by those that have a graph."""
    fields = [field for field in _FIELDS.values() if getattr(union, field) is not None]
    kept = {field: getattr(union, field)[: len(getattr(union, field)) - count] for field in fields}
    rows: dict[str, Any] = {field: torch.cat([kept[field], getattr(live, field)]) for field in fields}
    return union._replace(**rows, logit_scale=live.logit_scale)


def _shared_results(
    model: PretrainModel, outputs: FaceCLIPOutput, batch: PretrainBatch, shares: Mapping[str, Tensor]
) -> dict[str, ObjectiveResult]:
    """Run the objectives that go by samples on a part, and scale what they say by its share."""
    found = {name: model.objective(name)(outputs, batch) for name in shares}
    return {name: _scaled(result, shares[name]) for name, result in found.items()}


def _scaled(result: ObjectiveResult, share: Tensor) -> ObjectiveResult:
    """Multiply loss and logs."""
    logs = {name: value * share.to(value) for name, value in result.logs.items()}
    return ObjectiveResult(result.loss * share.to(result.loss), logs)


def _add_up(results: Sequence[ObjectiveResult]) -> ObjectiveResult:
    """Add losses and logs."""
    logs = {name: sum((r.logs[name] for r in results[1:]), value) for name, value in results[0].logs.items()}
    return ObjectiveResult(sum((r.loss for r in results[1:]), results[0].loss), logs)


def _without_graph(results: Mapping[str, ObjectiveResult]) -> dict[str, ObjectiveResult]:
    """Keep the values alone."""
    return {name: result._replace(loss=result.loss.detach()) for name, result in results.items()}
