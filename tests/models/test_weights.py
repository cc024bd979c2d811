"""Known weights and their download."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import re

import pytest

from farl_lightning.errors import CheckpointError
from farl_lightning.models import weights
from farl_lightning.models.weights import KNOWN_WEIGHTS, download, resolve


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A known file, served from disk."""
    source = tmp_path / "source" / "net.pth"
    source.parent.mkdir()
    source.write_bytes(b"weights" * 1000)
    entry = dataclasses.replace(KNOWN_WEIGHTS["farl-b16-ep16"], url=source.as_uri())
    monkeypatch.setitem(KNOWN_WEIGHTS, "test-net", entry)
    monkeypatch.setenv("FARL_LIGHTNING_CACHE", str(tmp_path / "cache"))
    return source


def _change(monkeypatch, **changes):
    monkeypatch.setitem(KNOWN_WEIGHTS, "test-net", dataclasses.replace(KNOWN_WEIGHTS["test-net"], **changes))


def test_table_is_sound():
    for name, known in KNOWN_WEIGHTS.items():
        assert known.url is None or known.url.startswith("https://"), name
        assert (known.url is None) == (known.page is not None), name
        assert known.license
        assert known.sha256 is None or re.fullmatch("[0-9a-f]{64}", known.sha256)
    hashed = {name for name, known in KNOWN_WEIGHTS.items() if known.sha256}
    assert hashed == {"clip-b16", "clip-b32", "clip-l14", "clip-l14-336"}, "only OpenAI publishes hashes"
    for name in hashed:
        assert KNOWN_WEIGHTS[name].sha256 in KNOWN_WEIGHTS[name].url


def test_download_shows_the_hash_once_and_keeps_the_file(served, tmp_path, caplog):
    digest = hashlib.sha256(served.read_bytes()).hexdigest()
    with caplog.at_level(logging.WARNING):
        file = resolve("test-net")
    assert digest in caplog.text
    assert file == tmp_path / "cache" / "net.pth"
    assert file.read_bytes() == served.read_bytes()
    assert (tmp_path / "cache" / "net.pth.sha256").read_text() == f"{digest}  net.pth\n"
    served.unlink()
    assert resolve("test-net") == file, "no second download"


def test_a_later_download_must_be_the_same(served, tmp_path):
    download("test-net").unlink()
    served.write_bytes(b"something else")
    with pytest.raises(CheckpointError, match=r"it was damaged or replaced"):
        download("test-net")
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["net.pth.sha256"]


def test_published_hash_is_checked(served, tmp_path, monkeypatch):
    _change(monkeypatch, sha256="0" * 64)
    with pytest.raises(CheckpointError, match=rf"expected {'0' * 64}"):
        download("test-net")
    assert not list((tmp_path / "cache").iterdir())


def test_size_is_limited(served, tmp_path, monkeypatch):
    _change(monkeypatch, max_bytes=100)
    with pytest.raises(CheckpointError, match=r"larger than 100 bytes"):
        download("test-net")
    assert not list((tmp_path / "cache").iterdir())


def test_failed_download_says_where_to_put_the_file(served, tmp_path):
    served.unlink()
    with pytest.raises(CheckpointError, match=re.escape(f"save it as {tmp_path / 'cache' / 'net.pth'}")):
        download("test-net")


def test_names_without_address_and_typos():
    with pytest.raises(CheckpointError, match=r"get the file from https://github.com/FacePerceiver/FaRL"):
        download("farl-b16-50m-ep16")
    with pytest.raises(CheckpointError, match=r"no known weights 'farl-b16-ep46'. Did you mean 'farl-b16-ep64'"):
        download("farl-b16-ep46")
    with pytest.raises(CheckpointError, match=r"neither a file nor known weights. Did you mean 'clip-b16'"):
        resolve("clip-b61")


def test_paths_pass_through(tmp_path):
    assert resolve(tmp_path / "x.pth") == tmp_path / "x.pth"
    assert resolve("~/x.pth").name == "x.pth"
    assert "~" not in str(resolve("~/x.pth"))


def test_cache_folder(monkeypatch):
    monkeypatch.delenv("FARL_LIGHTNING_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert str(weights.cache_folder()) == "/caches/farl_lightning"
