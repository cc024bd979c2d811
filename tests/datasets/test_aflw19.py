"""AFLW-19: the permutation, the order of the box, hidden points, and bad input."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from farl_lightning.datasets.aflw19 import AFLW19, SPLITS, read_table, split_rows
from farl_lightning.datasets.bad_sample import BadSample
from farl_lightning.errors import ConfigError, DataError
from farl_lightning.testing.benchmarks.aflw19 import visible_points, write_aflw19

scipy_io = pytest.importorskip("scipy.io", reason="AFLW-19's annotations are read with SciPy")


@pytest.fixture
def folder(tmp_path) -> Path:
    write_aflw19(tmp_path, count=12, size=64)
    return tmp_path


def _change(folder: Path, **variables: object) -> None:
    """Change variables of the file; None leaves one out."""
    path = folder / "AFLWinfo_release.mat"
    values = {name: value for name, value in scipy_io.loadmat(str(path)).items() if not name.startswith("__")}
    kept = {name: value for name, value in {**values, **variables}.items() if value is not None}
    scipy_io.savemat(str(path), kept)


def test_the_official_file_is_cut_after_twenty_thousand():
    permutation = np.random.default_rng(0).permutation(24386)
    np.testing.assert_array_equal(split_rows(permutation, "train"), permutation[:20000])
    np.testing.assert_array_equal(split_rows(permutation, "full"), permutation[20000:])
    assert SPLITS == {"train": 20000, "full": 4386, "frontal": 1314}


def test_rows_follow_the_permutation_which_counts_from_one(folder):
    _change(folder, ra=np.arange(12, 0, -1, dtype=np.uint16)[None])
    assert [int(key[-5:]) for key in AFLW19(folder, "train").keys] == [11, 10, 9, 8, 7, 6, 5, 4, 3]
    assert [int(key[-5:]) for key in AFLW19(folder, "full").keys] == [2, 1, 0]


def test_the_box_is_stored_left_right_top_bottom(folder):
    _change(folder, bbox=np.tile([1.0, 41.0, 2.0, 52.0], (12, 1)))
    record = AFLW19(folder, "train")[0]
    assert record.box == record.error_box == (1.0, 2.0, 41.0, 52.0)


def test_coordinates_are_stored_all_x_then_all_y(folder):
    data = np.tile(np.concatenate([np.arange(19), 20 + np.arange(19)]).astype(float), (12, 1))
    _change(folder, data=data)
    points = AFLW19(folder, "train")[0].landmarks
    np.testing.assert_array_equal(points, np.stack([np.arange(19), 20 + np.arange(19)], axis=1))


def test_hidden_points_are_labelled_and_frontal_faces_hide_none(tmp_path):
    truth = write_aflw19(tmp_path, count=24, size=32)
    for split in ("train", "full", "frontal"):
        dataset = AFLW19(tmp_path, split)
        assert len(dataset) == len(truth[split])
        for record, placed in zip(dataset, truth[split], strict=False):
            np.testing.assert_array_equal(record.visible, visible_points(placed.face.yaw))
            np.testing.assert_allclose(record.landmarks, placed.landmarks(19), atol=1e-4)
            assert (record.subsets == ("frontal",)) == record.visible.all()
    assert 0 < len(AFLW19(tmp_path, "frontal")) < len(AFLW19(tmp_path, "full"))


def test_a_row_without_area_or_with_broken_numbers_costs_one_sample(folder):
    table = read_table(folder / "AFLWinfo_release.mat")
    boxes, rows = table.boxes.copy(), split_rows(table.permutation, "train")
    boxes[rows[0]] = [5, 5, 1, 9]
    data = table.landmarks.swapaxes(1, 2).reshape(12, 38).astype(float)
    data[rows[1], 3] = np.nan
    data[rows[2]] += 1000
    _change(folder, bbox=boxes, data=data)
    dataset = AFLW19(folder, "train")
    for index, reason in enumerate(["has no area", "a landmark is not finite", "all 19 landmarks lie outside"]):
        with pytest.raises(BadSample, match=reason):
            dataset[index]
    assert dataset[3].landmarks.shape == (19, 2)
    assert f"{dataset.keys[1]}: row {rows[1] + 1}: a landmark is not finite" in dataset.verify()


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"ra": None}, "KeyError: 'ra'"),
        ({"ra": np.ones((1, 12))}, "'ra' is no permutation of 1 to 12"),
        ({"data": np.zeros((12, 42))}, "cannot reshape"),
        ({"nameList": np.array([["a.jpg"]], object)}, "1 names of 12 faces"),
    ],
)
def test_another_file_is_refused(folder, variables, reason):
    _change(folder, **variables)
    with pytest.raises(DataError, match=r"AFLWinfo_release\.mat' cannot be read") as error:
        AFLW19(folder)
    assert reason in str(error.value)


def test_a_file_that_is_none_is_refused(folder):
    (folder / "AFLWinfo_release.mat").write_bytes(b"<html>404</html>" * 20)
    with pytest.raises(DataError, match="Download it again"):
        AFLW19(folder)


def test_an_unknown_split_is_refused(folder):
    with pytest.raises(ConfigError, match="Did you mean 'frontal'"):
        AFLW19(folder, "front")


def test_without_scipy_one_line_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(ImportError, match=r"pip install 'farl-lightning\[datasets\]'"):
        AFLW19(folder)
