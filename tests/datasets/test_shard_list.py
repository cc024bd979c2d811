"""From what users write to lists of shards; nothing in a list file can execute."""

from __future__ import annotations

import pytest

from farl_lightning.datasets.shard_list import SUBSETS, list_shards, open_shard, shard_names
from farl_lightning.errors import ConfigError, DatasetNotFoundError


@pytest.fixture
def folder(tmp_path):
    for part in (0, 1, 2):
        (tmp_path / f"split_{part:05d}").mkdir()
        for number in (1, 0):
            (tmp_path / f"split_{part:05d}" / f"{number:05d}.tar").touch()
        (tmp_path / f"split_{part:05d}" / "00000_stats.json").touch()
    return tmp_path


def relative(shards, folder):
    return [shard.removeprefix(f"{folder}/") for shard in shards]


ALL = [f"split_{part:05d}/{number:05d}.tar" for part in (0, 1, 2) for number in (0, 1)]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", ALL),
        ("split_00001", ALL[2:4]),
        ("split_00001/00000.tar", ALL[2:3]),
        ("split_*/00001.tar", ALL[1::2]),
        ("**/*.tar", ALL),
        ("split_{00000..00001}/{00000..00001}.tar", ALL[:4]),
        ("split_{00000,00002}", [*ALL[:2], *ALL[4:]]),
        ("split_{00000,00002}/*1.tar", [ALL[1], ALL[5]]),
    ],
)
def test_local_specifications(folder, spec, expected):
    assert relative(list_shards(f"{folder}/{spec}".rstrip("/")), folder) == expected


def test_several_specifications_are_chained_without_repeats(folder):
    found = list_shards([folder / "split_00002", str(folder), f"{folder}/split_00000/00000.tar"])
    assert relative(found, folder) == [*ALL[4:], *ALL[:4]]


def test_urls_are_expanded_and_never_looked_for():
    assert list_shards("s3://bucket/{00..02}.tar") == [f"s3://bucket/0{n}.tar" for n in range(3)]
    assert list_shards("pipe:aws s3 cp s3://b/{0,1}.tar -") == [f"pipe:aws s3 cp s3://b/{n}.tar -" for n in (0, 1)]


@pytest.mark.parametrize("subset", ["20M", "50M"])
def test_subsets_by_name(folder, subset):
    expected = [shard for shard in ALL if int(shard[6:11]) in SUBSETS[subset]]
    assert relative(list_shards(folder, subset), folder) == expected
    assert len(SUBSETS["20M"]) == 13
    assert len(SUBSETS["50M"]) == 32


def test_subset_errors(folder):
    with pytest.raises(ConfigError, match=r"subset '20m' is unknown\. Did you mean '20M'"):
        list_shards(folder, "20m")
    with pytest.raises(DatasetNotFoundError, match=r"subset '20M' is made of split_00000, split_00002.*none"):
        list_shards(folder / "split_00001", "20M")


def test_list_files_hold_names_relative_to_themselves(folder):
    listing = folder / "shards.txt"
    listing.write_text("# comment\n\nsplit_00001/00000.tar\nsplit_00000\ns3://b/7.tar\nsplit_00009/00000.tar\n")
    found = relative(list_shards(listing), folder)
    assert found == [ALL[2], *ALL[:2], "s3://b/7.tar", "split_00009/00000.tar"]


@pytest.mark.parametrize("line", ["pipe:touch {marker}", "  pipe:touch {marker}", "PIPE:touch {marker}"])
def test_commands_in_list_files_are_refused(folder, line):
    marker = folder / "executed"
    listing = folder / "shards.txt"
    listing.write_text(line.format(marker=marker))
    with pytest.raises(ConfigError, match="never from files with lists"):
        list_shards(listing)
    nested = folder / "outer.list"
    nested.write_text("shards.txt")
    with pytest.raises(ConfigError, match="never from files with lists"):
        list_shards(nested)
    assert not marker.exists()


@pytest.mark.parametrize("spec", ["nowhere", "split_00000/99999.tar", "nowhere/*.tar", "no_{0..3}.tar"])
def test_what_is_not_there_is_named_with_what_to_do(folder, spec):
    with pytest.raises(DatasetNotFoundError, match=rf"{folder}.*img2dataset.*write-shards"):
        list_shards(f"{folder}/{spec}")


def test_a_folder_without_shards(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"holds no \.tar files"):
        list_shards(tmp_path)
    with pytest.raises(DatasetNotFoundError, match="the list of shards is empty"):
        list_shards([])


def test_unknown_schemes():
    with pytest.raises(ConfigError, match=r"nothing opens 's4://'.*s3"):
        list_shards("s4://bucket/a.tar")


def test_names_are_unique_and_short(tmp_path):
    assert shard_names(["/a/split_00000/00001.tar", "s3://b/split_00001/00001.tar"]) == [
        "split_00000/00001",
        "split_00001/00001",
    ]
    assert shard_names(["/a/x/0.tar", "/b/x/0.tar", "/b/y/0.tar"]) == ["/a/x/0.tar", "/b/x/0.tar", "y/0"]
    assert shard_names(["pipe:aws s3 cp s3://b/x/0.tar -"]) == ["x/0"]
    assert shard_names(["https://h/x/0.tar?token=1"]) == ["x/0"]


def test_names_with_colons_and_dashes_are_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a:b.tar", "-rf.tar", "c d;e.tar"):
        (tmp_path / name).write_bytes(b"x")
        assert list_shards(name) == [name]
        with open_shard(name) as stream:
            assert stream.read() == b"x"


def test_pipes_run_only_when_given_directly(tmp_path):
    (shard,) = list_shards("pipe:printf abc")
    stream = open_shard(shard)
    assert stream.read(10) == b"abc"
    stream.close()
