"""Reading tar files in every state; each byte at which one can end is tried."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from farl_lightning.datasets.bad_sample import BadSample
from farl_lightning.datasets.tar import count_samples, read_shard


def write(path, files, **options):
    with tarfile.open(path, "w", **options) as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return str(path)


def sample(key, n=600):
    return [(f"{key}.jpg", os.urandom(n)), (f"{key}.txt", b"text " + key.encode()), (f"{key}.json", b"{}")]


def collect(shard, **kwargs):
    """Samples, and the reason with which reading ended, if it did not end well."""
    got = []
    try:
        for found in read_shard(shard, **kwargs):
            got.append(found)  # noqa: PERF402  -- what came before a fault counts
    except BadSample as bad:
        return got, bad.reason
    return got, None


@pytest.fixture
def shard(tmp_path):
    return write(tmp_path / "0.tar", [file for n in range(5) for file in sample(f"{n:04d}")])


@pytest.mark.parametrize("opener", ["{}", "pipe:cat {}", "file://{}"])
def test_reads_what_tarfile_wrote(shard, opener):
    samples, reason = collect(opener.format(shard))
    assert reason is None
    assert [(s.key, s.ordinal, sorted(s.files)) for s in samples] == [
        (f"{n:04d}", n, ["jpg", "json", "txt"]) for n in range(5)
    ]
    with tarfile.open(shard) as tar:
        assert samples[3].files["jpg"] == tar.extractfile("0003.jpg").read()


@pytest.mark.parametrize("opener", ["{}", "pipe:cat {}"])
def test_start_and_part(shard, opener):
    shard = opener.format(shard)
    assert [s.ordinal for s in collect(shard, first=3)[0]] == [3, 4]
    assert [s.ordinal for s in collect(shard, part=(1, 2))[0]] == [1, 3]
    assert [s.ordinal for s in collect(shard, first=2, part=(0, 2))[0]] == [2, 4]
    assert count_samples(shard) == 5


@pytest.mark.parametrize("opener", ["{}", "pipe:cat {}"])
def test_every_length_ends_with_the_right_reason(tmp_path, opener):
    whole = write(tmp_path / "whole.tar", [file for n in range(3) for file in sample(f"{n}", 100)])
    with tarfile.open(whole) as tar:
        ends = [max(m.offset_data + 512 for m in tar if m.name.startswith(str(n))) for n in range(3)]
    data, cut = Path(whole).read_bytes(), tmp_path / "cut.tar"
    for length in [*range(0, ends[-1] + 512, 256 if opener == "{}" else 1024), 1, 511, 513, ends[-1] - 1]:
        cut.write_bytes(data[:length])
        samples, reason = collect(opener.format(cut))
        complete = sum(length >= end for end in ends)
        # a first sample is not trusted alone: nothing tells whether more of its files would have followed
        assert len(samples) == (complete if complete != 1 or length > ends[0] + 511 else 0), length
        assert reason == ("shard_empty" if length == 0 else "shard_truncated"), length


def test_formats_with_long_names_and_large_numbers(tmp_path):
    name = "folder/" * 30 + "x" * 120
    for format_ in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        shard = write(tmp_path / "0.tar", [*sample(name), *sample("ä" * 60)], format=format_)
        samples, reason = collect(shard)
        assert reason is None
        assert [s.key for s in samples] == [name, "ä" * 60]
    shard = write(tmp_path / "1.tar", sample("p" * 90 + "/" + "q" * 90), format=tarfile.USTAR_FORMAT)
    assert collect(shard)[0][0].key == "p" * 90 + "/" + "q" * 90


def test_links_folders_and_devices_are_passed_over(tmp_path):
    path, secret = tmp_path / "0.tar", tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    with tarfile.open(path, "w") as tar:
        for kind, name in ((tarfile.SYMTYPE, "a.jpg"), (tarfile.LNKTYPE, "b.jpg"), (tarfile.DIRTYPE, "c.jpg")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(secret)
            tar.addfile(member)
        member = tarfile.TarInfo("../../d.txt")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    samples, _ = collect(str(path))
    assert [(s.key, s.files) for s in samples] == [("../../d", {"txt": b"x"})]
    assert not (tmp_path.parent.parent / "d.txt").exists()


def test_large_files_are_not_read(tmp_path):
    shard = write(tmp_path / "0.tar", [*sample("0", 5000), *sample("1", 100)])
    samples, reason = collect(shard, max_file_bytes=4000)
    assert [(s.key, s.fault.reason if s.fault else None) for s in samples] == [("0", "oversized_file"), ("1", None)]
    assert reason is None
    assert samples[0].files == {}


def test_repeated_keys_are_faults(tmp_path):
    shard = write(tmp_path / "0.tar", [*sample("0"), *sample("1"), *sample("0"), *sample("1"), *sample("1")])
    samples, _ = collect(shard)
    assert [s.fault.reason if s.fault else None for s in samples] == [None, None, *["duplicate_key"] * 3]
    assert [s.fault is not None for s in collect(shard, first=2)[0]] == [True] * 3


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "shard_empty"),
        (bytes(10240), "shard_empty"),
        (b"<html>" * 200, "shard_unreadable"),
        (b"x", "shard_truncated"),
    ],
)
def test_other_files(tmp_path, data, reason):
    (tmp_path / "0.tar").write_bytes(data)
    assert collect(str(tmp_path / "0.tar")) == ([], reason)


def test_what_cannot_be_opened(tmp_path):
    assert collect(str(tmp_path / "none.tar")) == ([], "shard_missing")
    assert collect("pipe:exit 3") == ([], "shard_missing")
    assert collect(str(tmp_path)) == ([], "shard_missing")
    assert count_samples(str(tmp_path / "none.tar")) == 0


def test_files_of_other_kinds_are_not_read(tmp_path):
    shard = write(tmp_path / "0.tar", [("a.jpg", b"j"), ("a.npy", bytes(9000)), ("a.TXT", b"t"), ("README", b"r")])
    samples, _ = collect(shard)
    assert [s.files for s in samples] == [{"jpg": b"j", "txt": b"t"}, {}]
