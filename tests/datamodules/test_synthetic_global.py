"""Drawn faces with labels of the whole face: what they are, and that splits share nobody."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from farl_lightning.datamodules import SyntheticGlobalDataModule
from farl_lightning.datasets import SyntheticFaces
from farl_lightning.datasets.drawn_global import DrawnGlobalFaces, age_group
from farl_lightning.transforms.dense_config import DenseTransformConfig
from farl_lightning.types import ATTRIBUTES


def data(**changes) -> SyntheticGlobalDataModule:
    settings = {"train_count": 8, "val_count": 5, "test_count": 3, "image_size": 32, "batch_size": 4, "cache": False}
    return SyntheticGlobalDataModule(**{**settings, **changes})


@pytest.mark.parametrize("cache", [False, True])
def test_records_hold_what_is_true_of_the_face(cache):
    faces = SyntheticFaces(6, 32, seed=3)
    dataset = DrawnGlobalFaces(faces, cache)
    for index, face in enumerate(faces):
        record = dataset[index]
        assert record.key == face.key == dataset.keys[index]
        np.testing.assert_array_equal(record.image, face.image)
        assert record.labels[ATTRIBUTES].tolist() == list(face.attributes)
        assert record.labels["age"] == face.age
        assert dataset.spec.label_names["expression"][record.labels["expression"]] in (
            *("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger"),
        )
        assert record.groups == {"gender": ("female", "male")[face.person.male], "age_group": age_group(face.age)}
        male = dataset.spec.attributes.index("Male")
        assert record.labels["gender"] == record.labels[ATTRIBUTES][male]
        smiling = dataset.spec.attributes.index("Smiling")
        name = dataset.spec.label_names["expression"][record.labels["expression"]]
        assert (record.labels[ATTRIBUTES][smiling] == 1) == (name == "happy")


def test_batches_bring_labels_and_groups():
    module = data(transform=DenseTransformConfig(size=24, crop="align", horizontal_flip=0.5))
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    assert batch["image"].shape == (4, 3, 24, 24)
    assert batch["labels"][ATTRIBUTES].shape == (4, 40)
    assert batch["labels"][ATTRIBUTES].dtype == batch["labels"]["expression"].dtype == torch.int64
    assert batch["labels"]["age"].dtype == torch.float32
    assert len(batch["groups"]["age_group"]) == 4
    assert module.spec.attributes[0] == "5_o_Clock_Shadow"
    assert module.spec.label_names["age"] == ()
    (rows,) = [b["valid"].sum() for b in module.val_dataloader()][1:]
    assert rows == 1


def test_splits_share_nobody_and_labels_vary():
    module = data(train_count=40, val_count=40, test_count=40)
    found = {split: module.faces(split) for split in ("train", "val", "test")}
    people = {split: {face.identity for face in faces.faces} for split, faces in found.items()}
    assert len(set.union(*people.values())) == sum(map(len, people.values())) == 120
    assert len({record.labels["expression"] for record in found["train"]}) == 7
    assert {record.groups["age_group"] for record in found["train"]} == {"0-19", "20-39", "40-59", "60+"}


def test_age_groups_meet_at_their_limits():
    assert [age_group(years) for years in (0, 19.99, 20, 39.99, 40, 59.99, 60, 99)] == [
        *("0-19", "0-19", "20-39", "20-39", "40-59", "40-59", "60+", "60+"),
    ]
