"""Schedules against hand-computed values, groups against their meaning."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from farl_lightning.errors import ConfigError
from farl_lightning.tasks.optim import (
    OptimConfig,
    build_optimizer,
    build_schedule,
    layer_scales,
    parameter_groups,
    schedule_factor,
)


class Tower(nn.Module):
    """An encoder of two blocks that knows its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.embed = nn.Linear(3, 4, bias=False)
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.norm = nn.LayerNorm(4)

    def no_weight_decay(self) -> set[str]:
        return {"cls_token"}

    def layer_groups(self) -> dict[str, int]:
        depth = {"cls_token": 0, "embed.weight": 0, "norm.weight": 3, "norm.bias": 3}
        return depth | {f"blocks.{i}.{kind}": i + 1 for i in range(2) for kind in ("weight", "bias")}


class Toy(nn.Module):
    """An encoder, a temperature and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Tower()
        self.logit_scale = nn.Parameter(torch.ones(1))
        self.head = nn.Linear(4, 2)


def rates(config: OptimConfig, total: int) -> list[float]:
    """The learning rates that an optimiser really has, step by step."""
    optimizer = build_optimizer(nn.Linear(2, 2), config)
    scheduler = build_schedule(optimizer, config, total)
    seen = []
    for _ in range(total):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_warmup_then_cosine():
    config = OptimConfig(lr=0.4, start_lr=0.1, min_lr=0.2, warmup_steps=3)
    expected = [0.1, 0.2, 0.3] + [0.2 + 0.2 * (1 + math.cos(math.pi * t / 4)) / 2 for t in range(4)]
    assert rates(config, 7) == pytest.approx(expected)
    assert schedule_factor(config, 7)(7) * 0.4 == pytest.approx(0.2)
    assert schedule_factor(config, 7)(70) * 0.4 == pytest.approx(0.2)  # never up again


def test_multistep_by_share_and_by_step():
    config = OptimConfig(lr=1.0, schedule="multistep", milestones=(0.5, 8), gamma=0.1)
    assert rates(config, 10) == pytest.approx([1.0] * 5 + [0.1] * 3 + [0.01] * 2)


def test_constant_with_warmup_ratio():
    config = OptimConfig(lr=1.0, start_lr=0.0, schedule="constant", warmup_ratio=0.4)
    assert rates(config, 5) == pytest.approx([0.0, 0.5, 1.0, 1.0, 1.0])
    assert schedule_factor(OptimConfig(schedule="constant"), math.inf)(10**9) == 1.0


@pytest.mark.parametrize("warmup", [{"warmup_steps": 40}, {"warmup_ratio": 0.9}])
def test_a_trial_shorter_than_the_warmup_still_ends_its_warmup(warmup):
    config = OptimConfig(lr=1.0, start_lr=0.0, schedule="constant", **warmup)
    assert config.fitted_to(1).warmup(1) == 0
    assert rates(config.fitted_to(1), 1)[0] == 1.0
    assert config.fitted_to(3).warmup(3) == 2
    assert config.fitted_to(400) is config


def test_unknown_length_is_an_error_only_where_it_matters():
    with pytest.raises(ConfigError, match=r"'cosine' needs to know how long the run is.*trainer.max_steps"):
        schedule_factor(OptimConfig(), math.inf)
    with pytest.raises(ConfigError, match="warmup_ratio needs"):
        schedule_factor(OptimConfig(schedule="constant", warmup_ratio=0.1), math.inf)
    with pytest.raises(ConfigError, match="warmup_steps is 10, but the whole run has 10 steps"):
        schedule_factor(OptimConfig(warmup_steps=10), 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "adam"}, "optimizer is 'adam'. Did you mean 'adamw'"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"lr": 0.0}, "lr is 0.0, it must be above 0"),
        ({"min_lr": 1.0, "lr": 0.1}, "min_lr is 1.0"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"warmup_steps": 1, "warmup_ratio": 0.1}, "not both"),
        ({"schedule": "multistep"}, "needs milestones"),
        ({"milestones": (1.5,)}, "shares below 1 or whole steps"),
        ({"milestones": (1.5,), "milestones_in": "epochs"}, "shares below 1 or whole epochs"),
        ({"milestones_in": "epoch"}, "Did you mean 'epochs'"),
        ({"layer_decay": 0.0}, "layer_decay"),
        ({"group_lrs": {"head": -1.0}}, r"group_lrs\['head'\] is -1.0"),
        ({"group_lrs": {"(": 1.0}}, "not a regular expression"),
    ],
)
def test_wrong_values_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        OptimConfig(**settings)


def test_all_wrong_values_are_named_at_once():
    with pytest.raises(ConfigError, match=r"(?s)lr is -1.*gamma is 2"):
        OptimConfig(lr=-1, gamma=2)


def test_no_decay_on_bias_norm_tokens_positions_and_scale():
    model = Toy()
    groups = parameter_groups(model, OptimConfig(weight_decay=0.1))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {"encoder.embed.weight", "encoder.blocks.0.weight", "encoder.blocks.1.weight", "head.weight"}
    assert sum(len(group["params"]) for group in groups) == len(names)
    assert [group["name"] for group in groups] == ["base/no_decay", "base"]


def test_layer_decay_by_depth():
    scales = layer_scales(Toy(), 0.5)
    assert scales["encoder.cls_token"] == scales["encoder.embed.weight"] == (0, 0.125)
    assert scales["encoder.blocks.0.bias"] == (1, 0.25)
    assert scales["encoder.blocks.1.weight"] == (2, 0.5)
    assert scales["encoder.norm.weight"] == (3, 1.0)
    assert "head.weight" not in scales
    assert layer_scales(Toy(), 1.0) == {}


def test_group_learning_rates_keep_their_ratio_along_the_schedule():
    config = OptimConfig(lr=1e-2, group_lrs={"encoder": 1e-3}, layer_decay=0.5, warmup_steps=2, start_lr=0.0)
    optimizer = build_optimizer(Toy(), config)
    lrs = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert lrs["base"] == 1e-2
    assert lrs["encoder/layer_2"] == pytest.approx(5e-4)
    assert lrs["encoder/layer_0/no_decay"] == pytest.approx(1.25e-4)
    scheduler = build_schedule(optimizer, config, 10)
    optimizer.step()
    scheduler.step()
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == pytest.approx(
        {name: lr / 2 for name, lr in lrs.items()}
    )


def test_a_group_that_matches_nothing_is_an_error():
    with pytest.raises(ConfigError, match=r"'encodr' matches no parameter.*'encoder'"):
        parameter_groups(Toy(), OptimConfig(group_lrs={"encodr": 1.0}))
    frozen = nn.Linear(1, 1).requires_grad_(False)
    with pytest.raises(ConfigError, match="no trainable parameter"):
        parameter_groups(frozen, OptimConfig())


def test_a_frozen_group_keeps_its_rate_for_other_runs():
    model = Toy()
    model.encoder.requires_grad_(False)
    groups = parameter_groups(model, OptimConfig(group_lrs={"encoder": 1e-4}))
    assert {group["name"] for group in groups} == {"base", "base/no_decay"}


def test_everything_is_decayed_when_asked_for():
    groups = parameter_groups(Toy(), OptimConfig(weight_decay=0.1, decay_all=True))
    assert [group["weight_decay"] for group in groups] == [0.1]


def test_milestones_in_epochs():
    config = OptimConfig(lr=1.0, schedule="multistep", milestones=(2, 0.9), milestones_in="epochs")
    assert config.in_steps(2.5).milestones == (6, 0.9)  # an epoch of five batches, two per step
    assert rates(config.in_steps(3), 10) == pytest.approx([1.0] * 6 + [0.1] * 3 + [0.01])
    assert OptimConfig(schedule="multistep", milestones=(2,)).in_steps(math.inf).milestones == (2,)
    with pytest.raises(ConfigError, match="milestones_in 'epochs' needs to know how long the run is"):
        config.in_steps(math.inf)


def test_optimizers():
    adamw = build_optimizer(Toy(), OptimConfig())
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.defaults["fused"]
    assert not build_optimizer(Toy(), OptimConfig(), fused=False).defaults["fused"]
    sgd = build_optimizer(Toy(), OptimConfig(optimizer="sgd", momentum=0.5))
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.defaults["momentum"] == 0.5


def test_schedule_state_is_plain():
    config = OptimConfig()
    state = build_schedule(build_optimizer(Toy(), config), config, 10).state_dict()
    assert state["lr_lambdas"] == [None, None]
