"""Datamodules of the benchmarks of the whole face: splits, and labels in batches."""

from __future__ import annotations

import pytest
import torch

from farl_lightning import datamodules
from farl_lightning.errors import ConfigError
from farl_lightning.testing import benchmarks
from farl_lightning.transforms.dense_config import DenseTransformConfig

SETS = {
    "CelebA": (benchmarks.write_celeba, {}, {}, 40),
    "FairFace": (benchmarks.write_fairface, {}, {"age": 9, "gender": 2, "race": 7}, 0),
    "UTKFace": (benchmarks.write_utkface, {"ages": (0, 100)}, {"age": 0, "gender": 2, "race": 5}, 0),
    "MORPH2": (benchmarks.write_morph2, {}, {"age": 0, "gender": 2}, 0),
    "RAFDB": (benchmarks.write_rafdb, {"aligned": False}, {"expression": 7}, 0),
    "AffectNet": (benchmarks.write_affectnet, {"expressions": 7}, {"expression": 7, "valence": 0, "arousal": 0}, 0),
}


def make(name, root, **options):
    return getattr(datamodules, f"{name}DataModule")(root=str(root), **options)


@pytest.mark.parametrize("name", SETS)
def test_batches_carry_the_labels_that_the_specification_names(tmp_path, name):
    write, options, labels, attributes = SETS[name]
    write(tmp_path, 10)
    data = make(name, tmp_path, transform=DenseTransformConfig(32, "none"), batch_size=4, **options)
    assert {column: len(classes) for column, classes in data.spec.label_names.items()} == labels
    assert len(data.spec.attributes) == attributes
    data.setup("fit")
    data.setup("test")
    parts = [data.faces(split) for split in ("train", "val", "test")]
    assert min(map(len, parts)) > 0
    people = [set(part.photographs) for part in parts]
    if name in ("UTKFace", "MORPH2"):
        assert not people[0] & people[1] | people[0] & people[2] | people[1] & people[2]
    for loader in (data.train_dataloader(), data.test_dataloader()):
        batch = next(iter(loader))
        assert batch["image"].shape[1:] == (3, 32, 32)
        assert batch.get("dropped", []) == []
        wanted = set(labels) | ({"attributes"} if attributes else set())
        assert set(batch["labels"]) == wanted
        for column, values in batch["labels"].items():
            assert values.is_floating_point() == (labels.get(column) == 0)
            assert len(values) == len(batch["key"])
        assert all(len(names) == len(batch["key"]) for names in batch.get("groups", {}).values())


def test_morph2_by_chance_may_show_the_same_people(tmp_path):
    benchmarks.write_morph2(tmp_path, 12)
    subject, chance = (make("MORPH2", tmp_path, protocol=protocol) for protocol in ("subject", "random"))
    people = [{key[7:13] for key in chance.faces(split).keys} for split in ("train", "test")]
    assert people[0] & people[1]
    people = [{key[7:13] for key in subject.faces(split).keys} for split in ("train", "test")]
    assert not people[0] & people[1]
    assert sum(len(subject.faces(split)) for split in ("train", "val", "test")) == 24


def test_celeba_can_be_aligned_by_its_landmarks(tmp_path):
    benchmarks.write_celeba(tmp_path, 2)
    data = make("CelebA", tmp_path, transform=DenseTransformConfig(48, "align"))
    data.setup("test")
    (batch,) = data.test_dataloader()
    assert batch["valid"].all()
    face = data.faces("test")[0]
    eye = batch["matrix"][0, :2, :2] @ torch.tensor(face.points[0]) + batch["matrix"][0, :2, 2]
    wanted = (torch.tensor(data.spec.template[0]) + 1) / 2 * 48 - 0.5
    assert (eye - wanted).norm() < 3


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("CelebA", {"val_fraction": 0.1}, "CelebADataModule has an official validation split"),
        ("FairFace", {"transform": DenseTransformConfig(32, "align")}, "has nothing to cut crop 'align' by"),
        ("AffectNet", {"expressions": 5, "stage": "fit"}, "expressions are 7 or 8"),
    ],
)
def test_settings_that_cannot_work(tmp_path, name, options, message):
    stage = options.pop("stage", None)
    with pytest.raises(ConfigError, match=message):
        make(name, tmp_path, **options).setup(stage)
