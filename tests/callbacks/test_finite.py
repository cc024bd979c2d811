"""A step that is not finite changes nothing on any process, is counted and traced, and many in a row end the run."""

from __future__ import annotations

import json
import os

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader

from farl_lightning.callbacks.finite import FiniteGuard
from farl_lightning.errors import ConfigError, TrainingError
from farl_lightning.functional.distributed import rank, world_size
from farl_lightning.testing.distributed import run_distributed


class Line(L.LightningModule):
    """A linear network; the loss of chosen steps is spoilt on chosen ranks."""

    def __init__(self, bad: dict[int, str], bad_rank: int = 0, norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2) if norm else nn.Identity())
        self.bad, self.bad_rank, self.weights = bad, bad_rank, []

    def training_step(self, batch, batch_idx):
        kind = self.bad.get(batch_idx) if self.global_rank == self.bad_rank else None
        image = batch["image"] * (float("nan") if kind == "input" else 1)
        loss = self.model(image).square().mean()
        if kind == "gradient":  # the loss is finite, its gradient is 0 * infinity
            loss = loss + (self.model[0].weight - self.model[0].weight.detach()).abs().sqrt().sum()
        return loss * {"nan": float("nan"), "inf": float("inf")}.get(kind, 1)

    def on_train_batch_end(self, *_):
        self.weights.append(torch.cat([p.detach().flatten() for p in self.parameters()]).clone())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.1, weight_decay=0.1)


def loader(count: int = 6) -> DataLoader:
    data = [{"image": torch.randn(4, 3), "key": [f"r{rank()}-b{i}-{j}" for j in range(6)]} for i in range(count)]
    return DataLoader(data, batch_size=None)


def fit(folder, task: Line, guard: FiniteGuard, count: int = 6, **settings) -> L.Trainer:
    if world_size() > 1:
        os.environ |= {"LOCAL_RANK": str(rank()), "NODE_RANK": "0", "WORLD_SIZE": str(world_size())}
        strategy = DDPStrategy(process_group_backend="gloo", cluster_environment=LightningEnvironment())
        settings |= {"strategy": strategy, "devices": world_size(), "use_distributed_sampler": False}
    trainer = L.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        max_epochs=1,
        logger=False,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[guard],
        **settings,
    )
    torch.manual_seed(1 + rank())
    trainer.fit(task, loader(count))
    return trainer


@pytest.mark.parametrize("kind", ["nan", "inf", "gradient"])
def test_a_step_is_left_out_and_traced(tmp_path, kind):
    task, guard = Line({2: kind, 4: kind}), FiniteGuard(max_in_a_row=2)
    with pytest.warns(UserWarning, match=r"step 2: loss .* on rank 0 with samples r0-b2-0, .*nonfinite.jsonl"):
        trainer = fit(tmp_path, task, guard, gradient_clip_val=1.0)
    moved = [not torch.equal(a, b) for a, b in zip(task.weights, task.weights[1:], strict=False)]
    assert moved == [True, False, True, False, True]
    assert all(weights.isfinite().all() for weights in task.weights)
    assert trainer.callback_metrics["train/nonfinite_steps"] == 2
    assert trainer.global_step == 6  # numbers and schedule go on
    first, second = map(json.loads, (tmp_path / "nonfinite.jsonl").read_text().splitlines())
    assert (first["step"], second["step"], first["epoch"]) == (2, 4, 0)
    (batch,) = first["batches"]
    assert batch["keys"] == [f"r0-b2-{j}" for j in range(6)]
    assert batch["loss"] == kind if kind != "gradient" else float(batch["loss"]) > 0


def test_all_batches_of_an_accumulated_step_are_listed(tmp_path):
    task = Line({1: "nan"})
    with pytest.warns(UserWarning, match="left out"):
        fit(tmp_path, task, FiniteGuard(), accumulate_grad_batches=3)
    (entry,) = map(json.loads, (tmp_path / "nonfinite.jsonl").read_text().splitlines())
    assert [batch["keys"][0] for batch in entry["batches"]] == ["r0-b0-0", "r0-b1-0", "r0-b2-0"]
    assert [batch["loss"] == "nan" for batch in entry["batches"]] == [False, True, False]


def test_many_in_a_row_end_the_run_and_the_counts_survive_a_resume(tmp_path):
    guard = FiniteGuard(max_in_a_row=3)
    task = Line({0: "nan", 2: "nan", 3: "nan", 4: "nan"})
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(TrainingError, match=r"3 steps in a row .*step 4: loss nan on rank 0 with samples r0-b4-0"),
    ):
        fit(tmp_path, task, guard)
    assert len(task.weights) == 4
    resumed = FiniteGuard()
    resumed.load_state_dict(guard.state_dict())
    assert (resumed.count, resumed.in_a_row) == (4, 3)


def test_damaged_running_statistics_end_the_run_at_once(tmp_path):
    with pytest.raises(TrainingError, match=r"running statistics now \(model.1.running_mean\).*r0-b1-0"):
        fit(tmp_path, Line({1: "input"}, norm=True), FiniteGuard())


def test_a_number_below_one_is_refused():
    with pytest.raises(ConfigError, match="max_in_a_row=0"):
        FiniteGuard(max_in_a_row=0)


def _fit_on_ranks(folder) -> tuple[list, int]:
    task, guard = Line({2: "nan"}, bad_rank=1), FiniteGuard()
    fit(folder, task, guard)
    return task.weights, guard.count


def test_one_bad_process_leaves_the_step_out_on_all(tmp_path):
    (first, count), (second, other) = run_distributed(_fit_on_ranks, 2, tmp_path)
    assert count == other == 1
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(first[1], first[2])
    assert not torch.equal(first[2], first[3])
    (entry,) = map(json.loads, (tmp_path / "nonfinite.jsonl").read_text().splitlines())
    assert [(batch["rank"], batch["loss"] == "nan") for batch in entry["batches"]] == [(0, False), (1, True)]
    assert entry["batches"][1]["keys"][0] == "r1-b2-0"
