"""What the words of a table mean: classes, numbers, attributes, groups, and who is shown."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from farl_lightning.datasets.table_faces import TableColumns, table_faces, table_spec
from farl_lightning.datasets.table_file import read_table
from farl_lightning.errors import ConfigError
from farl_lightning.text import bin_name, natural


def read(tmp_path, rows, **columns):
    path = tmp_path / "t.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    table, settings = read_table(path), TableColumns(**columns)
    spec = table_spec([table], settings)
    return table_faces(table, settings, spec), spec


def rows(name, *values):
    return [{"file": f"{number}.jpg", name: value} for number, value in enumerate(values)]


def test_class_names_are_taken_in_natural_order(tmp_path):
    faces, spec = read(tmp_path, rows("age", "10-19", "3-9", "70+", "", "3-9", None), labels={"age": "class"})
    assert spec.label_names == {"age": ("3-9", "10-19", "70+")}
    assert faces.labels["age"].tolist() == [1, 0, 2, -1, 0, -1]
    assert faces.labels["age"].dtype == np.int64
    assert not faces.problems
    assert sorted(["10", "9.5", "-1"], key=natural) == ["-1", "9.5", "10"]


def test_given_names_decide_and_other_words_are_told(tmp_path):
    faces, spec = read(tmp_path, rows("g", "M", "F", "X"), labels={"g": ["M", "F"]})
    assert spec.label_names == {"g": ("M", "F")}
    assert faces.labels["g"].tolist() == [0, 1, -1]
    assert faces.problems == {2: "entry 3: g 'X' is none of M, F"}


def test_words_may_mean_the_same_class(tmp_path):
    meaning = {"1": "young", "2": "young", "3": "old"}
    faces, spec = read(tmp_path, rows("g", 3, 1, 2), labels={"g": meaning})
    assert spec.label_names == {"g": ("young", "old")}
    assert faces.labels["g"].tolist() == [1, 0, 0]


def test_numbers(tmp_path):
    faces, spec = read(tmp_path, rows("age", 3, "4.5", "", "old", "inf"), labels={"age": "number"})
    assert spec.label_names == {"age": ()}
    assert faces.labels["age"].dtype == np.float32
    assert faces.labels["age"][:2].tolist() == [3, 4.5]
    assert np.isnan(faces.labels["age"][2:]).all()
    assert faces.problems == {3: "entry 4: age 'old' is no number", 4: "entry 5: age 'inf' is no number"}


def test_attributes_are_one_label(tmp_path):
    entries = [
        {"file": "a.jpg", "hat": 1, "smile": True},
        {"file": "b.jpg", "hat": "No", "smile": -1},
        {"file": "c.jpg", "hat": "maybe", "smile": None},
    ]
    faces, spec = read(tmp_path, entries, attributes=["smile", "hat"])
    assert spec.attributes == ("smile", "hat")
    assert faces.labels["attributes"].tolist() == [[1, 1], [-1, 0], [-1, -1]]
    assert faces.problems == {2: "entry 3: hat 'maybe' is neither yes (1, true) nor no (0, false)"}


def test_minus_one_has_to_be_said(tmp_path):
    with pytest.raises(ConfigError, match="hold -1 and no 0: say whether -1 means no"):
        read(tmp_path, rows("hat", 1, -1), attributes=["hat"])
    faces, _ = read(tmp_path, rows("hat", 1, -1), attributes=["hat"], minus_one="no")
    assert faces.labels["attributes"].tolist() == [[1], [0]]
    faces, _ = read(tmp_path, rows("hat", 1, -1), attributes=["hat"], minus_one="unknown")
    assert faces.labels["attributes"].tolist() == [[1], [-1]]


def test_groups_and_bins(tmp_path):
    entries = [{"file": f"{age}.jpg", "race": race, "age": age} for race, age in [("x", 29), ("y", 30), ("", 60)]]
    faces, _ = read(tmp_path, entries, groups=["race", "age"], bins={"age": [30, 60]})
    assert faces.groups == {"race": ["x", "y", ""], "age": ["<30", "30-60", ">=60"]}
    assert bin_name(math.nan, [1]) == ""


def test_places_people_and_names(tmp_path):
    entry = {"file": "a.jpg", "who": "Ann", **{name: number for number, name in enumerate("ltrb")}, "id": "k1"}
    faces, _ = read(tmp_path, [entry, {**entry, "who": "", "l": None}], box=list("ltrb"), identity="who", folder="pics")
    assert faces.files == ["pics/a.jpg", "pics/a.jpg"]
    assert faces.boxes[0].tolist() == [0, 1, 2, 3]
    assert np.isnan(faces.boxes[1, 0])
    assert faces.identities == ["Ann", "t.json, row 1"]
    assert faces.problems == {1: "entry 2: 'a.jpg' is in entry 1 already"}
    assert faces.keys == ["a.jpg", "a.jpg (entry 2)"]
    named, _ = read(tmp_path, [entry, {**entry, "id": "k2", "file": ""}], key="id")
    assert named.keys == ["k1", "k2"]
    assert named.problems == {1: "entry 2: no 'file'"}


def test_five_points(tmp_path):
    columns = [f"p{number}" for number in range(10)]
    entry = {"file": "a.jpg", **{name: number for number, name in enumerate(columns)}}
    faces, _ = read(tmp_path, [entry], points=columns)
    assert faces.points.tolist() == [[[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]]
    assert faces.take([0]).points.shape == (1, 5, 2)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": "fil"}, r"image: '.*t.json' has no column 'fil'. Did you mean 'file'\?"),
        ({"labels": {"gende": "class"}}, "labels: .* has no column 'gende'. Did you mean 'gender'"),
        ({"labels": {"gender": "clas"}}, "label 'gender' is 'clas'. Did you mean 'class'"),
        ({"labels": {"gender": []}}, "needs class names that all differ"),
        ({"labels": {"gender": ["M", "M"]}}, "needs class names that all differ"),
        ({"labels": {"attributes": "class"}}, "list yes-or-no columns under 'attributes'"),
        ({"labels": {"empty": "class"}}, "label 'empty' has no value in .*t.json"),
        ({"minus_one": "never"}, "minus_one is 'no' or 'unknown', got 'never'"),
        ({"box": ["a"]}, "box needs 4 columns, got 1"),
        ({"groups": ["gender"], "bins": {"gender": [3, 2]}}, "rising limits, got 'gender'"),
        ({"bins": {"gender": [3]}}, "a column of 'groups'"),
    ],
)
def test_settings_that_cannot_work(tmp_path, columns, message):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, [{"file": "a.jpg", "gender": "M", "empty": ""}], **columns)
