"""InsightFace's pickles are read as every version of Python writes them, and nothing in them is ever run."""

from __future__ import annotations

import os
import pickle
import struct

import pytest

from farl_lightning.datasets import pickled_pairs
from farl_lightning.datasets.pickled_pairs import read_pairs_bin
from farl_lightning.errors import DataError, DatasetNotFoundError

PICTURES = [b"\xff\xd8 one", b"two\x00\n", bytes(range(256)) * 2, b"\xff\xd8 one"]


def write(path, value, protocol=4):
    path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("answers", [[True, False], [1, 0]])
def test_every_protocol_says_the_same(tmp_path, protocol, answers):
    """Protocol 2 has no bytes: Python 3 writes them as a call, which is understood and not made."""
    path = write(tmp_path / "a.bin", (PICTURES, answers), protocol)
    assert read_pairs_bin(path) == (PICTURES, [True, False])
    assert read_pairs_bin(write(path, [PICTURES, answers], protocol))[0] == PICTURES


def test_as_python_2_wrote_them(tmp_path):
    short = b"".join(b"U" + bytes([len(data)]) + data for data in PICTURES[:2])
    long = b"".join(b"T" + struct.pack("<i", len(data)) + data for data in PICTURES[2:])
    program = b"\x80\x02]q\x00(" + short + long + b"e]q\x01(\x88\x89e\x86q\x02."
    assert pickle.loads(program, encoding="bytes") == (PICTURES, [True, False])  # noqa: S301 -- made above
    assert read_pairs_bin(write(tmp_path / "a.bin", program)) == (PICTURES, [True, False])


class Evil:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
@pytest.mark.parametrize("place", ["picture", "answer", "all"])
def test_nothing_is_executed(tmp_path, monkeypatch, protocol, place):
    ran = tmp_path / "ran"
    evil = Evil(os.mkdir, str(ran))
    value = {"picture": ([evil, b"x"], [True]), "answer": ([b"a", b"b"], [evil]), "all": evil}[place]
    path = write(tmp_path / "a.bin", value, protocol)
    with pytest.raises(DataError, match=r"a.bin' holds no pairs as InsightFace writes them: .*(was not|builds no)"):
        read_pairs_bin(path)
    assert not ran.exists()
    pickle.loads(path.read_bytes())  # noqa: S301 -- the harm is real
    assert ran.exists()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "asks for 'os.system', which was not imported"),
        (b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00utf-7tR.", "calls something, which was not called"),
        (b"ios\nsystem\n.", "instruction INST at byte 0 builds no plain data"),
        (b"}.", "EMPTY_DICT"),
        (b"\x80\x04]q\x00(C\x01aC", "holds no pairs"),
        (b"]", "holds no pairs"),
        (b"", "holds no pairs"),
        (b"not a pickle", "holds no pairs"),
        (b"a.", "holds no pairs"),
        (b"K\x01K\x02a.", "appends to what is no list"),
        (b"(.", "it is no pair of lists"),
        (b"\x85.", "takes more from the stack"),
        (b"l.", "a mark is missing"),
        (b"h\x05.", "holds no pairs"),
        (pickle.dumps(([b"a"], [True])), "1 pictures do not make 1 pairs"),
        (pickle.dumps(([], [])), "0 pictures do not make 0 pairs"),
        (pickle.dumps(([b"a", "b"], [True])), "a picture is str instead of bytes"),
        (pickle.dumps(([b"a", b"b"], [2])), "neither true nor false"),
        (pickle.dumps([b"a", b"b"]), "it is no pair of lists"),
    ],
)
def test_what_is_no_list_of_pairs_says_so(tmp_path, program, message):
    with pytest.raises(DataError, match=message):
        read_pairs_bin(write(tmp_path / "a.bin", program))


def test_missing_and_huge_files(tmp_path, monkeypatch):
    with pytest.raises(DatasetNotFoundError, match=r"none.bin' do not exist"):
        read_pairs_bin(tmp_path / "none.bin")
    monkeypatch.setattr(pickled_pairs, "MAX_BIN_BYTES", 10)
    with pytest.raises(DataError, match="bytes, the limit is 10"):
        read_pairs_bin(write(tmp_path / "a.bin", (PICTURES, [True, False])))
