"""Drawn faces for parsing and alignment: schema, splits without common people, cached drawing, saved settings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from farl_lightning.datamodules import SyntheticAlignmentDataModule, SyntheticParsingDataModule
from farl_lightning.errors import ConfigError
from farl_lightning.functional.warp import points_to_source
from farl_lightning.types import from_config

SMALL = {"train_count": 12, "val_count": 4, "test_count": 5, "image_size": 48, "batch_size": 4}


def test_parsing_batches_follow_the_schema():
    data = SyntheticParsingDataModule(**SMALL)
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert len(batches) == 3
    assert set(batches[0]) == {"image", "mask", "matrix", "key"}
    assert batches[0]["image"].shape == (4, 3, 48, 48)
    assert (batches[0]["mask"].dtype, batches[0]["mask"].shape) == (torch.int64, (4, 48, 48))
    assert batches[0]["mask"].max() <= 10
    (val,) = data.val_dataloader()
    assert {"source_mask", "size", "valid", "subsets", "box"} < set(val)
    assert len(list(data.test_dataloader())) == 2
    assert data.spec.classes[4] == "le"
    assert len(SyntheticParsingDataModule(**SMALL, classes=19).spec.classes) == 19


@pytest.mark.parametrize("count", [68, 98, 19])
def test_alignment_truth_comes_back_from_the_crop(count):
    data = SyntheticAlignmentDataModule(**SMALL, landmarks=count)
    (batch,) = data.val_dataloader()
    assert batch["landmarks"].shape == (4, count, 2)
    assert "mask" not in batch
    place = batch["matrix"].double(), data.spec.image_size, data.spec.warp_factor
    back = points_to_source(batch["landmarks"].double(), *place)
    truth = np.stack([face.landmarks(count) for face in data.faces("val").faces])
    assert np.abs(back.numpy() - truth).max() < 0.5
    assert torch.equal(batch["source_landmarks"], torch.from_numpy(truth))


@pytest.mark.parametrize("pictures", [1, 3])
def test_splits_share_neither_pictures_nor_people(pictures):
    data = SyntheticParsingDataModule(
        train_count=60, val_count=30, test_count=30, image_size=16, pictures_per_identity=pictures, cache=False
    )
    sets = [data.faces(split) for split in ("train", "val", "test")]
    people = [{face.identity for face in dataset.faces} for dataset in sets]
    assert [len(group) for group in people] == [60 // pictures, 30 // pictures, 30 // pictures]
    assert len(set.union(*people)) == sum(map(len, people))
    assert len({key for dataset in sets for key in dataset.keys}) == 120


def test_cache_and_seed_change_nothing_about_the_faces():
    one, other = (SyntheticParsingDataModule(**SMALL, cache=cache, seed=cache) for cache in (True, False))
    for first, second in zip(one.faces("train"), other.faces("train"), strict=True):
        assert np.array_equal(first.image, second.image)
        assert np.array_equal(first.mask, second.mask)
    assert one.faces("train") is one.faces("train")
    assert [batch["key"] for batch in one.train_dataloader()] != [batch["key"] for batch in other.train_dataloader()]


def test_a_share_of_drawn_faces():
    data = SyntheticParsingDataModule(**SMALL, train_fraction=0.25)
    assert len(data.faces("train")) == 3
    keys = [key for batch in data.train_dataloader() for key in batch["key"]]
    assert sorted(keys) == sorted(4 * data.faces("train").keys)
    assert data.drawn()["train"]["count"] == 3


def test_settings_are_checked_and_saved():
    for settings, match in (
        ({"train_count": 0}, "train_count must lie between 1 and"),
        ({"pictures_per_identity": 0}, "pictures_per_identity must be at least 1"),
        ({"classes": 12}, "classes must be 11 or 19"),
    ):
        with pytest.raises(ConfigError, match=match):
            SyntheticParsingDataModule(**settings)
    with pytest.raises(ConfigError, match="landmarks 68, 98 or 19"):
        SyntheticAlignmentDataModule(landmarks=70)
    data = SyntheticAlignmentDataModule(**SMALL, landmarks=19)
    again = from_config(data.to_config(), SyntheticAlignmentDataModule)
    assert again.spec == data.spec
    assert again.hparams["landmarks"] == 19
