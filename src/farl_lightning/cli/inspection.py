"""What ``check`` prints: one training step, watched."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from typing_extensions import override

from farl_lightning.errors import CheckpointError

_UNITS = ("", "k", "M", "G", "T", "P")


class StepInspector(L.Callback):
    """Watches one training step of :meth:`FarlTrainer.check` and writes down what it saw."""

    def __init__(self) -> None:
        self.batch: list[tuple[str, str]] = []
        self.samples = 1
        self.flops = 0
        self.seconds = 0.0
        self.loss: float | None = None
        self.memory: dict[str, int] = {}
        self.groups: list[dict[str, Any]] = []
        self.without_gradient: list[str] = []
        self.bad_gradient: list[str] = []
        self._counter = FlopCounterMode(display=False)

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Describe the batch and begin to count."""
        self.batch = list(describe_batch(batch))
        self.samples = batch_size(batch)
        self.memory["parameters"] = _bytes(pl_module.parameters())
        self.memory["buffers"] = _bytes(pl_module.buffers())
        self.seconds = time.perf_counter()
        self._counter.__enter__()  # type: ignore[no-untyped-call]

    @override
    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Look at the gradients."""
        trainable = [(name, weight) for name, weight in pl_module.named_parameters() if weight.requires_grad]
        gradients = [(name, weight.grad) for name, weight in trainable if weight.grad is not None]
        self.memory["gradients"] = _bytes(gradient for _, gradient in gradients)
        self.without_gradient = [name for name, weight in trainable if weight.grad is None]
        self.bad_gradient = [name for name, gradient in gradients if not bool(torch.isfinite(gradient).all())]
        names = {id(weight): name for name, weight in trainable}
        self.groups = [describe_group(group, names) for group in optimizer.param_groups]

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop counting, and the run; the state of the optimiser is complete after its first step."""
        trainer.should_stop = True
        self._counter.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self.seconds = time.perf_counter() - self.seconds
        self.flops = self._counter.get_total_flops()
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        self.loss = float(loss) if loss is not None else None
        states = [state for optimizer in trainer.optimizers for state in optimizer.state.values()]
        self.memory["optimiser state"] = _bytes(v for state in states for v in state.values() if isinstance(v, Tensor))

    def report(self, task: L.LightningModule) -> str:
        """Return everything that was seen, as text.

        Args:
            task: The task that took the step.
        """
        sections = {
            "parameters": _table(parameter_rows(task)),
            "batch": _table(self.batch),
            "learning rate at its peak": _table(self._group_rows()),
            "memory": _table(self._memory_rows()),
            "one step": _table(self._step_rows()),
        }
        if self.without_gradient:
            sections["trainable, but without a gradient"] = _names(self.without_gradient)
        if self.bad_gradient:
            sections["gradient not finite"] = _names(self.bad_gradient)
        return "\n\n".join(f"{title}\n{body}" for title, body in sections.items() if body)

    def _group_rows(self) -> Iterator[tuple[str, ...]]:
        """Yield one row per parameter group."""
        yield "group", "parameters", "lr", "weight decay"
        for index, group in enumerate(self.groups):
            name = group["name"] or f"group {index}"
            yield name, human(group["parameters"]), f"{group['lr']:.3g}", f"{group['weight_decay']:g}"

    def _memory_rows(self) -> Iterator[tuple[str, ...]]:
        """Yield one row per kind of memory."""
        for name, count in self.memory.items():
            yield name, f"{human(count)}B"
        yield "peak of this process", f"{human(peak_memory())}B"
        if torch.cuda.is_available():
            yield "peak on the GPU", f"{human(torch.cuda.max_memory_allocated())}B"

    def _step_rows(self) -> Iterator[tuple[str, ...]]:
        """Yield loss, time and arithmetic of the step."""
        if self.loss is not None:
            yield "loss", f"{self.loss:.4f}"
        yield "forward and backward", f"{human(self.flops / self.samples)}FLOP per sample"
        yield "time, the first step of a run", f"{self.seconds:.2f} s"


def check_fits(task: L.LightningModule, path: str | Path) -> None:
    """Load the weights of a checkpoint into a task.

    Args:
        task: The task.
        path: The checkpoint.

    Raises:
        CheckpointError: If names or shapes differ; the message counts them and names the first.
    """
    saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
    own = task.state_dict()
    missing = [name for name in own if name not in saved]
    unknown = [name for name in saved if name not in own]
    shapes = [name for name in saved if name in own and saved[name].shape != own[name].shape]
    found = {"missing": missing, "unknown": unknown, "of another shape": shapes}
    if any(found.values()):
        parts = [f"{len(names)} {what} (such as {names[0]})" for what, names in found.items() if names]
        raise CheckpointError(f"checkpoint '{path}' does not fit this model: {', '.join(parts)}")


def describe_group(group: dict[str, Any], names: dict[int, str]) -> dict[str, Any]:
    """Summarise one parameter group: name, size, peak learning rate, weight decay.

    Args:
        group: A group of an optimiser.
        names: Name of each parameter, by ``id``.
    """
    weights = group["params"]
    return {
        "name": group.get("name") or (names.get(id(weights[0]), "") if len(weights) == 1 else ""),
        "parameters": sum(weight.numel() for weight in weights),
        "lr": group.get("initial_lr", group["lr"]),
        "weight_decay": group.get("weight_decay", 0.0),
    }


def describe_batch(batch: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield key and description of every entry of a batch: shape, dtype, range."""
    for key, value in _items(batch):
        name = f"{prefix}{key}"
        if isinstance(value, Tensor):
            yield name, _describe_tensor(value)
        elif isinstance(value, dict):
            yield from describe_batch(value, f"{name}.")
        elif isinstance(value, list | tuple):
            text = str(value[0]) if value else "empty"
            yield name, f"list of {len(value)}: {text if len(text) <= 70 else text[:67] + '...'}"
        else:
            yield name, str(value)


def _items(batch: Any) -> Iterable[tuple[Any, Any]]:
    """Return names and entries of a batch of any kind."""
    if isinstance(batch, dict):
        return batch.items()
    return enumerate(batch) if isinstance(batch, list | tuple) else [("", batch)]


def _describe_tensor(value: Tensor) -> str:
    """Describe a tensor: shape, dtype, range, or the share of True."""
    text = f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if value.numel() == 0:
        return text
    if value.dtype == torch.bool:
        return f"{text}, {value.float().mean().item():.0%} True"
    low, high = value.min().item(), value.max().item()
    return f"{text}, {low:.4g} to {high:.4g}" if value.is_floating_point() else f"{text}, {low} to {high}"


def batch_size(batch: Any) -> int:
    """Return the number of samples of a batch: the first axis of its first tensor."""
    return next((value.shape[0] for _, value in _items(batch) if isinstance(value, Tensor) and value.ndim), 1)


def parameter_rows(task: L.LightningModule) -> Iterator[tuple[str, ...]]:
    """Yield one row per part of the network (two levels deep): trainable and frozen parameters."""
    yield "part", "trainable", "frozen"
    root = getattr(task, "model", task)
    root = root if isinstance(root, nn.Module) else task
    for name, child in root.named_children():
        parts = list(child.named_children())
        own = list(child.parameters(recurse=False))
        rows = [(f"{name}.{inner}", list(part.parameters())) for inner, part in parts] if parts else []
        for label, weights in [*rows, (name if not parts else f"{name}, itself", own)]:
            if weights:
                yield label, *_counts(weights)
    if own := list(root.parameters(recurse=False)):
        yield "itself", *_counts(own)
    yield "total", *_counts(list(root.parameters()))


def size_line(task: L.LightningModule) -> str:
    """Return the sizes of a task's parts in one line, and which share is trained where something is frozen.

    Args:
        task: The task.
    """
    _, *rows, total = parameter_rows(task)
    root = getattr(task, "model", task)
    weights = list(root.parameters() if isinstance(root, nn.Module) else task.parameters())
    share = sum(weight.numel() for weight in weights if weight.requires_grad) / max(1, sum(w.numel() for w in weights))
    parts = ", ".join(f"{part} {trainable}".rstrip() for part, trainable, _ in rows if not part.endswith("itself"))
    frozen = f", {total[2].strip()} frozen: {100 * share:.3g} % are trained" if total[2] != human(0) else ""
    return f"{type(task).__name__}: {total[1].strip()} trainable parameters{frozen} ({parts})"


def _counts(weights: list[nn.Parameter]) -> tuple[str, str]:
    """Return the number of trainable and of frozen parameters."""
    trainable = sum(weight.numel() for weight in weights if weight.requires_grad)
    return human(trainable), human(sum(weight.numel() for weight in weights) - trainable)


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of some tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def peak_memory() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def human(number: float) -> str:
    """Write a number with three digits and a unit.

    Example:
        >>> human(86_192_640)
        '86.2 M'
    """
    step = 0
    while abs(number) >= 999.5 and step < len(_UNITS) - 1:
        number, step = number / 1000, step + 1
    return f"{number:.3g} {_UNITS[step]}"


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    """Align rows; the first column to the left, the rest to the right when there are more than two."""
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    lines = []
    for row in rows:
        rest = [cell.rjust(width) if len(row) > 2 else cell for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  " + "  ".join([row[0].ljust(widths[0]), *rest]).rstrip())
    return "\n".join(lines)


def _names(names: list[str], limit: int = 10) -> str:
    """List names, the first few in full."""
    more = f"\n  and {len(names) - limit} more" if len(names) > limit else ""
    return "\n".join(f"  {name}" for name in names[:limit]) + more
