"""Detection files become tables; nothing in them executes, and nothing else passes for one."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from farl_lightning.datasets.detections import DetectionTable, index_detections, read_detections
from farl_lightning.errors import ConfigError, DataError, DatasetNotFoundError


def face(base: float, dtype=np.float32):
    return np.arange(4, dtype=dtype) + base, np.arange(10, dtype=dtype).reshape(5, 2) - base, dtype(base / 1000)


@pytest.fixture
def detections():
    return {30: [face(1), face(2)], 10: [], 9_000_000_000: [face(3)], -4: [face(4)]}


@pytest.mark.parametrize("zipped", [True, False])
def test_round_trip(tmp_path, detections, zipped):
    path = tmp_path / "sample2detect_7.pth"
    torch.save(detections, path, _use_new_zipfile_serialization=zipped)
    assert index_detections([path], tmp_path / "table") == 4
    table = DetectionTable(tmp_path / "table")
    assert len(table) == 4
    first, second = table.lookup(30)
    assert first.box == (1, 2, 3, 4)
    assert first.landmarks == ((-1, 0), (1, 2), (3, 4), (5, 6), (7, 8))
    assert first.score == pytest.approx(0.001)
    assert second.box == (2, 3, 4, 5)
    assert table.lookup(10) == []
    assert table.lookup(9_000_000_000)[0].box[0] == 3
    assert table.lookup(-4)[0].box[0] == 4
    assert table.lookup(11) is None
    assert table.lookup(10**15) is None


def test_arrays_pickled_under_the_names_of_the_other_numpy(tmp_path, detections):
    path = tmp_path / "sample2detect_0.pth"
    torch.save(detections, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    other = data.replace(new, old) if new in data else data.replace(old, new)
    assert other != data
    path.write_bytes(other)
    assert read_detections(path).keys() == detections.keys()


def test_lists_and_doubles_are_read_as_well(tmp_path):
    path = tmp_path / "sample2detect_0.pth"
    torch.save({1: [([1, 2, 3, 4], [[0.0, 0.5]] * 5, 0.75)], 2: [face(5, np.float64)]}, path)
    index_detections([path], tmp_path / "table")
    table = DetectionTable(tmp_path / "table")
    assert table.lookup(1)[0] == ((1, 2, 3, 4), ((0, 0.5),) * 5, 0.75)
    assert table.lookup(2)[0].box == (5, 6, 7, 8)


def test_parts_are_indexed_one_by_one_and_kept(tmp_path, detections):
    first, second = tmp_path / "sample2detect_0.pth", tmp_path / "sample2detect_1.pth"
    torch.save({1: [face(1)]}, first)
    second.write_bytes(b"PK broken")
    with pytest.raises(DataError):
        index_detections([first, second], tmp_path / "table")
    stamp = (tmp_path / "table" / "part_00000.faces.npy").stat().st_mtime_ns
    torch.save({2: [face(2)]}, second)
    seen = []
    assert (
        index_detections([first, second], tmp_path / "table", progress=lambda files: seen.extend(files) or files) == 2
    )
    assert seen == [first, second]
    assert (tmp_path / "table" / "part_00000.faces.npy").stat().st_mtime_ns == stamp
    table = DetectionTable(tmp_path / "table")
    assert [table.lookup(n)[0].box[0] for n in (1, 2)] == [1, 2]
    assert not list((tmp_path / "table").glob("*.tmp"))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_does_not_run(tmp_path, zipped):
    marker, path = tmp_path / "executed", tmp_path / "sample2detect_0.pth"

    class Bomb:
        def __reduce__(self):
            return open, (str(marker), "w")

    torch.save({1: [Bomb()]}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataError, match=r"cannot be read safely.*open"):
        index_detections([path], tmp_path / "table")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not written by torch.save"),
        (b"<html>", "not written by torch.save"),
        (b"PK\x03\x04 no archive", "not written by torch.save"),
        (pickle.dumps({1: []}, 2), "cannot be read safely"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "sample2detect_0.pth"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_detections(path)


@pytest.mark.parametrize("content", [[1, 2], {1: 5}, torch.zeros(3)])
def test_other_objects_are_refused(tmp_path, content):
    path = tmp_path / "sample2detect_0.pth"
    torch.save(content, path)
    with pytest.raises(DataError, match="expected a dict SAMPLE_ID -> list of faces"):
        read_detections(path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ((np.zeros(4), np.zeros((5, 2))), "expected .box, landmarks, score."),
        ((np.zeros(4), np.zeros((4, 2)), 1.0), "13"),
    ],
)
def test_malformed_faces_are_named(tmp_path, entry, message):
    path = tmp_path / "sample2detect_0.pth"
    torch.save({77: [entry]}, path)
    with pytest.raises(DataError, match=f"sample 77: .*{message}"):
        index_detections([path], tmp_path / "table")


def test_missing_things_are_named(tmp_path):
    with pytest.raises(DatasetNotFoundError, match="sample2detect_3"):
        index_detections([tmp_path / "sample2detect_3.pth"], tmp_path / "table")
    with pytest.raises(DatasetNotFoundError, match="index-detections"):
        DetectionTable(tmp_path)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        torch.save({}, tmp_path / folder / "sample2detect_3.pth")
    with pytest.raises(ConfigError, match="same part of the table: part_00003"):
        index_detections([tmp_path / f / "sample2detect_3.pth" for f in "ab"], tmp_path / "table")


def test_a_damaged_table_is_not_believed(tmp_path, detections):
    path = tmp_path / "sample2detect_0.pth"
    torch.save(detections, path)
    index_detections([path], tmp_path / "table")
    np.save(tmp_path / "table" / "part_00000.faces.npy", np.zeros((2, 15), np.float32))
    with pytest.raises(DataError, match="index it again"):
        DetectionTable(tmp_path / "table")


def test_a_table_travels_to_workers_as_its_path(tmp_path, detections):
    path = tmp_path / "sample2detect_0.pth"
    torch.save({n: [face(n)] for n in range(3000)}, path)
    index_detections([path], tmp_path / "table")
    data = pickle.dumps(DetectionTable(tmp_path / "table"))
    assert len(data) < 500
    assert pickle.loads(data).lookup(2999)[0].box[0] == 2999  # noqa: S301
