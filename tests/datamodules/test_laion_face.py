"""The datamodule over shards: batches, validation, counting, and clear words when something is missing."""

from __future__ import annotations

import json
import pickle

import pytest
import torch

from farl_lightning.datamodules.laion_face import LaionFaceDataModule
from farl_lightning.datasets.detections import index_detections
from farl_lightning.datasets.source import Entry, Replica
from farl_lightning.errors import ConfigError, DataError, DatasetNotFoundError
from farl_lightning.testing.shards import write_fake_laion_face
from farl_lightning.transforms.pretrain import PretrainTransformConfig

SMALL = PretrainTransformConfig(image_size=32, patch_size=8, min_block=2)


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fake")
    return write_fake_laion_face(folder, shards=2, samples=10, faults={"not_an_image": 1, "empty_caption": 1})


def module(fake, **settings):
    return LaionFaceDataModule(
        str(fake.folder), **{"transform": SMALL, "batch_size": 4, "shuffle_buffer": 8, "val_samples": 100, **settings}
    )


def test_training_batches(fake):
    data = module(fake, samples_per_epoch=21)
    data.setup("fit")
    loader = data.train_dataloader()
    batches = list(loader)
    assert len(batches) == len(loader) == 5
    assert batches[0]["image"].shape == (4, 3, 32, 32)
    assert batches[0]["text"].shape == (4, 77)
    assert batches[0]["patch_mask"].shape == (4, 16)
    assert sorted(key for batch in batches for key in batch["key"]) == sorted(fake.keys)
    assert data.train_dataloader() is loader
    assert data.spec.image_size == 32


def test_epochs_are_counted_by_headers_or_statistics(tmp_path):
    fake = write_fake_laion_face(tmp_path, shards=3, samples=5, faults={"missing_image": 1})
    data = module(fake)
    data.setup("fit")
    assert data.epoch_length == 16
    for number, shard in enumerate(fake.shards):
        shard.with_name(f"{shard.stem}_stats.json").write_text(json.dumps({"count": 9, "successes": 100 + number}))
    data = module(fake)
    data.setup("fit")
    assert data.epoch_length == 303


def test_an_uncountable_epoch_has_to_be_stated():
    data = LaionFaceDataModule("s3://bucket/{000..999}.tar", transform=SMALL)
    data.setup("fit")
    with pytest.raises(ConfigError, match="samples_per_epoch is not set, and the 1000 shards"):
        data.train_dataloader()


def test_validation_holds_every_sample_once_with_all_captions(fake):
    data = module(fake, val_shards=str(fake.folder))
    data.setup("validate")
    batches = list(data.val_dataloader())
    keys = [key for batch in batches for key, valid in zip(batch["key"], batch["valid"], strict=True) if valid]
    assert keys == fake.keys
    assert sum(int((~batch["valid"]).sum()) for batch in batches) == 1  # the undecodable one
    reasons = [drop["reason"] for batch in batches for drop in batch["dropped"]]
    assert sorted(reasons) == ["empty_caption", "not_an_image"]
    assert batches[0]["texts"].shape == (4, 1, 77)
    again = list(data.val_dataloader())
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(batches, again, strict=True))


def test_test_shards_default_to_validation(fake):
    data = module(fake, val_shards=str(fake.folder), val_samples=3)
    data.setup("test")
    assert sum(len(batch["key"]) for batch in data.test_dataloader()) == 3
    assert data.val_dataloader() == []


def test_predict_reads_what_test_reads(fake):
    data = module(fake, val_shards=str(fake.folder))
    data.setup("predict")
    batches = list(data.predict_dataloader())
    rows = [row for batch in batches for row in zip(batch["key"], batch["valid"].tolist(), strict=True)]
    assert [key for key, valid in rows if valid] == fake.keys
    with pytest.raises(ConfigError, match=r"predict reads data\.test_shards, or else data\.val_shards"):
        module(fake).predict_dataloader()


def test_without_validation(fake):
    data = module(fake)
    data.setup("fit")
    assert data.val_dataloader() == []


@pytest.mark.parametrize(("rank", "world"), [(0, 2), (1, 2)])
def test_processes_read_disjoint_halves(fake, rank, world, monkeypatch):
    monkeypatch.setattr(LaionFaceDataModule, "replica", Replica(rank, world))
    data = module(fake, samples_per_epoch=16)
    data.setup("fit")
    keys = [key for batch in data.train_dataloader() for key in batch["key"]]
    assert len(keys) == 8
    assert len({key.split("/")[1] for key in keys}) == 1  # one shard each


@pytest.mark.parametrize("workers", [0, 2])
def test_worker_processes_change_only_the_order(fake, workers):
    data = module(fake, samples_per_epoch=20, num_workers=workers, batch_size=5)
    data.setup("fit")
    images = {k: i for b in data.train_dataloader() for k, i in zip(b["key"], b["image"], strict=True)}
    alone = module(fake, samples_per_epoch=20)
    alone.setup("fit")
    for batch in alone.train_dataloader():
        for key, image in zip(batch["key"], batch["image"], strict=True):
            assert torch.equal(images[key], image)


def test_the_stream_reaches_workers_that_are_not_forked(fake):
    data = module(fake, samples_per_epoch=20)
    data.setup("fit")
    source = data.train_dataloader().source
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301
    for one in (source, copy):
        one.begin(Entry(0, one.first_positions(0)))
    for ours, theirs in zip(source, copy, strict=True):
        assert ours.batch["key"] == theirs.batch["key"]
        assert torch.equal(ours.batch["image"], theirs.batch["image"])


def test_fit_images(fake):
    data = module(fake, samples_per_epoch=8)
    images = data.fit_images(6)
    assert images.shape == (6, 3, 32, 32)
    assert torch.equal(images, module(fake).fit_images(6))
    assert len(data.fit_images(500)) == len(fake.keys)


def test_crops_need_detections(fake, tmp_path):
    index_detections([fake.detections], tmp_path / "table")
    crop = PretrainTransformConfig(image_size=32, patch_size=8, min_block=2, crop="align")
    data = module(fake, transform=crop, detections=str(tmp_path / "table"), samples_per_epoch=20)
    data.setup("fit")
    assert {key for batch in data.train_dataloader() for key in batch["key"]} == set(fake.keys)
    without = module(fake, transform=crop, samples_per_epoch=20)
    without.setup("fit")
    with pytest.raises(DataError, match="no_detection"):
        next(iter(without.train_dataloader()))
    wrong = module(fake, transform=crop, detections=str(tmp_path), samples_per_epoch=20)
    wrong.setup("fit")
    with pytest.raises(DatasetNotFoundError, match="index-detections"):
        wrong.train_dataloader()


def test_faces_of_every_picture_need_a_crop(fake):
    with pytest.raises(ConfigError, match="faces 'every' needs crop 'box' or 'align', got crop 'none'"):
        module(fake, faces="every")


def test_missing_folders_are_named(tmp_path):
    data = LaionFaceDataModule(str(tmp_path / "laion"), transform=SMALL)
    with pytest.raises(DatasetNotFoundError, match=rf"{tmp_path}/laion does not exist.*img2dataset.*write-shards"):
        data.setup("fit")


def test_hyper_parameters_are_plain(fake):
    data = module(fake, subset="20M")
    assert data.hparams["transform"]["image_size"] == 32
    assert data.hparams["subset"] == "20M"
    assert data.hparams["_class_path"] == "farl_lightning.datamodules.laion_face.LaionFaceDataModule"
