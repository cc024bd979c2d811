"""Shards written from a folder and a table: the same bytes every time, readable, complete; and looked into."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import pytest
from PIL import Image

from farl_lightning.datasets.laion_face import LaionFace, PictureReader, sample_count
from farl_lightning.datasets.shards import check_shards, read_rows, write_shards
from farl_lightning.errors import ConfigError, DataError, DatasetNotFoundError
from farl_lightning.testing.shards import SAMPLE_FAULTS, SHARD_FAULTS, encode_image, write_fake_laion_face


@pytest.fixture
def folder(tmp_path):
    """Ten pictures, among them a BMP, and one file that is none."""
    path = tmp_path / "pictures"
    (path / "sub").mkdir(parents=True)
    for n, suffix in enumerate(["jpg", "png", "webp", "bmp", *["jpg"] * 5]):
        (path / f"{n}.{suffix}").write_bytes(encode_image((n * 20, 100, 50), (40 + n, 50), suffix))
    (path / "sub" / "9.jpg").write_bytes(encode_image((1, 2, 3)))
    (path / "bad.jpg").write_bytes(b"not a picture")
    return path


def rows(folder):
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    return [{"file": name, "caption": f"picture {name}", "SAMPLE_ID": n} for n, name in enumerate(files)]


def digests(out):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.rglob("*.*"))}


def test_round_trip(folder, tmp_path):
    report = write_shards(folder, rows(folder), tmp_path / "out", samples_per_shard=4)
    assert [shard.removeprefix(f"{tmp_path}/out/") for shard in report.shards] == [
        f"split_00000/{n:05d}.tar" for n in range(3)
    ]
    assert report.samples == 10
    assert [(drop["key"], drop["reason"]) for drop in report.drops] == [("bad.jpg", "not_an_image")]
    pictures = list(LaionFace(tmp_path / "out"))
    names = [row["file"] for row in rows(folder) if row["file"] != "bad.jpg"]
    assert [picture.captions for picture in pictures] == [[f"picture {name}"] for name in names]
    for picture, name in zip(pictures, names, strict=True):
        original = (folder / name).read_bytes()
        assert (picture.data == original) == (not name.endswith("bmp"))
        assert picture.image().tobytes() == Image.open(io.BytesIO(original)).convert("RGB").tobytes() or "jpg" in name
    assert sample_count(report.shards) == 10
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_members_are_laid_out_as_img2dataset_does(folder, tmp_path):
    table = [{"file": "0.jpg", "captions": ["one", "two", " "], "faces": [{"box": [1, 2, 3, 4]}], "SAMPLE_ID": 5}]
    report = write_shards(folder, table, tmp_path / "out")
    with tarfile.open(report.shards[0]) as tar:
        assert sorted(tar.getnames()) == ["000000000.jpg", "000000000.json", "000000000.txt"]
        assert tar.extractfile("000000000.txt").read() == b"one"
        metadata = json.load(tar.extractfile("000000000.json"))
    assert metadata["captions"] == ["one", "two"]
    assert (metadata["SAMPLE_ID"], metadata["width"], metadata["height"], metadata["file"]) == (5, 40, 50, "0.jpg")
    (picture,) = PictureReader(need_faces=True)(next(_raw(report.shards[0])), "s")
    assert picture.face.box == (1, 2, 3, 4)


def _raw(shard):
    from farl_lightning.datasets.tar import read_shard

    return read_shard(shard)


def test_the_same_bytes_with_any_number_of_workers(folder, tmp_path):
    for workers in (1, 3):
        write_shards(folder, rows(folder), tmp_path / f"{workers}", samples_per_shard=2, workers=workers)
    assert digests(tmp_path / "1") == digests(tmp_path / "3")


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl"])
def test_tables(folder, tmp_path, kind):
    table = tmp_path / f"captions.{kind}"
    if kind == "jsonl":
        table.write_text('{"image": "0.jpg", "text": "Ä caption, with a comma"}\n\n')
    else:
        delimiter = "\t" if kind == "tsv" else ","
        table.write_text(f'image{delimiter}text\n0.jpg{delimiter}"Ä caption, with a comma"\n')
    write_shards(folder, table, tmp_path / "out")
    assert [picture.captions for picture in LaionFace(tmp_path / "out")] == [["Ä caption, with a comma"]]


def test_tables_that_cannot_be_read(folder, tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"nothing\.tsv"):
        read_rows(tmp_path / "nothing.tsv")
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(ConfigError, match=r"expected \.tsv, \.csv or \.jsonl, got '\.xlsx'"):
        read_rows(tmp_path / "a.xlsx")
    (tmp_path / "a.jsonl").write_text('{"file": 1}\n{')
    with pytest.raises(DataError, match=r"a\.jsonl, line 2"):
        read_rows(tmp_path / "a.jsonl")
    with pytest.raises(ConfigError, match=r"no column with the caption.*captions or caption or text"):
        write_shards(folder, [{"file": "0.jpg", "title": "x"}], tmp_path / "out")
    with pytest.raises(DataError, match="no rows"):
        write_shards(folder, [], tmp_path / "out")
    with pytest.raises(DataError, match=r"none of the 1 rows could be used.*missing_image"):
        write_shards(folder, [{"file": "none.jpg", "caption": "x"}], tmp_path / "out")
    with pytest.raises(DatasetNotFoundError, match="there is no folder"):
        write_shards(tmp_path / "nowhere", [], tmp_path / "out")


def test_shards_that_are_there_are_not_overwritten_by_accident(folder, tmp_path):
    write_shards(folder, rows(folder), tmp_path / "out")
    before = digests(tmp_path / "out")
    with pytest.raises(ConfigError, match="holds shards already"):
        write_shards(folder, rows(folder)[:2], tmp_path / "out")
    assert digests(tmp_path / "out") == before
    assert write_shards(folder, rows(folder)[:2], tmp_path / "out", overwrite=True).samples == 2


def test_progress_sees_every_shard(folder, tmp_path):
    totals, steps = [], []

    def progress(items, total):
        totals.append(total)
        for item in items:
            steps.append(item)
            yield item

    write_shards(folder, rows(folder), tmp_path / "out", samples_per_shard=4, progress=progress)
    check_shards(tmp_path / "out", progress=progress)
    assert totals == [3, 3]
    assert len(steps) == 6


@pytest.mark.parametrize("workers", [1, 4])
def test_check_counts_exactly_what_was_planted(tmp_path, workers):
    faults = {**dict.fromkeys(SAMPLE_FAULTS, 2), **dict.fromkeys(SHARD_FAULTS, 1)}
    fake = write_fake_laion_face(tmp_path, shards=3, samples=10, faults=faults)
    report = check_shards([str(shard) for shard in fake.shards], examples=4, workers=workers)
    assert report.reasons == faults
    assert report.samples == len(fake.keys)
    assert report.shards == len(fake.shards)
    assert report.width == (40, 40, 40)
    assert report.height == (48, 48, 48)
    assert report.per_shard[2] == 10
    assert [picture.key for picture in report.examples] == fake.keys[:4]
    assert {drop["reason"] for drop in report.drops} == faults.keys()
    text = "\n".join(report.lines())
    assert "usable pictures" in text
    assert all(reason in text for reason in faults)


def test_a_cut_in_the_middle_of_writing_leaves_no_half_shard(folder, tmp_path, monkeypatch):
    table = rows(folder)

    class Interrupted(Exception):
        pass

    def fail(self, *args):
        raise Interrupted

    monkeypatch.setattr(tarfile.TarFile, "addfile", fail)
    with pytest.raises(Interrupted):
        write_shards(folder, table, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.tar"))
