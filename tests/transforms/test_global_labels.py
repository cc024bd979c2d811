"""Labels of the whole face, from a record through transform, collation and stand-ins to a batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from farl_lightning.datamodules.samples import FaceSamples
from farl_lightning.datasets.bad_sample import BROKEN_IMAGE, BadSample
from farl_lightning.datasets.faces import FaceDataset, FaceSubset
from farl_lightning.errors import DataError
from farl_lightning.transforms.collate_faces import collate_faces
from farl_lightning.transforms.dense import DenseTransform, DenseTransformConfig
from farl_lightning.types import FaceRecord, FaceSpec

SPEC = FaceSpec(attributes=("hat", "smile"), label_names={"gender": ("F", "M"), "age": ()})


class Labelled(FaceDataset):
    """Three faces, of which the last cannot be read."""

    spec = SPEC
    labels = ("gender", "age", "attributes")
    groups = ("race",)
    keys = ["a", "b", "c"]  # noqa: RUF012 -- as of the base

    def read(self, index: int) -> FaceRecord:
        if index == 2:
            raise BadSample(BROKEN_IMAGE, "cut short")
        labels = {"gender": index, "age": 30.5 + index, "attributes": np.array([index, -1])}
        image = np.zeros((16, 16, 3), np.uint8)
        return FaceRecord(self.keys[index], image, labels=labels, groups={"race": "xy"[index]})


def batch(dataset: FaceDataset, train: bool = False):
    transform = DenseTransform(DenseTransformConfig(8, "none", horizontal_flip=0.5), SPEC, 0, train)
    samples = FaceSamples(dataset, transform, train=train)
    return collate_faces([{"valid": True} | samples.sample(index, 0) for index in range(len(dataset))])


def test_labels_reach_the_batch_and_a_stand_in_knows_none():
    found = batch(Labelled())
    assert found["labels"]["gender"].tolist() == [0, 1, -1]
    assert found["labels"]["gender"].dtype == torch.int64
    assert found["labels"]["age"][:2].tolist() == [30.5, 31.5]
    assert math.isnan(found["labels"]["age"][2])
    assert found["labels"]["age"].dtype == torch.float32
    assert found["labels"]["attributes"].tolist() == [[0, -1], [1, -1], [-1, -1]]
    assert found["groups"] == {"race": ["x", "y", ""]}
    assert found["valid"].tolist() == [True, True, False]
    assert [drop["key"] for drop in found["dropped"]] == ["c"]


def test_a_subset_and_training_keep_them():
    found = batch(FaceSubset(Labelled(), [2, 1]), train=True)
    assert found["labels"]["gender"].tolist() == [1, 1]  # the unreadable one is replaced by the only other
    assert found["groups"] == {"race": ["y", "y"]}


def test_other_columns_in_one_batch_are_refused():
    good = {"key": "a", "labels": {"age": torch.tensor(1.0)}, "groups": {"race": "x"}}
    with pytest.raises(DataError, match=r"same labels, but 'a' has \['age'\] and 'b' \['gender'\]"):
        collate_faces([good, {**good, "key": "b", "labels": {"gender": torch.tensor(1)}}])
    with pytest.raises(DataError, match="same groups"):
        collate_faces([good, {**good, "groups": {}}])


def test_the_specification_survives_plain_data():
    assert FaceSpec.from_dict(SPEC.to_dict()) == SPEC
