"""Probes during training: right numbers, on one process and on two, and no trace in the run."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler

from farl_lightning.callbacks import OnlineProbe
from farl_lightning.errors import ConfigError
from farl_lightning.functional.distributed import rank, world_size
from farl_lightning.probing.probe import judge, predict
from farl_lightning.probing.targets import Target
from farl_lightning.testing.distributed import run_distributed
from farl_lightning.types import FaceSpec

NAMES = ("a", "b")


def faces(count: int = 60) -> list[dict]:
    """Pictures of six numbers; class, number and attributes are told by the first three."""
    images = torch.randn(count, 6, 1, 1, generator=torch.Generator().manual_seed(0))
    found = []
    for number, image in enumerate(images):
        one, two, three = image[:3, 0, 0].tolist()
        labels = {
            "kind": torch.tensor(int(one > 0) if number else -1),
            "age": torch.tensor(10 * two),
            "attributes": torch.tensor([int(one > 0), int(three > 0)]),
        }
        found.append({"image": image, "key": str(number), "labels": labels, "valid": torch.tensor(number != 5)})
    return found


class Faces(L.LightningDataModule):
    spec = FaceSpec(attributes=NAMES, label_names={"kind": ("no", "yes"), "age": ()})

    def __init__(self, labelled: bool = True) -> None:
        super().__init__()
        self.samples = faces() if labelled else [{k: v for k, v in s.items() if k != "labels"} for s in faces()]

    def train_dataloader(self):
        return DataLoader(self.samples, batch_size=20)

    def val_dataloader(self):
        sampler = DistributedSampler(self.samples, world_size(), rank(), shuffle=False)
        return DataLoader(self.samples, batch_size=7, sampler=sampler)


class Task(L.LightningModule):
    """Its features are the pictures themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch, batch_idx):
        return (self.weight * batch["image"]).mean() + torch.rand(1)

    def validation_step(self, batch, batch_idx):
        return None

    def predict_step(self, batch, batch_idx=0):
        assert not torch.is_grad_enabled()
        return {"image_features": batch["image"].flatten(1), "key": batch["key"]}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(tmp_path, *callbacks, data=None, epochs=1, sanity=0):
    task = Task()
    trainer = L.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=sanity,
        callbacks=list(callbacks),
    )
    L.seed_everything(0, verbose=False)
    trainer.fit(task, datamodule=data or Faces())
    return task, trainer


def test_every_face_is_answered_once_by_probes_that_have_not_seen_it(tmp_path):
    probe = OnlineProbe("kind", methods=("ridge", "knn"), folds=58)  # leave one out
    _, trainer = fit(tmp_path, probe)
    rows = [face for face in faces() if face["key"] not in ("0", "5")]
    x = torch.stack([row["image"].flatten() for row in rows])
    target = Target("class", torch.stack([row["labels"]["kind"] for row in rows]), ("no", "yes"))
    for method in ("ridge", "knn"):
        answers = torch.empty(58, 2)
        for out in range(58):
            kept = torch.arange(58) != out
            answers[out] = predict(x[kept], target.take(kept), x[out : out + 1], method)[0]
        want = judge(answers, target)
        assert trainer.callback_metrics[f"val/probe_{method}_kind"].item() == pytest.approx(want.scores["accuracy"])
        assert trainer.callback_metrics["val/probe_baseline_kind"].item() == pytest.approx(want.baseline.value)


@pytest.mark.parametrize(("column", "limit"), [("attributes", 85), ("age", 1)])
def test_other_labels(tmp_path, column, limit):
    _, trainer = fit(tmp_path, OnlineProbe(column, methods=("linear",)))
    value = trainer.callback_metrics[f"val/probe_linear_{column}"].item()
    baseline = trainer.callback_metrics[f"val/probe_baseline_{column}"].item()
    assert (value < limit < baseline) if column == "age" else (value > limit > baseline)


def test_the_run_does_not_change(tmp_path):
    plain, after_plain = fit(tmp_path)[0], torch.rand(3)
    probed, after_probed = fit(tmp_path, OnlineProbe("kind", methods=("sgd", "linear")))[0], torch.rand(3)
    assert torch.equal(plain.weight, probed.weight)
    assert torch.equal(after_plain, after_probed)


def test_data_of_its_own_and_pauses(tmp_path):
    seen = []

    class Watch(L.Callback):
        def on_validation_end(self, trainer, pl_module):
            seen.append("val/probe_knn_kind" in trainer.callback_metrics)
            trainer._logger_connector._callback_metrics.clear()

    probe = OnlineProbe("kind", data=Faces(), methods=("knn",), every_n_epochs=2, max_faces=30)
    fit(tmp_path, probe, Watch(), data=Faces(labelled=False), epochs=3, sanity=1)
    assert seen[-3:] == [True, False, True]


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'knn'"):
        OnlineProbe(methods=("nkn",))
    with pytest.raises(ConfigError, match="folds is 1"):
        OnlineProbe(folds=1)
    with pytest.raises(ConfigError, match="Did you mean 'kind'"):
        fit(tmp_path, OnlineProbe("knid"))
    with pytest.raises(ConfigError, match="data of its own"):
        fit(tmp_path, OnlineProbe("kind"), data=Faces(labelled=False))
    with pytest.raises(ConfigError, match="cannot make 61 folds"):
        fit(tmp_path, OnlineProbe("age", folds=61))


def _probe_on_ranks(max_faces: int) -> dict[str, float]:
    probe, data, task = OnlineProbe("kind", max_faces=max_faces), Faces(), Task()
    probe._start(rank(), world_size())
    for batch in data.val_dataloader():
        if probe._seen * world_size() < max_faces:
            probe._keep(task, batch)
    return probe.results(torch.device("cpu"), data.spec)


@pytest.mark.parametrize("max_faces", [5000, 31])
def test_two_processes_find_what_one_finds(max_faces):
    first, second = run_distributed(_probe_on_ranks, 2, max_faces)
    assert first == _probe_on_ranks(max_faces)
    assert second == {}
