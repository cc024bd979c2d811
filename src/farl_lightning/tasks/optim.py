"""The optimiser of a task in one dataclass: parameter groups, learning rates, schedule by step."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from farl_lightning.errors import ConfigError, did_you_mean

_CHOICES = {
    "optimizer": ("adamw", "sgd"),
    "schedule": ("cosine", "multistep", "constant"),
    "milestones_in": ("steps", "epochs"),
}


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser and learning-rate schedule; every schedule moves with optimiser steps.

    Biases, norms, class, mask and position embeddings, the token embedding and the logit scale are not decayed, unless
    ``decay_all`` is set.

    Attributes:
        optimizer: ``"adamw"`` (decoupled weight decay) or ``"sgd"`` (with Nesterov momentum).
        lr: Base learning rate, reached at the end of the warm-up.
        weight_decay: Weight decay of matrices and convolution kernels.
        decay_all: Decay every parameter, as FaRL's downstream tasks do (with 1e-5).
        betas: Averaging coefficients of AdamW.
        eps: Term added to AdamW's denominator.
        momentum: Momentum of SGD.
        schedule: What follows the warm-up: ``"cosine"`` down to ``min_lr`` at the last step, ``"multistep"``
            (times ``gamma`` at each milestone) or ``"constant"``.
        warmup_steps: Steps of the linear warm-up from ``start_lr`` to ``lr``; excludes ``warmup_ratio``.
        warmup_ratio: The warm-up as a share of all steps, in [0, 1).
        min_lr: Last learning rate of the cosine, for the base rate; other groups keep their ratio to the base.
        start_lr: Learning rate of the very first step when there is a warm-up; other groups as above.
        milestones: Where ``"multistep"`` decays: below 1 a share of all steps, otherwise a step or an epoch.
        milestones_in: Whether milestones of 1 and more count ``"steps"`` or ``"epochs"``.
        gamma: Factor at each milestone.
        layer_decay: The learning rate of each layer of an encoder is this times that of the layer above it; 1 is
            the same rate everywhere (BEiT, https://arxiv.org/abs/2106.08254, fine-tunes with 0.65).
        group_lrs: Learning rates by the beginning (a regular expression) of parameter names, the first match
            counts: ``{"clip.text_encoder": 1e-4}``. Parameters that match nothing have ``lr``.

    Raises:
        ConfigError: If a value cannot work; all such values are named at once.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    decay_all: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.9
    schedule: Literal["cosine", "multistep", "constant"] = "cosine"
    warmup_steps: int | None = None
    warmup_ratio: float | None = None
    min_lr: float = 0.0
    start_lr: float = 1e-6
    milestones: tuple[float, ...] = ()
    milestones_in: Literal["steps", "epochs"] = "steps"
    gamma: float = 0.1
    layer_decay: float = 1.0
    group_lrs: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every value, and name all that are wrong."""
        if problems := [*self._wrong_choices(), *self._wrong_numbers(), *self._wrong_patterns()]:
            raise ConfigError("OptimConfig: " + "; ".join(problems))

    def _wrong_choices(self) -> list[str]:
        """Name the choices that do not exist, and settings that exclude each other."""
        problems = [
            f"{name} is '{getattr(self, name)}'. {did_you_mean(getattr(self, name), allowed)}"
            for name, allowed in _CHOICES.items()
            if getattr(self, name) not in allowed
        ]
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            problems.append("give warmup_steps or warmup_ratio, not both")
        if self.schedule == "multistep" and not self.milestones:
            problems.append("schedule 'multistep' needs milestones: shares such as [0.6, 0.9], or steps")
        return problems

    def _wrong_numbers(self) -> list[str]:
        """Name the numbers that are out of range."""
        betas = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        milestones = all(0 < m < 1 or (m >= 1 and float(m).is_integer()) for m in self.milestones)
        allowed: list[tuple[str, Any, bool, str]] = [
            ("lr", self.lr, self.lr > 0, "above 0"),
            ("weight_decay", self.weight_decay, self.weight_decay >= 0, "0 or more"),
            ("betas", self.betas, betas, "two numbers in [0, 1)"),
            ("eps", self.eps, self.eps > 0, "above 0"),
            ("momentum", self.momentum, 0 <= self.momentum < 1, "in [0, 1)"),
            ("warmup_steps", self.warmup_steps, (self.warmup_steps or 0) >= 0, "0 or more"),
            ("warmup_ratio", self.warmup_ratio, 0 <= (self.warmup_ratio or 0) < 1, "in [0, 1)"),
            ("min_lr", self.min_lr, 0 <= self.min_lr <= self.lr, f"from 0 to lr ({self.lr:g})"),
            ("start_lr", self.start_lr, self.start_lr >= 0, "0 or more"),
            ("milestones", self.milestones, milestones, f"shares below 1 or whole {self.milestones_in}"),
            ("gamma", self.gamma, 0 < self.gamma <= 1, "in (0, 1]"),
            ("layer_decay", self.layer_decay, 0 < self.layer_decay <= 1, "in (0, 1]"),
        ]
        return [f"{name} is {value}, it must be {rule}" for name, value, ok, rule in allowed if not ok]

    def _wrong_patterns(self) -> list[str]:
        """Name the groups whose pattern or learning rate cannot work."""
        problems = [f"group_lrs['{key}'] is {lr}, it must be 0 or more" for key, lr in self.group_lrs.items() if lr < 0]
        wrong = ((key, _regex_problem(key)) for key in self.group_lrs)
        return problems + [f"group_lrs key '{key}' is not a regular expression: {why}" for key, why in wrong if why]

    def warmup(self, total_steps: float) -> int:
        """Return the number of warm-up steps in a run of ``total_steps``.

        Raises:
            ConfigError: If the warm-up is a share of an unknown number of steps.
        """
        if self.warmup_ratio is None:
            return self.warmup_steps or 0
        return round(self.warmup_ratio * _known(total_steps, "optim.warmup_ratio"))

    def fitted_to(self, total_steps: float) -> OptimConfig:
        """Return these settings with a warm-up that ends before the run does: for a trial of a few steps.

        Args:
            total_steps: Optimiser steps in the whole run.
        """
        warmup = self.warmup(total_steps)
        if warmup < max(1, total_steps):
            return self
        return replace(self, warmup_steps=max(0, int(total_steps) - 1), warmup_ratio=None)

    def in_steps(self, steps_per_epoch: float) -> OptimConfig:
        """Return these settings with milestones that count steps.

        Args:
            steps_per_epoch: Optimiser steps of one pass over the training data; a part of a step counts as one.

        Raises:
            ConfigError: If milestones are epochs whose length is unknown.
        """
        if self.milestones_in == "steps":
            return self
        steps = _known(steps_per_epoch, "optim.milestones_in 'epochs'")
        steps += steps < steps_per_epoch
        milestones = tuple(m if m < 1 else m * steps for m in self.milestones)
        return replace(self, milestones=milestones, milestones_in="steps")


def _regex_problem(pattern: str) -> str:
    """Return why a pattern is no regular expression; nothing when it is one."""
    try:
        re.compile(pattern)
    except re.error as error:
        return str(error)
    return ""


def _known(total_steps: float, setting: str) -> int:
    """Return the number of steps as an int, or say why a schedule needs it."""
    if not math.isfinite(total_steps) or total_steps < 1:
        raise ConfigError(
            f"{setting} needs to know how long the run is, but the number of steps is {total_steps}; "
            "set trainer.max_steps (or trainer.max_epochs with data of known length)"
        )
    return int(total_steps)


def schedule_factor(config: OptimConfig, total_steps: float) -> Callable[[int], float]:
    """Return the learning rate of each step, as a factor of the base rate.

    With ``W`` warm-up steps and ``T`` steps in all, step ``t`` (from 0) has
    ``start_lr + (lr - start_lr) t / W`` while ``t < W``; then the cosine has
    ``min_lr + (lr - min_lr) (1 + cos(pi (t - W) / (T - W))) / 2``.

    Args:
        config: The schedule.
        total_steps: Optimiser steps in the whole run; infinity is allowed where nothing depends on it.

    Raises:
        ConfigError: If the schedule needs a length that is unknown, or the warm-up is longer than the run.

    Example:
        >>> factor = schedule_factor(OptimConfig(lr=1.0, warmup_steps=2, start_lr=0.0), total_steps=4)
        >>> [round(factor(step), 2) for step in range(5)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    warmup = config.warmup(total_steps)
    if warmup and warmup >= total_steps:
        raise ConfigError(
            f"optim.warmup_steps is {warmup}, but the whole run has {total_steps:g} steps; "
            "shorten the warm-up (optim.warmup_ratio gives it as a share) or raise trainer.max_steps"
        )
    after = _after_warmup(config, total_steps, warmup)
    start = config.start_lr / config.lr

    def _factor(step: int) -> float:
        return start + (1 - start) * step / warmup if step < warmup else after(step)

    return _factor


def _after_warmup(config: OptimConfig, total_steps: float, warmup: int) -> Callable[[int], float]:
    """Return the part of the schedule that follows the warm-up."""
    if config.schedule == "cosine":
        span = _known(total_steps, "optim.schedule 'cosine'") - warmup
        low = config.min_lr / config.lr
        return lambda step: low + (1 - low) * (1 + math.cos(math.pi * min(1.0, (step - warmup) / span))) / 2
    if config.schedule == "multistep":
        milestones = [_milestone_step(m, total_steps) for m in config.milestones]
        return lambda step: config.gamma ** sum(m <= step for m in milestones)
    return lambda _: 1.0


def _milestone_step(milestone: float, total_steps: float) -> int:
    """Return a milestone as a step."""
    return int(milestone) if milestone >= 1 else round(milestone * _known(total_steps, "a milestone below 1"))


def layer_scales(model: nn.Module, layer_decay: float) -> dict[str, tuple[int, float]]:
    """Return depth and learning-rate factor of every parameter whose network knows its layers.

    Args:
        model: A module; those of its submodules that have a method ``layer_groups() -> dict[str, int]`` (parameter
            name to depth, such as :class:`~farl_lightning.models.face_clip.FaceCLIP`) are asked, outermost first.
        layer_decay: Factor from a layer to the layer below it; at 1 there is nothing to tell apart.

    Returns:
        ``{name: (depth, factor)}``; the factor of the deepest layer's parameters is 1.
    """
    scales: dict[str, tuple[int, float]] = {}
    for prefix, module in model.named_modules():
        if layer_decay == 1 or not hasattr(module, "layer_groups"):
            continue
        layers = cast(dict[str, int], module.layer_groups())
        top = max(layers.values(), default=0)
        for name, layer in layers.items():
            scales.setdefault(_join(prefix, name), (layer, layer_decay ** (top - layer)))
    return scales


def no_decay_names(model: nn.Module) -> set[str]:
    """Return the parameters that weight decay must not touch.

    These are all of at most one dimension (biases, norms, the logit scale, the mask token) and what a submodule's
    method ``no_weight_decay() -> set[str]`` names (class token, position and token embeddings).
    """
    names = {name for name, parameter in model.named_parameters() if parameter.ndim <= 1}
    for prefix, module in model.named_modules():
        if hasattr(module, "no_weight_decay"):
            names.update(_join(prefix, name) for name in cast(set[str], module.no_weight_decay()))
    return names


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Sort the trainable parameters of a model into named groups.

    Args:
        model: The one trainable root of a task.
        config: Learning rates, decay and layer decay.

    Returns:
        Groups with ``name``, ``params``, ``lr`` and ``weight_decay``, as ``torch.optim`` takes them. The name is the
        matched key of ``group_lrs`` or ``base``, then the layer, then ``no_decay`` where that holds.

    Raises:
        ConfigError: If nothing is trainable, or a key of ``group_lrs`` matches no parameter, be it frozen or not.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not named:
        raise ConfigError("the model has no trainable parameter; nothing is left to optimise")
    _check_keys_match(config, [name for name, _ in model.named_parameters()])
    scales = layer_scales(model, config.layer_decay)
    no_decay = set() if config.decay_all else no_decay_names(model)
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in named:
        key = next((pattern for pattern in config.group_lrs if re.match(pattern, name)), None)
        layer, scale = scales.get(name, (None, 1.0))
        decay = name not in no_decay
        parts = [key or "base", "" if layer is None else f"layer_{layer}", "" if decay else "no_decay"]
        label = "/".join(part for part in parts if part)
        lr = scale * (config.lr if key is None else config.group_lrs[key])
        group = {"name": label, "params": [], "lr": lr, "weight_decay": config.weight_decay if decay else 0.0}
        groups.setdefault(label, group)["params"].append(parameter)
    return list(groups.values())


def _check_keys_match(config: OptimConfig, names: list[str]) -> None:
    """Refuse a learning rate that would reach no parameter."""
    for key in config.group_lrs:
        if not any(re.match(key, name) for name in names):
            prefixes = {".".join(name.split(".")[: depth + 1]) for name in names for depth in range(2)}
            raise ConfigError(f"optim.group_lrs key '{key}' matches no parameter. {did_you_mean(key, prefixes)}")


def build_optimizer(model: nn.Module, config: OptimConfig, *, fused: bool = True) -> Optimizer:
    """Build the optimiser over :func:`parameter_groups`.

    Args:
        model: The one trainable root of a task.
        config: The settings.
        fused: Use AdamW's fused kernel; wrong only where a gradient scaler and gradient clipping meet (fp16), since
            a fused optimiser un-scales gradients inside its step.
    """
    groups = parameter_groups(model, config)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)
    beta1, beta2 = config.betas
    return torch.optim.AdamW(
        groups, lr=config.lr, betas=(beta1, beta2), eps=config.eps, fused=fused and _can_fuse(groups)
    )


def _can_fuse(groups: list[dict[str, Any]]) -> bool:
    """Whether every parameter is a plain floating-point tensor on a device with a fused kernel."""
    parameters = [cast(Tensor, parameter) for group in groups for parameter in group["params"]]
    return all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)


def build_schedule(optimizer: Optimizer, config: OptimConfig, total_steps: float) -> LambdaLR:
    """Build the schedule; call its ``step`` once after each optimiser step.

    Args:
        optimizer: From :func:`build_optimizer`.
        config: The settings.
        total_steps: Optimiser steps in the whole run.
    """
    # a closure, not an object: LambdaLR would put an object's fields into the checkpoint
    return LambdaLR(optimizer, schedule_factor(config, total_steps))
