"""Features and probes through the command line, on drawn faces and a random network."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from farl_lightning.models import FaceCLIP
from farl_lightning.models.checkpoint import save_farl
from farl_lightning.probing import read_features, run_probe
from farl_lightning.testing.models import tiny_config
from farl_lightning.types import FaceSpec
from tests.probing.faces import make_table

DATA = """\
data:
  class_path: SyntheticGlobalDataModule
  init_args: {train_count: 6, val_count: 2, test_count: 4, image_size: 48}
"""


@pytest.fixture
def farl(here):
    torch.manual_seed(0)
    clip = FaceCLIP(tiny_config())
    clip.face_spec = FaceSpec(image_size=32)
    save_farl(here / "farl.pth", clip)
    return here / "farl.pth"


@pytest.fixture
def faces(here):
    folder = here / "faces"
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "bad.png").write_bytes(b"no picture")
    return folder


def test_a_folder(run, here, farl, faces):
    status, out, err = run("embed", "--ckpt_path", "farl.pth", "--input", "faces", "--output", "feats.parquet")
    assert status == 0, err
    table = read_features(here / "feats.parquet")
    assert table.keys == ["0.png", "1.png", "2.png"]
    assert {name: feature.shape for name, feature in table.features.items()} == {
        "block1.class": (3, 48),
        "block1.mean": (3, 48),
        "feature": (3, 32),
    }
    assert "feats.parquet: 3 faces" in out
    assert "left out: 1 (not_an_image 1); all are listed in feats.dropped.jsonl" in out
    status, _, err = run("embed", "--ckpt_path", "farl.pth", "--input", "faces", "--output", "feats.parquet")
    assert (status, "--overwrite" in err) == (2, True)


def test_a_table_brings_its_labels(run, here, farl, faces):
    rows = ["file,gender,age,", "2.png,man,31,", "0.png,woman,,", "gone.png,man,4,", "2.png,man,31,", "../x.png,man,1,"]
    (faces / "faces.csv").write_text("\n".join(row.rstrip(",") for row in rows).replace("0.png,woman", "0.png,woman,"))
    words = ("--input", "faces/faces.csv", "--blocks", "0", "-1", "--pools", "max")
    status, out, err = run("embed", "--ckpt_path", "farl.pth", *words, "--output", "feats.npz")
    assert status == 0, err
    table = read_features(here / "feats.npz")
    assert table.keys == ["2.png", "0.png"]
    assert table.group("gender") == ["man", "woman"]
    np.testing.assert_array_equal(table.labels["age"], np.float32([31, np.nan]))
    assert list(table.features) == ["block0.max", "block1.max", "feature"]
    assert "left out: 3 (" in out
    listed = [json.loads(line) for line in (here / "feats.dropped.jsonl").read_text().splitlines()]
    assert "already" in next(drop["detail"] for drop in listed if drop["reason"] == "broken_annotation")
    assert {drop["key"] for drop in listed if drop["reason"] == "missing_image"} == {"gone.png", "../x.png"}


def test_the_data_of_a_config(run, here, farl):
    (here / "data.yaml").write_text(DATA)
    words = ("--config", "data.yaml", "--split", "train", "test", "--data.test_count", "3", "--output", "feats.parquet")
    status, _, err = run("embed", "--ckpt_path", "farl.pth", *words)
    assert status == 0, err
    table = read_features(here / "feats.parquet")
    assert table.groups["split"] == ["train"] * 6 + ["test"] * 3
    assert "age" in table.labels


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--ckpt_path", "farl.pth", "--output", "f.npz"), "give either --input"),
        (("--input", "faces", "--output", "f.npz"), "give either --ckpt_path"),
        (("--input", "faces", "--ouptut", "f.npz"), "Did you mean '--output'"),
        (
            ("--ckpt_path", "farl.pth", "--input", "faces", "--output", "f.npz", "--device", "cdua"),
            "Did you mean 'cuda'",
        ),
        (("--ckpt_path", "farl.pth", "--input", "faces", "--output", "f.npz", "--split", "train"), "give --config"),
        (("--ckpt_path", "farl.pth", "--input", "faces", "--output", "f.npz", "--wrokers", "2"), "'--workers'"),
        (("--ckpt_path", "farl.pth", "--config", "data.yaml", "--split", "tset", "--output", "f.npz"), "'test'"),
        (("--ckpt_path", "farl.pth", "--config", "data.yaml", "--data.rot", "x", "--output", "f.npz"), "rot"),
        (("--ckpt_path", "farl.pth", "--config", "data.yaml", "--root", "x", "--output", "f.npz"), "--data.root"),
        (("--ckpt_path", "farl.pth", "--config", "trainer/cpu.yaml", "--output", "f.npz"), "no data section"),
    ],
)
def test_mistakes_are_named(run, here, farl, faces, words, said):
    (here / "data.yaml").write_text(DATA)
    status, _, err = run("embed", *words)
    assert status == 2
    assert said in err
    assert "Traceback" not in err


def test_probes_print_what_run_probe_finds(run, here):
    table = make_table(200)
    table.write(here / "feats.parquet")
    words = ("--column", "kind", "--method", "ridge", "knn", "--features", "all", "--budget", "5", "50%", "100%")
    status, out, err = run("probe", "feats.parquet", *words, "--output", "rows.csv")
    assert status == 0, err
    with (here / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 3
    budgets = {"5": 5, "0.5": 0.5, "": None}
    for row in (rows[0], rows[4]):
        budget = budgets[row["budget"]]
        want = run_probe(
            table.split("train"), table.split("test"), "kind", row["method"], budget, features=row["feature"]
        )
        assert float(row["value"]) == want.value
        assert f"{want.low:.2f} to {want.high:.2f}" in out
    assert "5 per class" in out
    assert "50 %" in out


def test_several_seeds_give_mean_and_spread(run, here):
    make_table(60, seed=1).write(here / "train.npz")
    make_table(40, seed=2).write(here / "test.npz")
    words = ("--test", "test.npz", "--column", "age", "--method", "ridge", "--features", "block1.mean")
    status, out, err = run("probe", "train.npz", *words, "--budget", "20", "--seeds", "3", "--output", "rows.json")
    assert status == 0, err
    (row,) = json.loads((here / "rows.json").read_text())
    tables = (read_features(here / "train.npz"), read_features(here / "test.npz"))
    values = [run_probe(*tables, "age", "ridge", 20, seed, "block1.mean").value for seed in range(3)]
    assert row["value"] == pytest.approx(np.mean(values))
    assert row["std"] == pytest.approx(np.std(values, ddof=1))
    assert "3 seeds" in out


def test_a_share_can_be_held_out(run, here):
    table = make_table(50)
    del table.groups["split"]
    table.write(here / "feats.npz")
    status, _, err = run("probe", "feats.npz", "--column", "kind")
    assert (status, "--test_fraction" in err) == (2, True)
    status, out, err = run("probe", "feats.npz", "--column", "kind", "--method", "knn", "--test_fraction", "0.2")
    assert status == 0, err
    assert "40 / 10" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--column", "knid"), "Did you mean 'kind'"),
        (("--column", "kind", "--method", "nkn"), "Did you mean 'knn'"),
        (("--column", "kind", "--budget", "a few"), "--budget 'a few'"),
        (("--column", "kind", "--output", "rows.txt"), ".json or .csv"),
        (("--column", "kind", "--test_fraction", "2"), "above 0 and below 1"),
        (("--column", "kind", "--seeds", "0"), "at least 1"),
    ],
)
def test_mistakes_of_probes_are_named(run, here, words, said):
    make_table(20).write(here / "feats.npz")
    status, _, err = run("probe", "feats.npz", *words)
    assert status == 2
    assert said in err


def test_help(run):
    for verb, word in (("embed", "--pools"), ("probe", "--neighbours")):
        status, out, _ = run(verb, "--help")
        assert (status, word in out) == (0, True)
