"""A user's own faces from tables alone: splits, people, bad rows, and files that are none of its business."""

from __future__ import annotations

import csv
import json
import math
import shutil
import warnings

import pytest
from PIL import Image

from farl_lightning.datamodules import TableDataModule
from farl_lightning.datasets.synthetic import EXPRESSIONS, SyntheticFaces
from farl_lightning.datasets.table_faces import TableColumns
from farl_lightning.errors import ConfigError, DataError
from farl_lightning.transforms.dense_config import DenseTransformConfig
from tests.shared import SHARED, needs_shared

PLAIN = DenseTransformConfig(32, "none")
FACES = SyntheticFaces(24, 32)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """24 faces of 6 people; picture i has row i."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "pictures").mkdir()
    for index, face in enumerate(FACES):
        Image.fromarray(face.image).save(folder / "pictures" / f"{index:02d}.png")
    write(folder / "faces.csv", list(range(24)))
    return folder


def write(path, indices, **more):
    rows = []
    for index in indices:
        face = FACES[index]
        row = {"file": f"{index:02d}.png", "age": face.age, "mood": EXPRESSIONS[face.expression], "who": face.identity}
        row |= {"smile": face.attributes[31], "hat": face.attributes[35], "split": ["train", "Dev", "test"][index % 3]}
        rows.append(row | more)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def columns(**changes):
    settings = {
        "folder": "pictures",
        "labels": {"age": "number", "mood": "class"},
        "attributes": ["hat", "smile"],
        "minus_one": "unknown",
        "groups": ["mood", "age"],
        "bins": {"age": [40]},
    }
    return TableColumns(**settings | changes)


def make(root, table="faces.csv", transform=PLAIN, batch_size=4, **options):
    chosen = {name: options.pop(name) for name in ("identity", "split", "labels") if name in options}
    return TableDataModule(str(root), table, columns(**chosen), transform=transform, batch_size=batch_size, **options)


def test_labels_are_those_that_were_drawn(root):
    data = make(root, val_fraction=0, test_fraction=0)
    names = data.spec.label_names["mood"]
    assert set(names) <= set(EXPRESSIONS)
    assert data.spec.attributes == ("hat", "smile")
    data.setup("fit")
    seen = set()
    for batch in data.train_dataloader():
        for row, key in enumerate(batch["key"]):
            face = FACES[int(key[:2])]
            seen.add(key)
            assert names[batch["labels"]["mood"][row]] == EXPRESSIONS[face.expression] == batch["groups"]["mood"][row]
            assert batch["labels"]["age"][row].item() == pytest.approx(face.age)
            assert batch["groups"]["age"][row] == ("<40" if face.age < 40 else ">=40")
            assert batch["labels"]["attributes"][row].tolist() == [face.attributes[35], face.attributes[31]]
    assert len(seen) == 24
    assert data.val_dataloader() == []


def test_drawn_parts_share_nobody(root):
    data = make(root, identity="who", val_fraction=0.2, test_fraction=0.3)
    parts = [data.faces(split) for split in ("train", "val", "test")]
    assert sum(map(len, parts)) == 24
    assert min(map(len, parts)) >= 4
    people = [{FACES[int(key[:2])].identity for key in part.keys} for part in parts]
    assert not people[0] & people[1] | people[0] & people[2] | people[1] & people[2]
    assert make(root, val_fraction=0.2, test_fraction=0.3).faces("test").keys != parts[2].keys  # rows, not people
    assert data.drawn()["val"]["keys"] == parts[1].keys


def test_a_column_names_the_splits(root):
    data = make(root, split="split")
    for number, split in enumerate(("train", "val", "test")):
        assert data.faces(split).keys == [f"{index:02d}.png" for index in range(number, 24, 3)]
    with pytest.raises(ConfigError, match="has an official validation split"):
        make(root, split="split", val_fraction=0.1)
    other = make(root, split="split", split_names={"val": ["other"]}, val_fraction=0)
    other.setup("fit")
    assert other.faces("val") is None
    problems = other.faces("train").verify()
    assert problems[0] == "01.png: line 3: split 'Dev' names no split; allowed: train, training, other, test, testing"
    assert len(problems) == 8


def test_given_splits_that_share_people_are_warned_of(root):
    with pytest.warns(UserWarning, match="6 people are in both 'train' and 'val' of the tables, such as 0, 1, 2;"):
        make(root, split="split", identity="who")
    write(root / "first.csv", range(12))
    write(root / "last.csv", range(12, 24))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(root, {"train": "first.csv", "test": "last.csv"}, identity="who")


def test_one_file_per_split_with_the_same_classes(root):
    write(root / "train.csv", range(12))
    write(root / "val.csv", range(12, 24))
    data = make(root, {"train": "train.csv", "val": str(root / "val.csv")}, test_fraction=0)
    assert data.faces("val").keys == [f"{index}.png" for index in range(12, 24)]
    assert data.spec == make(root).spec  # classes that only one of them has are known to both
    assert data.faces("test") is None


def test_bad_rows_and_pictures_are_counted_and_named(root, tmp_path):
    folder = tmp_path / "own"
    shutil.copytree(root, folder)
    (folder / "pictures" / "03.png").write_bytes(b"no picture")
    (folder / "pictures" / "04.png").unlink()
    (tmp_path / "secret.png").write_bytes((folder / "pictures" / "05.png").read_bytes())
    (folder / "pictures" / "link.png").symlink_to(tmp_path / "secret.png")
    text = (folder / "faces.csv").read_text().replace("05.png", "../../secret.png").replace("06.png", "link.png")
    lines = text.splitlines()
    lines[8] = "07.png,old" + lines[8][lines[8].index(",", 8) :]
    lines[9] += ",more"
    (folder / "faces.csv").write_text("\n".join(lines))
    data = make(folder, val_fraction=0, test_fraction=0.0, split=None)
    data.setup("fit")
    batches = list(data.train_dataloader())
    drops = {drop["key"]: drop for batch in batches for drop in batch.get("dropped", ())}
    assert {key: drop["reason"] for key, drop in drops.items()} == {
        "03.png": "not_an_image",
        "04.png": "missing_image",
        "../../secret.png": "missing_image",
        "link.png": "missing_image",
        "07.png": "broken_annotation",
        "line 10": "broken_annotation",
    }
    assert "leads out of" in drops["link.png"]["detail"]
    assert drops["07.png"]["detail"] == "line 9: age 'old' is no number"
    assert drops["line 10"]["detail"] == "line 10: 8 values instead of 7"
    assert sum(len(batch["key"]) for batch in batches) == 24  # others took their places
    found = data.faces("train").verify()
    assert [line.split(":")[0] for line in found] == ["../../secret.png", "07.png", "line 10", "04.png"]


def test_a_stand_in_in_evaluation_counts_nowhere(root, tmp_path):
    rows = [{"file": "pictures/00.png", "age": 3}, {"file": "nowhere.png", "age": 4}]
    (root / "two.json").write_text(json.dumps(rows))
    settings = TableColumns(labels={"age": "number"}, groups=["age"])
    data = TableDataModule(str(root), {"test": "two.json"}, settings, transform=PLAIN)
    data.setup("test")
    (batch,) = data.test_dataloader()
    assert batch["valid"].tolist() == [True, False]
    assert batch["labels"]["age"][0] == 3
    assert math.isnan(batch["labels"]["age"][1])
    assert batch["groups"] == {"age": ["3", ""]}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"table": {"trian": "faces.csv"}}, ConfigError, "no split 'trian'. Did you mean 'train'"),
        ({"table": {"train": "faces.csv"}, "split": "split"}, ConfigError, "not both"),
        ({"split": "mood"}, ConfigError, "column 'mood' of .* names no split; allowed: train, training, val"),
        ({"split": "split", "split_names": {"tset": ["x"]}}, ConfigError, "no split 'tset'. Did you mean 'test'"),
        ({"test_fraction": 1.0}, ConfigError, "test_fraction is a share from 0 and below 1, got 1.0"),
        ({"labels": {"mood": "number"}}, DataError, "no row of .* can be used: line 2: mood '.*' is no number"),
    ],
)
def test_settings_that_cannot_work(root, options, error, message):
    with pytest.raises(error, match=message):
        make(root, **options)


@needs_shared
def test_real_faces_by_their_own_lists():
    settings = TableColumns("filename", "images", {"gender": "class", "age": "class"}, groups=["gender"])
    faces = TableDataModule(str(SHARED / "real" / "fairface"), "labels.json", settings, transform=PLAIN, batch_size=24)
    assert faces.spec.label_names["age"] == ("20-29", "30-39", "40-49", "50-59", "60-69", "70+")
    faces.setup("test")
    (batch,) = faces.test_dataloader()
    assert batch["valid"].all()
    assert min(batch["labels"]["age"]) >= 0
    assert [faces.spec.label_names["gender"][label] for label in batch["labels"]["gender"]] == batch["groups"]["gender"]
    settings = TableColumns("file", "images", {"gender": {"M": "male", "F": "female"}}, groups=["party"])
    portraits = TableDataModule(str(SHARED / "real" / "congress"), "labels.tsv", settings, transform=PLAIN)
    assert sum(len(portraits.faces(split)) for split in ("train", "val", "test")) == 304
    assert portraits.faces("train").verify() == []


@needs_shared
def test_live_and_replayed_photographs_are_read_upright(tmp_path):
    rows = [{"file": f"image_{name}.jpg", "spoof": int(name[0] == "F")} for name in ("T1", "F1", "F2")]
    (tmp_path / "spoof.json").write_text(json.dumps(rows))
    settings = TableColumns(attributes=["spoof"])
    data = TableDataModule(
        str(SHARED / "real" / "antispoof"), {"test": str(tmp_path / "spoof.json")}, settings, transform=PLAIN
    )
    data.setup("test")
    (batch,) = data.test_dataloader()
    assert batch["size"].tolist() == [[640, 480]] * 3  # stored lying on their side
    assert batch["labels"]["attributes"].tolist() == [[0], [1], [1]]
