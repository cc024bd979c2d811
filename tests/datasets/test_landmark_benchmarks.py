"""What all landmark benchmarks promise, each on a fake folder in its native layout whose truth is known."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from farl_lightning.datasets.bad_sample import BadSample
from farl_lightning.datasets.landmark_faces import check_inside, landmark_box, unique_names
from farl_lightning.datasets.splits import hold_out
from farl_lightning.errors import DatasetNotFoundError
from farl_lightning.types import FaceRecord
from tests.datasets.landmark_cases import CASES, SIZE, Case, Truth, require_package


@pytest.fixture(scope="module", params=sorted(CASES))
def opened(request, tmp_path_factory):
    """A benchmark, its training split, and the truth."""
    case = CASES[request.param]
    require_package(case)
    folder = tmp_path_factory.mktemp(case.name)
    truths = case.write(folder)
    return case, case.open(folder), truths


def _eye_label(mask: np.ndarray, points: np.ndarray) -> int:
    """Return the eye class nearest to the middle of points."""
    x, y = points.mean(axis=0).round().astype(int)
    near = mask[y - 2 : y + 3, x - 2 : x + 3]
    return int(np.bincount(near[(near == 4) | (near == 5)], minlength=6).argmax())


def test_landmarks_lie_where_they_were_drawn(opened: tuple[Case, object, list[Truth]]):
    _, dataset, truths = opened
    assert len(dataset) == len(truths)
    for record, truth in zip(dataset, truths, strict=False):
        assert record.landmarks.dtype == np.float32
        np.testing.assert_allclose(record.landmarks, truth.landmarks, atol=2e-3)
        np.testing.assert_allclose(record.points, dataset.order.five_points(truth.landmarks), atol=2e-3)


def test_pictures_are_those_that_were_drawn(opened):
    _, dataset, truths = opened
    for record, truth in zip(dataset, truths, strict=False):
        assert record.image.dtype == np.uint8
        wanted = truth.picture.astype(int)
        if (record.image == record.image[..., :1]).all():  # COFW's grey pictures
            wanted = np.broadcast_to(wanted.mean(axis=2, keepdims=True), wanted.shape)
        assert record.image.shape == wanted.shape
        assert np.abs(record.image - wanted).mean() < 2.5  # JPEG


def test_left_and_right_are_the_viewers_on_pixels_and_change_under_a_flip(opened):
    _, dataset, truths = opened
    groups, order, seen = dataset.spec.landmark_groups, dataset.order.flip_order(), 0
    for record, truth in zip(dataset, truths, strict=False):
        if not truth.bare:
            continue
        seen += 1
        left, right = list(groups["left_eye"]), list(groups["right_eye"])
        assert _eye_label(truth.mask, record.landmarks[left]) == 4
        assert _eye_label(truth.mask, record.landmarks[right]) == 5
        flipped = record.landmarks.copy()
        flipped[:, 0] = record.image.shape[1] - 1 - flipped[:, 0]
        flipped, mask = flipped[order], truth.mask[:, ::-1]  # class 4 now lies on the image's right
        assert _eye_label(mask, flipped[left]) == 5
        assert flipped[left].mean(axis=0)[0] < flipped[right].mean(axis=0)[0]
    assert seen >= 3


def test_boxes_hold_the_face(opened):
    _, dataset, truths = opened
    for record, truth in zip(dataset, truths, strict=False):
        left, top, right, bottom = record.box
        middle = truth.landmarks.mean(axis=0)
        assert left < middle[0] < right
        assert top < middle[1] < bottom
        assert 0.2 * SIZE < right - left < SIZE
        assert record.error_box == record.box


def test_names_are_unique_and_samples_survive_pickling(opened):
    _, dataset, _ = opened
    assert len(set(dataset.keys)) == len(dataset)
    copy: FaceRecord = pickle.loads(pickle.dumps(dataset))[1]  # noqa: S301  -- our own bytes
    np.testing.assert_array_equal(copy.image, dataset[1].image)
    assert copy.key == dataset.keys[1]


def test_verify_names_a_missing_picture_and_how_to_get_it(tmp_path):
    folder = tmp_path / "300w"
    CASES["300w"].write(folder)
    dataset = CASES["300w"].open(folder)
    lost = folder / dataset.rows[2].picture
    lost.unlink()
    found = dataset.verify()
    assert any(str(lost) in line and dataset.keys[2] in line for line in found)
    assert "afw.zip" in found[-1]
    assert "ibug.doc.ic.ac.uk" in found[-1]
    with pytest.raises(BadSample, match="missing_image"):
        dataset[2]
    dataset[1]  # the others are there


@pytest.mark.parametrize("name", sorted(CASES))
def test_an_empty_folder_is_refused_with_how_to_get_the_data(tmp_path, name):
    with pytest.raises(DatasetNotFoundError) as error:
        CASES[name].open(tmp_path)
    text = str(error.value)
    assert "http" in text
    assert "unpack so that 'root' holds" in text
    with pytest.raises(DatasetNotFoundError, match="does not exist"):
        CASES[name].open(tmp_path / "nowhere")


def test_held_out_faces_share_no_photograph_with_the_rest(opened):
    case, dataset, _ = opened
    rest, held = hold_out(dataset, 0.3, seed=1)
    assert len(rest) + len(held) == len(dataset)
    assert set(rest.photographs).isdisjoint(held.photographs)
    assert len(held) >= round(0.3 * len(dataset))
    if case.name == "wflw":
        assert len(set(dataset.photographs)) < len(dataset)
        # a face whose neighbour is held out goes with it
        assert len(held) > round(0.3 * len(dataset)) or len(held) % 2 == 0


def test_landmark_box_rounds_outwards_and_is_square():
    box = landmark_box(np.array([[10.2, 20.7], [30.1, 24.2]]))
    # x from 10 to 31, y from 20 to 25: 21 wide, centred on (20.5, 22.5)
    assert box == (10.0, 12.0, 31.0, 33.0)


def test_repeated_names_are_told_apart():
    assert unique_names(["a", "b", "a", "a"]) == ["a", "b", "a#2", "a#3"]


def test_a_face_outside_of_its_picture_is_refused_and_a_cut_off_one_is_not():
    points = np.array([[-5.0, 3.0], [2.0, 3.0]], np.float32)
    check_inside(points, (10, 10, 3))
    with pytest.raises(BadSample, match="all 2 landmarks lie outside of the 10 x 10 picture"):
        check_inside(points + 50, (10, 10, 3))
