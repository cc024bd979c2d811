"""Benchmark folders on the command line: missing folders, mistyped names, previews, and what verify finds."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from farl_lightning import datasets
from farl_lightning.cli.verify import BENCHMARKS
from farl_lightning.testing.benchmarks import write_face_synthetics, write_fairface, write_lapa


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["LaPaDataModule", "--data.root", "nowhere"], 1, "nowhere' does not exist.\n  Get LaPa.tar.gz from https://"),
        (["LaPaDataModule", "--data.root", "sets"], 1, "Did you mean root='sets/LaPa'?"),
        (["LapaDataModule", "--data.root", "x"], 2, "Did you mean 'LaPaDataModule'?"),
        (["LaPaDataModule", "--data.rot", "x"], 2, "Did you mean 'root'?"),
        (["LaPaDataModule"], 2, "LaPaDataModule needs 'root'"),
        (["LaPaDataModule", "--data.root", "x", "--data.val_fraction", "0.2"], 2, "has an official validation split"),
        (["LaPaDataModule", "--data.root", "x", "--data.transform.horizontal_flp", "1"], 2, "'horizontal_flip'?"),
        (["FaceSyntheticsDataModule", "--data.root", "x", "--data.task", "algnment"], 2, "Did you mean 'alignment'?"),
        (["CelebAMaskHQDataModule", "--data.root", "x", "--data.transform.crop", "quad"], 2, "Allowed: none."),
    ],
)
def test_mistakes_are_explained(run, here, words, status, text):
    write_lapa(here / "sets" / "LaPa", count=1, size=32)
    found, _, err = run("preview", "--data", *words)
    assert text in err
    assert found == status
    assert "Traceback" not in err


def test_preview_draws_the_labels_of_a_benchmark(run, here):
    write_face_synthetics(here / "renders", count=8, size=64)
    words = ["--data", "FaceSyntheticsDataModule", "--data.root", "renders", "--data.batch_size", "3"]
    words += ["--data.transform.size", "64", "--data.transform.crop", "align", "--data.transform.on_device", "true"]
    status, _, err = run("preview", *words, "--count", "2", "--output", "p.png")
    assert status == 0, err
    picture = np.asarray(Image.open(here / "p.png").convert("RGB"))
    assert (picture == [30, 90, 255]).all(-1).sum() == 0  # labels tint the picture, they do not hide it
    assert picture.std() > 20
    assert run("preview", *words, "--count", "2", "--output", "q.png", "--data.task", "alignment")[0] == 0
    assert Image.open(here / "q.png").width < Image.open(here / "p.png").width  # one column less: no masks


def test_verify_counts_and_reads(run, here):
    write_face_synthetics(here / "renders", count=4, size=48)
    status, out, err = run("data", "verify", "FaceSynthetics", "renders", "--read")
    assert (status, out) == (0, "FaceSynthetics: 4 samples, complete\n"), err
    (here / "renders" / "000001_ldmks.txt").unlink()
    Image.fromarray(np.full((48, 48), 99, np.uint8)).save(here / "renders" / "000002_seg.png")
    status, out, _ = run("data", "verify", "FaceSynthetics", "renders")
    assert status == 1
    assert "000001_ldmks.txt is missing" in out
    assert "unknown_label" not in out
    status, out, _ = run("data", "verify", "FaceSynthetics", "renders", "--read", "--workers", "2")
    assert status == 1
    assert "  unknown_label: 1 samples\n" in out
    assert "000002: unknown_label: ids [99]; allowed: 0 to 18, and 255" in out


def test_verify_goes_through_all_splits(run, here):
    write_lapa(here / "LaPa", count=2, size=32)
    status, out, _ = run("data", "verify", "LaPa", "LaPa")
    assert status == 1  # far from the official size
    for split, size in (("train", 18168), ("val", 2000), ("test", 2000)):
        assert f"LaPa {split}: 2 samples, 2 findings" in out
        assert f"the official split has {size}" in out
    status, _, err = run("data", "verify", "Lapa", "LaPa")
    assert status != 0
    assert "there is no benchmark 'Lapa'. Did you mean 'LaPa'?" in err


def test_verify_names_rows_that_cannot_be_used(run, here):
    write_fairface(here / "FairFace", count=3, size=32)
    path = here / "FairFace" / "fairface_label_val.csv"
    path.write_text(path.read_text().replace("Latino_Hispanic", "Martian"))
    status, out, _ = run("data", "verify", "FairFace", "FairFace", "--read")
    assert status == 1
    assert "FairFace train: 3 samples, 2 findings" in out  # their number, and how to get the rest
    assert "  val/3.jpg: line 4: race 'Martian' is none of White, Black" in out
    assert "  broken_annotation: 1 samples\n" in out


def test_every_benchmark_is_known_by_its_class():
    for name in BENCHMARKS:
        assert issubclass(getattr(datasets, name), datasets.FaceDataset)
