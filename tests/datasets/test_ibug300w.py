"""300W: the rules of HRNet's csv files, the .pts files, and bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from farl_lightning.datasets.bad_sample import BadSample
from farl_lightning.datasets.ibug300w import IBug300W
from farl_lightning.datasets.pts import read_pts
from farl_lightning.errors import ConfigError, DataError, DatasetNotFoundError
from farl_lightning.testing.benchmarks.ibug300w import write_ibug300w

TRAIN = "face_landmarks_300w_train.csv"


@pytest.fixture
def folder(tmp_path) -> Path:
    write_ibug300w(tmp_path, count=3, size=64)
    return tmp_path


def _line(folder: Path, number: int, line: str) -> None:
    """Replace a line of the training file; 0 is the header."""
    lines = (folder / TRAIN).read_text().splitlines()
    lines[number] = line
    (folder / TRAIN).write_text("\n".join(lines) + "\n")


def _row(name: str = "afw/1000_1.jpg", scale: object = 0.2, x: object = 30, y: object = 40, value: object = 32) -> str:
    return ",".join(map(str, [name, scale, x, y, *[value] * 136]))


def test_two_pixels_are_taken_off_points_and_centre_and_none_off_the_side(folder):
    _line(folder, 1, _row(value="32.5"))
    record = IBug300W(folder, "train")[0]
    np.testing.assert_array_equal(record.landmarks, np.full((68, 2), 30.5, np.float32))
    # centre (30, 40) and scale 0.2: 40 px wide around (28, 38)
    assert record.box == pytest.approx((8, 18, 48, 58))


def test_splits_and_their_subsets(folder):
    assert [record.subsets for record in IBug300W(folder, "train")] == [()] * 3
    assert [record.subsets for record in IBug300W(folder, "full")] == [("common",)] * 3 + [("challenging",)] * 3
    parts = IBug300W(folder, "common").keys + IBug300W(folder, "challenging").keys
    assert IBug300W(folder, "full").keys == parts


def test_official_sizes_are_known(folder):
    sizes = {split: IBug300W(folder, split).expected for split in ("train", "common", "challenging", "full")}
    assert sizes == {"train": 3148, "common": 554, "challenging": 135, "full": 689}


def test_the_picture_whose_name_the_csv_gets_wrong_is_found(folder):
    assert (folder / "ibug/image_092 _01.jpg").exists()
    assert "ibug/image_092_01.jpg" in (folder / "face_landmarks_300w_valid_challenge.csv").read_text()
    dataset = IBug300W(folder, "challenging")
    assert dataset.keys[0] == "ibug_image_092 _01"
    before = dataset[0].image
    # copies of the archive in which somebody took the space out work, too
    (folder / "ibug/image_092 _01.jpg").rename(folder / "ibug/image_092_01.jpg")
    np.testing.assert_array_equal(IBug300W(folder, "challenging")[0].image, before)


def test_pts_files_say_the_same_as_the_csv_files(folder):
    for split in ("train", "full"):
        csv, pts = IBug300W(folder, split, "csv"), IBug300W(folder, split, "pts")
        of_csv, of_pts = (dict(zip(dataset.keys, dataset, strict=False)) for dataset in (csv, pts))
        assert of_csv.keys() == of_pts.keys()
        for key, record in of_csv.items():
            np.testing.assert_allclose(of_pts[key].landmarks, record.landmarks, atol=1e-4)
            np.testing.assert_array_equal(of_pts[key].image, record.image)
            assert of_pts[key].box == pytest.approx(record.box, abs=1)
            assert of_pts[key].subsets == record.subsets


def test_one_pixel_is_taken_off_the_points_of_pts_files(folder):
    lines = "\n".join(f"{10 + i / 4} {20 + i / 8}" for i in range(68))
    (folder / "afw/1000_1.pts").write_text(f"version: 1\nn_points: 68\n{{\n{lines}\n}}\n")
    record = IBug300W(folder, "train", "pts")[0]
    np.testing.assert_array_equal(record.landmarks[:2], [[9, 19], [9.25, 19.125]])
    # x from 9 to 25.75, y from 19 to 27.375, rounded outwards to 17 by 9 pixels around (17.5, 23.5)
    assert record.box == (9.0, 15.0, 26.0, 32.0)


def test_pts_files_are_read_where_no_csv_file_is(folder):
    for path in folder.glob("*.csv"):
        path.unlink()
    assert len(IBug300W(folder, "full")) == 6
    with pytest.raises(DatasetNotFoundError, match=r"face_landmarks_300w_train\.csv"):
        IBug300W(folder, "train", "csv")


def test_pictures_may_lie_in_a_folder_of_their_own(folder):
    (folder / "images").mkdir()
    for name in ("afw", "helen", "lfpw", "ibug"):
        (folder / name).rename(folder / "images" / name)
    assert IBug300W(folder, "full")[5].image.shape == (64, 64, 3)
    assert len(IBug300W(folder, "train", "pts")) == 3


def test_faces_of_one_photograph_are_known(folder):
    _line(folder, 2, _row("afw/1000_2.jpg"))
    _line(folder, 3, _row("lfpw/trainset/image_0002.png"))
    assert IBug300W(folder, "train").photographs == ["afw/1000.jpg", "afw/1000.jpg", "lfpw/trainset/image_0002.png"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("afw/1000_1.jpg,0.2,30,40,1,2,3", "line 2: 7 columns instead of 140"),
        (_row(value="abc"), "line 2: could not convert string to float: 'abc'"),
        (_row(value="nan"), "line 2: 136 numbers are not finite"),
        (_row(scale=0), "has no area"),
        (_row(scale=-1), "has no area"),
        (_row(scale="inf"), "line 2: 1 numbers are not finite"),
        (_row(value=900), "all 68 landmarks lie outside of the 64 x 64 picture"),
        (_row("afw/none.jpg"), "missing_image: none.jpg"),
    ],
)
def test_a_bad_line_costs_one_sample_and_says_why(folder, line, reason):
    _line(folder, 1, line)
    dataset = IBug300W(folder, "train")
    assert len(dataset) == 3
    with pytest.raises(BadSample) as error:
        dataset[0]
    assert reason in str(error.value)
    assert dataset[1].landmarks.shape == (68, 2)
    if reason.startswith("line"):
        assert any(reason in finding for finding in dataset.verify())


def test_empty_lines_comments_and_a_byte_order_mark_are_skipped(folder):
    text = (folder / TRAIN).read_text().splitlines()
    (folder / TRAIN).write_text("\ufeff" + "\n".join([text[0], "", "# a comment", *text[1:], ""]), encoding="utf-8")
    assert len(IBug300W(folder, "train")) == 3


def test_another_datasets_file_is_refused(folder):
    (folder / TRAIN).write_text("image_name,scale\na.jpg,1,2,3,4,5\n")
    with pytest.raises(DataError, match=r"holds no face with 68 landmarks: line 2: 6 columns instead of 140"):
        IBug300W(folder, "train")
    (folder / TRAIN).write_text("image_name,scale\n")
    with pytest.raises(DataError, match="no lines after the header"):
        IBug300W(folder, "train")


def test_unknown_names_are_refused_with_the_nearest(folder):
    with pytest.raises(ConfigError, match="Did you mean 'challenging'"):
        IBug300W(folder, "challenge")
    with pytest.raises(ConfigError, match="Did you mean 'csv'"):
        IBug300W(folder, annotations="csvs")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("version: 1\n1 2 3", "no points between braces"),
        ("{ 1 2 3 }", "3 numbers instead of 4"),
        ("{ 1 2 3 x }", "could not convert"),
        ("{ 1 2 3 inf }", "not finite"),
    ],
)
def test_broken_pts_files_say_what_is_wrong(tmp_path, text, reason):
    path = tmp_path / "a.pts"
    path.write_text(text)
    with pytest.raises(BadSample, match=rf"broken_annotation: a\.pts: .*{reason}"):
        read_pts(path, 2)
    with pytest.raises(BadSample, match="missing_annotation"):
        read_pts(tmp_path / "none.pts", 2)


def test_a_broken_pts_file_costs_one_sample(folder):
    path = folder / "afw/1000_1.pts"
    path.write_text("{ 1 2 }")
    dataset = IBug300W(folder, "train", "pts")
    with pytest.raises(BadSample, match=r"1000_1\.pts: 2 numbers instead of 136"):
        dataset[dataset.keys.index("afw_1000_1")]
    assert len(dataset) == 3
