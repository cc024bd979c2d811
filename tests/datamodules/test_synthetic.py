"""SyntheticFacesDataModule: batches, splits, keyed randomness, saved settings."""

from __future__ import annotations

import pytest
import torch

from farl_lightning.datamodules import SyntheticFacesDataModule
from farl_lightning.datamodules.synthetic import SPLIT_SIZE
from farl_lightning.datasets.synthetic import CELEBA_ATTRIBUTES
from farl_lightning.errors import ConfigError
from farl_lightning.text import Tokenizer
from farl_lightning.transforms.pretrain import PretrainTransformConfig
from farl_lightning.types import from_config

SMALL = {"train_count": 40, "val_count": 10, "test_count": 6, "batch_size": 8, "cache": False}
TRANSFORM = PretrainTransformConfig(image_size=32, patch_size=8, min_block=2, num_masked=6)


def _module(**changes) -> SyntheticFacesDataModule:
    return SyntheticFacesDataModule(**{"transform": TRANSFORM, **SMALL, **changes})


def _train(data: SyntheticFacesDataModule, epoch: int = 0) -> list:
    loader = data.train_dataloader()
    loader.set_epoch(epoch)
    return list(loader)


def test_training_batches_follow_the_schema():
    batches = _train(_module())
    assert len(batches) == 5
    batch = batches[0]
    assert set(batch) == {"image", "text", "patch_mask", "labels", "key", "caption"}
    assert batch["image"].shape == (8, 3, 32, 32)
    assert batch["image"].dtype == torch.float32
    assert batch["text"].shape == (8, 77)
    assert batch["patch_mask"].shape == (8, 16)
    assert batch["patch_mask"].dtype == torch.bool
    assert batch["labels"].shape == (8, 40)
    assert len({key for batch in batches for key in batch["key"]}) == 40
    torch.testing.assert_close(batch["text"], Tokenizer()(batch["caption"]))


def test_evaluation_gives_all_captions_in_order():
    data = _module(captions_per_image=3)
    batches = list(data.val_dataloader())
    assert [len(batch["key"]) for batch in batches] == [8, 2]
    assert [key for batch in batches for key in batch["key"]] == [
        f"synthetic-0-{SPLIT_SIZE + row}" for row in range(10)
    ]
    assert batches[0]["texts"].shape == (8, 3, 77)
    assert batches[0]["valid"].all()
    face = data.faces("val")[4]
    torch.testing.assert_close(batches[0]["texts"][4], Tokenizer()(face.captions))
    assert tuple(batches[0]["labels"][4].tolist()) == face.attributes
    again = list(data.val_dataloader())
    torch.testing.assert_close(again[0]["patch_mask"], batches[0]["patch_mask"])
    assert len(list(data.test_dataloader())) == len(list(data.predict_dataloader())) == 1


def test_splits_share_neither_pictures_nor_people():
    data = _module(train_count=200, val_count=50, test_count=50, identities=20)
    splits = [list(data.faces(split)) for split in ("train", "val", "test")]
    keys = [{face.key for face in faces} for faces in splits]
    people = [{face.identity for face in faces} for faces in splits]
    assert [len(split) for split in keys] == [200, 50, 50]
    assert len(people[0]) == 20
    for sets in (keys, people):
        assert not sets[0] & (sets[1] | sets[2])
        assert not sets[1] & sets[2]


def test_augmentation_and_captions_change_with_the_epoch_and_repeat_with_the_seed():
    first, second = (dict(_by_key(_train(_module(), epoch))) for epoch in (0, 1))
    assert first.keys() == second.keys()
    assert sum(first[key][0] != second[key][0] for key in first) > 20  # another caption
    assert sum(not torch.equal(first[key][1], second[key][1]) for key in first) > 30  # another window
    again = dict(_by_key(_train(_module())))
    assert all(again[key][0] == first[key][0] and torch.equal(again[key][1], first[key][1]) for key in first)
    other = [batch["key"] for batch in _train(_module(seed=1))]
    assert other != [batch["key"] for batch in _train(_module())]
    assert {key for batch in other for key in batch} == first.keys()  # faces_seed stays


def _by_key(batches: list):
    for batch in batches:
        yield from zip(batch["key"], zip(batch["caption"], batch["image"], strict=True), strict=True)


def test_cache_and_workers_change_nothing():
    plain, cached = _train(_module()), _train(_module(cache=True, num_workers=2))
    for a, b in zip(plain, cached, strict=True):
        assert a["key"] == b["key"]
        torch.testing.assert_close(a["image"], b["image"], rtol=0, atol=0)
        assert torch.equal(a["text"], b["text"])
        assert torch.equal(a["patch_mask"], b["patch_mask"])


def test_fit_images_are_training_images():
    data = _module()
    images = data.fit_images(12)
    assert images.shape == (12, 3, 32, 32)
    torch.testing.assert_close(images, _module().fit_images(12))
    assert data.fit_images(100).shape[0] == 40
    pixels = {tuple(image.flatten()[:50].tolist()) for batch in _train(data) for image in batch["image"]}
    assert all(tuple(image.flatten()[:50].tolist()) in pixels for image in images)


def test_spec_names_what_the_labels_are():
    spec = _module().spec
    assert spec.image_size == 32
    assert spec.attributes == CELEBA_ATTRIBUTES
    assert spec.num_landmarks == 68
    assert spec.class_flips == ((2, 3), (4, 5))


@pytest.mark.parametrize("crop", ["align", "box", "center"])
def test_faces_can_be_cropped(crop):
    template = ((-0.3, -0.1), (0.3, -0.1), (0.0, 0.1), (-0.2, 0.4), (0.2, 0.4))
    transform = PretrainTransformConfig(image_size=32, patch_size=8, min_block=2, crop=crop, template=template)
    data = _module(image_size=96, transform=transform)
    assert data.faces("train")[0].image.shape == (96, 96, 3)
    batch = _train(data)[0]
    assert batch["image"].shape == (8, 3, 32, 32)
    assert data.spec.crop == ("none" if crop == "center" else crop)


def test_settings_are_saved_as_plain_data():
    data = _module(identities=7)
    saved = dict(data.hparams)
    assert saved["_class_path"] == "farl_lightning.datamodules.synthetic.SyntheticFacesDataModule"
    assert saved["transform"]["patch_size"] == 8
    assert saved["identities"] == 7
    plain = _module(transform=None)
    rebuilt = from_config(plain.to_config(), SyntheticFacesDataModule)
    assert dict(rebuilt.hparams) == dict(plain.hparams)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_count": 0}, "train_count must lie between 1 and 10000000, got 0"),
        ({"val_count": 10_000_001}, "val_count must lie between"),
        ({"identities": 0}, "identities must lie between 1 and 10000000, or be null, got 0"),
        ({"captions_per_image": 0}, "num_captions must be at least 1, got 0"),
    ],
)
def test_numbers_out_of_range_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        _module(**changes).faces("train")


@pytest.mark.parametrize(("each", "people"), [(1, 12), (4, 3)])
def test_pictures_per_identity_counts_the_people_of_every_split(each: int, people: int) -> None:
    data = SyntheticFacesDataModule(train_count=12, val_count=12, cache=False, pictures_per_identity=each)
    shown = {split: {face.identity for face in data.faces(split)} for split in ("train", "val")}
    assert len(shown["train"]) == len(shown["val"]) == people
    assert not shown["train"] & shown["val"]
