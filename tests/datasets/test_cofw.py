"""COFW: MATLAB's axes and counting, flags of occlusion, boxes, and bad input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from farl_lightning.datasets.bad_sample import BadSample
from farl_lightning.datasets.cofw import COFW
from farl_lightning.errors import ConfigError, DataError
from farl_lightning.testing.benchmarks.cofw import cofw_landmarks, cofw_occluded, write_cofw

h5py = pytest.importorskip("h5py", reason="COFW's files are read with h5py")

TRAIN = "COFW_train_color.mat"


@pytest.fixture
def folder(tmp_path) -> Path:
    write_cofw(tmp_path, count=4, size=64)
    return tmp_path


def _change(folder: Path, name: str, values: np.ndarray | None) -> None:
    """Replace a variable of the training file; None deletes it."""
    with h5py.File(folder / TRAIN, "r+") as file:
        del file[name]
        if values is not None:
            file[name] = values


def test_one_is_taken_off_and_x_comes_before_y(folder):
    column = np.concatenate([np.arange(1, 30), np.arange(11, 40), np.zeros(29)])
    _change(folder, "phisTr", np.tile(column[:, None], (1, 4)))
    record = COFW(folder)[0]
    np.testing.assert_array_equal(record.landmarks, np.stack([np.arange(29), 10 + np.arange(29)], axis=1))
    # HRNet's square around points from (0, 10) to (28, 38)
    assert record.box == (0.0, 10.0, 28.0, 38.0)


def test_pictures_are_turned_upright_and_grey_ones_become_rgb(folder):
    dataset = COFW(folder, "test")
    assert [record.image.shape for record in dataset] == [(64, 80, 3)] * 4
    face = write_cofw(folder, count=4, size=64)["test"][0]
    np.testing.assert_array_equal(dataset[0].image[:, :64], face.image)
    assert (dataset[3].image == dataset[3].image[..., :1]).all()


def test_occlusion_is_told_by_visible(tmp_path):
    truth = write_cofw(tmp_path, count=24, size=32)["train"]
    occluded = [cofw_occluded(face) for face in truth]
    assert 0 < sum(flags.any() for flags in occluded) < 24
    for record, face, flags in zip(COFW(tmp_path), truth, occluded, strict=False):
        np.testing.assert_array_equal(record.visible, ~flags)
        np.testing.assert_allclose(record.landmarks, cofw_landmarks(face), atol=1e-3)


def test_the_files_own_boxes_are_left_top_width_height(folder):
    truth = write_cofw(folder, count=4, size=64)["train"]
    for record, face in zip(COFW(folder, boxes="detector"), truth, strict=False):
        assert record.box == pytest.approx(face.box, abs=1e-6)
        assert record.box != COFW(folder)[0].box


def test_the_two_splits_are_two_files(folder):
    train, test = COFW(folder, "train"), COFW(folder, "test")
    assert (train.expected, test.expected) == (1345, 507)
    assert not set(train.keys) & set(test.keys)
    (folder / TRAIN).unlink()
    assert len(COFW(folder, "test")) == 4


FORKED_READER = """
import os, sys
from farl_lightning.datasets.cofw import COFW

dataset = COFW(sys.argv[1])
before = dataset[0].image  # opened in this process first
child = os.fork()
if child == 0:
    os._exit(0 if (dataset[0].image == before).all() else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_forked_workers_read_the_file(folder):
    """In a process of its own: a fork of this one, whose threads other tests have started, could wait forever."""
    subprocess.run([sys.executable, "-c", FORKED_READER, str(folder)], check=True, timeout=120)


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("phisTr", None, "KeyError"),
        ("phisTr", np.zeros((58, 4)), "shape (4, 58) instead of (n, 87)"),
        ("bboxesTr", np.zeros((4, 3)), "boxes of shape (3, 4)"),
        ("IsTr", np.zeros((1, 9)), "pictures of shape (1, 9)"),
    ],
)
def test_another_file_is_refused(folder, name, values, reason):
    _change(folder, name, values)
    with pytest.raises(DataError, match="cannot be read") as error:
        COFW(folder)
    assert reason in str(error.value)


def test_a_file_that_is_none_is_refused(folder):
    (folder / TRAIN).write_bytes(b"MATLAB 5.0 MAT-file" * 30)
    with pytest.raises(DataError, match="Download it again"):
        COFW(folder)


def test_bad_annotations_and_pictures_cost_one_sample_each(folder):
    with h5py.File(folder / TRAIN, "r+") as file:
        file["phisTr"][5, 0] = np.nan
        file["phisTr"][:58, 1] = 7.0  # all points on one spot: the square around them has no area
        file["wrong"] = np.zeros((2, 2, 2, 2), np.uint8)
        file["IsTr"][0, 2] = file["wrong"].ref
    dataset = COFW(folder)
    for index, reason in enumerate(["a landmark is not finite", "has no area", "broken_image: train_0002"]):
        with pytest.raises(BadSample, match=reason):
            dataset[index]
    assert dataset[3].image.shape == (64, 80, 3)
    assert any("train_0000: a landmark is not finite" in line for line in dataset.verify())


def test_unknown_names_are_refused(folder):
    with pytest.raises(ConfigError, match="Did you mean 'detector'"):
        COFW(folder, boxes="detectors")
    with pytest.raises(ConfigError, match="no split 'val'"):
        COFW(folder, "val")


def test_without_h5py_one_line_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install 'farl-lightning\[datasets\]'"):
        COFW(folder)
