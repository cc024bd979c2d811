"""WFLW: names, subsets, boxes, and bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from farl_lightning.datasets.bad_sample import BadSample
from farl_lightning.datasets.wflw import LIST, SUBSETS, WFLW
from farl_lightning.errors import ConfigError, DataError, DatasetNotFoundError
from farl_lightning.testing.benchmarks.wflw import write_wflw


@pytest.fixture
def folder(tmp_path) -> Path:
    write_wflw(tmp_path, count=4, size=64)
    return tmp_path


def test_nothing_is_taken_off(folder):
    path = folder / "face_landmarks_wflw_train.csv"
    lines = path.read_text().splitlines()
    name = lines[1].split(",")[0]
    lines[1] = ",".join([name, "0.2", "30", "40", *["30.5", "10.25"] * 98])
    path.write_text("\n".join(lines))
    record = WFLW(folder, "train")[0]
    np.testing.assert_array_equal(record.landmarks, np.tile(np.float32([30.5, 10.25]), (98, 1)))
    assert record.box == pytest.approx((10, 20, 50, 60))
    # FaRL's name of the sample: the picture's, and the mean of the landmarks
    assert record.key == name.replace("/", ".").removesuffix(".jpg") + "_30.500_10.250"


def test_faces_of_one_picture_have_names_of_their_own(folder):
    dataset = WFLW(folder, "test")
    assert len(set(dataset.photographs)) == 2
    assert len(set(dataset.keys)) == 4
    first, second = dataset[0], dataset[1]
    np.testing.assert_array_equal(first.image, second.image)
    assert second.landmarks[:, 0].mean() - first.landmarks[:, 0].mean() == pytest.approx(64, abs=20)


def test_subsets_are_those_of_the_csv_files(folder):
    truth = write_wflw(folder, count=4, size=64)
    whole = WFLW(folder, "test")
    for subset in SUBSETS:
        part = WFLW(folder, "test", subset)
        assert len(part) == len(truth[f"test_{subset}"])
        assert part.keys == [record.key for record in whole if subset in record.subsets]
        for record, placed in zip(part, truth[f"test_{subset}"], strict=False):
            np.testing.assert_allclose(record.landmarks, placed.landmarks(98), atol=1e-3)
    assert all(record.subsets == () for record in WFLW(folder, "train"))
    assert {len(record.subsets) for record in whole} == {2}


def test_the_authors_lists_say_the_same_as_the_csv_files(folder):
    for split in ("train", "test"):
        csv, listed = WFLW(folder, split, annotations="csv"), WFLW(folder, split, annotations="list")
        assert csv.keys == listed.keys
        for a, b in zip(csv, listed, strict=False):
            np.testing.assert_allclose(a.landmarks, b.landmarks, atol=1e-5)
            assert (a.subsets, pytest.approx(a.box, abs=1e-3)) == (b.subsets, b.box)


def test_a_line_of_the_lists_is_points_rectangle_flags_picture(folder):
    path = folder / LIST.format("test")
    words = [*(["10.5", "20.25", "30.5", "40.75"] * 49), "1", "2", "3", "4", "0", "1", "0", "0", "1", "0", "a/b.jpg"]
    path.write_text(" ".join(words) + "\n")
    dataset = WFLW(folder, "test", annotations="list")
    assert dataset.rows[0].picture == "a/b.jpg"
    assert dataset.rows[0].subsets == ("expression", "occlusion")
    np.testing.assert_array_equal(dataset.rows[0].landmarks[:2], [[10.5, 20.25], [30.5, 40.75]])
    # from 10 to 31 and 20 to 41: the square around the points, not the rectangle
    assert dataset.rows[0].box == (10.0, 20.0, 31.0, 41.0)


def test_lists_are_read_where_no_csv_file_is(folder):
    for path in folder.glob("*.csv"):
        path.unlink()
    assert len(WFLW(folder, "test", "blur")) > 0
    with pytest.raises(DatasetNotFoundError, match="face_landmarks_wflw_train"):
        WFLW(folder, "train", annotations="csv")


def test_a_bad_line_of_a_list_costs_one_sample_and_another_file_is_refused(folder):
    path = folder / LIST.format("train")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1].replace(lines[1].split()[5], "x"), lines[2] + " 7"]))
    dataset = WFLW(folder, "train", annotations="list")
    for index, reason in ((1, "line 2: could not convert"), (2, "line 3: 208 columns instead of 207")):
        with pytest.raises(BadSample, match=reason):
            dataset[index]
    assert dataset[0].landmarks.shape == (98, 2)
    path.write_text("1 2 3\n")
    with pytest.raises(DataError, match="line 1: 3 columns instead of 207"):
        WFLW(folder, "train", annotations="list")
    path.write_text("")
    with pytest.raises(DataError, match="it is empty"):
        WFLW(folder, "train", annotations="list")


def test_pictures_may_lie_in_hrnets_folder(folder):
    (folder / "WFLW_images").rename(folder / "images")
    assert WFLW(folder, "train")[0].image.shape == (64, 128, 3)


def test_a_missing_csv_file_is_named(folder):
    (folder / "face_landmarks_wflw_test_blur.csv").unlink()
    WFLW(folder, "train")
    WFLW(folder, "test", annotations="list")
    with pytest.raises(DatasetNotFoundError, match=r"has no 'face_landmarks_wflw_test_blur\.csv'"):
        WFLW(folder, "test")


def test_a_line_that_occurs_twice_keeps_both_faces_apart(folder):
    path = folder / "face_landmarks_wflw_train.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1]]))
    dataset = WFLW(folder, "train")
    assert dataset.keys[4] == dataset.keys[0] + "#2"


def test_a_bad_line_costs_one_sample(folder):
    path = folder / "face_landmarks_wflw_test.csv"
    lines = path.read_text().splitlines()
    lines[2] = lines[2].rsplit(",", 1)[0]
    path.write_text("\n".join(lines))
    dataset = WFLW(folder, "test")
    with pytest.raises(BadSample, match="line 3: 199 columns instead of 200"):
        dataset[1]
    assert len(dataset) == 4
    assert dataset[0].subsets


def test_unknown_names_are_refused(folder):
    with pytest.raises(ConfigError, match="Did you mean 'largepose'"):
        WFLW(folder, "test", "large_pose")
    with pytest.raises(ConfigError, match="Only the test set has subsets"):
        WFLW(folder, "train", "blur")
    with pytest.raises(ConfigError, match="no split 'val'"):
        WFLW(folder, "val")
    with pytest.raises(ConfigError, match="Did you mean 'list'"):
        WFLW(folder, annotations="lists")


def test_too_few_faces_for_a_fake_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="at least 3"):
        write_wflw(tmp_path, count=2)
