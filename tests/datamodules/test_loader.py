"""The resumable loader, keyed shuffling and padded evaluation, without and with Lightning's order of calls."""

from __future__ import annotations

import warnings
from collections import Counter

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from farl_lightning.datamodules.base import BaseDataModule
from farl_lightning.datamodules.loader import ResumableLoader
from farl_lightning.datamodules.samplers import PaddedSampler, PaddedView, ShuffledBatches
from farl_lightning.datasets.source import Replica
from farl_lightning.errors import CheckpointError, ConfigError
from farl_lightning.types import FaceSpec


class Numbers:
    """Samples are their index and epoch."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self):
        return self.count

    def sample(self, index, epoch):
        return {"image": torch.tensor([float(index)]), "index": torch.tensor([index, epoch])}


def collate(samples):
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def loader(count=23, batch_size=4, rank=0, world=1, workers=0, **kwargs):
    replica = Replica(rank, world)
    source = ShuffledBatches(Numbers(count), collate, batch_size, 0, replica)
    return ResumableLoader(source, replica, workers, **kwargs)


def epoch_of(loader, epoch):
    loader.set_epoch(epoch)
    return [batch["index"].tolist() for batch in loader]


def test_an_epoch_is_a_keyed_permutation():
    first = loader()
    epochs = [epoch_of(first, epoch) for epoch in range(3)]
    assert [len(epoch) for epoch in epochs] == [5, 5, 5] == [len(first)] * 3
    for number, epoch in enumerate(epochs):
        samples = [tuple(sample) for batch in epoch for sample in batch]
        assert len(set(samples)) == 20
        assert {passed for _, passed in samples} == {number}
    assert len({str(epoch) for epoch in epochs}) == 3
    assert epoch_of(loader(), 2) == epochs[2]


def test_processes_share_an_epoch_without_overlap():
    seen = Counter(tuple(s) for rank in range(3) for batch in epoch_of(loader(rank=rank, world=3), 0) for s in batch)
    assert len(seen) == 12
    assert set(seen.values()) == {1}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 3, 5, 8])
def test_resume_with_the_same_or_another_number_of_workers(workers, stop):
    whole = [batch for epoch in range(3) for batch in epoch_of(loader(), epoch)]
    first, got = loader(workers=2 - workers), []
    for epoch in range(3):
        first.set_epoch(epoch)
        for batch in first:
            got.append(batch["index"].tolist())
            if len(got) == stop:
                break
        if len(got) == stop:
            break
    state = first.state_dict()
    second = loader(workers=workers)
    second.load_state_dict(state)
    for later in range(epoch, 3):
        got += epoch_of(second, later)
    assert got == whole


def test_another_number_of_processes_repeats_and_loses_nothing():
    seen, states = Counter(), []
    for rank in range(2):
        one = loader(rank=rank, world=2, count=48)
        iterator = iter(one)
        for _ in range(3):
            seen.update(tuple(s) for s in next(iterator)["index"].tolist())
        states.append(one.state_dict())
    state = {**states[0], "processes": [entry["processes"][0] for entry in states]}
    alone = loader(count=48)
    alone.load_state_dict(state)
    for epoch in range(2):
        seen.update(tuple(s) for batch in epoch_of(alone, epoch) for s in batch)
    assert set(seen.values()) == {1}
    assert {index for index, passed in seen if passed == 0} == set(range(48))


def test_iter_decides_nothing_before_the_first_batch():
    expected, one = epoch_of(loader(), 7), loader()
    iterator = iter(one)  # Lightning calls iter() first and tells the epoch afterwards
    one.sampler.set_epoch(7)
    assert [batch["index"].tolist() for batch in iterator] == expected


def test_a_state_from_the_end_of_an_epoch_starts_the_next_one():
    one = loader()
    epoch_of(one, 0)
    second = loader()
    second.load_state_dict(one.state_dict())
    assert epoch_of(second, 1) == epoch_of(loader(), 1)
    third = loader()
    third.load_state_dict(one.state_dict())
    assert epoch_of(third, 0) == []


def test_a_state_before_the_first_batch():
    second = loader()
    second.load_state_dict(loader().state_dict())
    assert epoch_of(second, 0) == epoch_of(loader(), 0)


def test_other_data_are_announced_and_started_anew():
    one, other = loader(), loader(count=40)
    next(iter(one))
    with pytest.warns(UserWarning, match="training data changed"):
        other.load_state_dict(one.state_dict())
    assert len(epoch_of(other, 0)) == len(other) - 1  # the step count goes on, the data start anew


def test_a_state_of_another_version_is_refused():
    with pytest.raises(CheckpointError, match="version 99"):
        loader().load_state_dict({"version": 99})


def test_the_same_batches_again_for_overfitting():
    one = loader(repeat=True)
    assert epoch_of(one, 0) == epoch_of(one, 1)


def test_too_small_a_set_says_which_batch_size_fits():
    with pytest.raises(ConfigError, match=r"7 training samples do not fill one batch of 4 on 2 process.*to 3 or less"):
        loader(count=7, world=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_generator_is_left_alone(workers):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    epoch_of(loader(workers=workers), 0)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(("count", "world"), [(10, 1), (10, 3), (2, 4), (12, 4)])
def test_padded_evaluation_is_even_and_counts_each_sample_once(count, world):
    per_rank = []
    for rank in range(world):
        sampler = PaddedSampler(count, Replica(rank, world))
        batches = DataLoader(PaddedView(Numbers(count)), batch_size=2, sampler=sampler, collate_fn=collate)
        per_rank.append(
            [(i[0], bool(v)) for b in batches for i, v in zip(b["index"].tolist(), b["valid"], strict=True)]
        )
    assert len({len(samples) for samples in per_rank}) == 1
    valid = [index for samples in per_rank for index, is_valid in samples if is_valid]
    assert sorted(valid) == list(range(count))


class Module(BaseDataModule):
    """Numbers as a datamodule."""

    def __init__(self, count: int = 23, batch_size: int = 4, num_workers: int = 0, seed: int = 0) -> None:
        super().__init__(batch_size, num_workers=num_workers, seed=seed)
        self.data = Numbers(count)
        self.spec = FaceSpec()

    def fit_images(self, count):
        return self.sample_images(self.data, count)

    def train_dataloader(self):
        return self.train_loader(self.data, collate)

    def val_dataloader(self):
        return self.eval_loader(self.data, collate)


class Task(L.LightningModule):
    """Notes what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[list[int]]] = []

    def training_step(self, batch, _):
        self.seen.append(batch["index"].tolist())
        return self.weight * 0

    def validation_step(self, batch, _):
        pass

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        # asks for the number of steps, and with it for the loader, before Lightning restores the loops
        return [optimizer], [
            torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=self.trainer.estimated_stepping_batches)
        ]


def fit(tmp_path, task=None, module=None, ckpt=None, **kwargs):
    task, module = task or Task(), module or Module()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = L.Trainer(
        **quiet, **{"max_epochs": 3, "enable_checkpointing": False, "default_root_dir": tmp_path, **kwargs}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(task, module, ckpt_path=ckpt)
    return trainer, task


class SaveAt(L.Callback):
    """Saves a checkpoint after one step."""

    def __init__(self, path, step):
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("step", [1, 4, 5, 6, 10, 12])
def test_lightning_resumes_after_any_step(tmp_path, step):
    _, whole = fit(tmp_path, callbacks=[SaveAt(tmp_path / "a.ckpt", step)])
    _, rest = fit(tmp_path, ckpt=tmp_path / "a.ckpt")
    assert len(whole.seen) == 15
    assert rest.seen == whole.seen[step:]


def test_limited_epochs_go_on_where_they_stopped_and_a_second_fit_begins_anew(tmp_path):
    module = Module()
    _, limited = fit(tmp_path, module=module, limit_train_batches=2, limit_val_batches=0)
    assert len({tuple(sample) for batch in limited.seen for sample in batch}) == 24
    _, again = fit(tmp_path, module=module, limit_train_batches=2, limit_val_batches=0)
    assert again.seen == limited.seen


def test_overfit_batches_repeats(tmp_path):
    _, task = fit(tmp_path, overfit_batches=2, limit_val_batches=0)
    assert task.seen[:2] == task.seen[2:4] == task.seen[4:6]


def test_hyper_parameters_are_plain_and_rebuild_the_datamodule(tmp_path):
    trainer, _ = fit(tmp_path, module=Module(count=30, seed=4))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)["datamodule_hyper_parameters"]
    assert saved["_class_path"].endswith("test_loader.Module")
    rebuilt = Module.load_from_checkpoint(tmp_path / "a.ckpt")
    assert (len(rebuilt.data), rebuilt.seed, rebuilt.batch_size) == (30, 4, 4)


def test_fit_images_depend_on_the_seed_alone():
    images = Module().fit_images(5)
    assert torch.equal(images, Module().fit_images(5))
    assert not torch.equal(images, Module(seed=1).fit_images(5))
    assert len(set(Module().fit_images(100).flatten().tolist())) == 23


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("num_workers", -1)])
def test_numbers_out_of_range(name, value):
    with pytest.raises(ConfigError, match=f"{name} is {value}"):
        Module(**{name: value})
