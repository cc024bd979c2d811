from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from farl_lightning.testing.shards import write_fake_laion_face


@pytest.fixture
def pictures(here):
    folder = here / "pictures"
    folder.mkdir()
    rows = ["file\tcaption"]
    for index in range(5):
        Image.fromarray(np.full((40, 50, 3), 40 * index, np.uint8)).save(folder / f"{index}.png")
        rows.append(f"{index}.png\ta grey picture number {index}")
    rows.append("gone.png\tthis one is missing")
    (here / "table.tsv").write_text("\n".join(rows) + "\n")
    return folder


def test_write_and_check(run, here, pictures):
    status, out, err = run("data", "write-shards", "pictures", "table.tsv", "shards", "--samples_per_shard", "3")
    assert status == 0, err
    assert out.splitlines()[0] == "wrote 5 samples into 2 shards below shards"
    assert "skipped gone.png: missing_image" in out
    status, out, err = run("data", "check", "shards", "--contact_sheet", "sheet.png")
    assert status == 0, err
    assert "usable pictures" in out
    assert "5 (" in out
    assert "wrote sheet.png" in out
    assert Image.open(here / "sheet.png").width > 400


def test_check_fails_on_shards_that_cannot_be_read_and_counts_bad_samples(run, here):
    fake = write_fake_laion_face(here / "laion", shards=1, samples=4)
    status, out, _ = run("data", "check", "laion")
    assert status == 0
    (fake.folder / "split_00000" / "99999.tar").write_bytes(b"")
    status, out, _ = run("data", "check", "laion")
    assert status == 1
    assert "skipped split_00000/99999: shard_empty" in out


def test_index_detections(run, here):
    fake = write_fake_laion_face(here / "laion", shards=1, samples=4)
    status, out, err = run("data", "index-detections", fake.detections, "--output", "table")
    assert status == 0, err
    assert "indexed the faces of 4 pictures in table; give it as --data.detections table" in out
    status, out, err = run("data", "check", "laion", "--detections", "table", "--contact_sheet", "s.png")
    assert status == 0, err


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["check", "nowhere"], 1, "nowhere"),
        (["write-shards", "nowhere", "t.tsv", "out"], 1, "nowhere"),
        (["index-detections", "gone.pth", "--output", "t"], 1, "no such detection file: gone.pth"),
        (["index-detections", "gone.pth"], 2, "the following arguments are required: --output"),
        (["check"], 2, "the following arguments are required: shards"),
        (["check", "x", "--subset", "30M"], 2, "invalid choice"),
    ],
)
def test_errors_are_short(run, words, status, text):
    found, _, err = run("data", *words)
    assert found == status
    assert text in err
    assert "usage:" not in err
    assert "Traceback" not in err


def test_help(run):
    assert "write-shards" in run("data")[1]
    status, out, _ = run("data", "check", "--help")
    assert status == 0
    assert "--contact_sheet" in out
