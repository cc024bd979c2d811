"""Landmark orders: every table against what is known of it, and against the drawn faces."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from farl_lightning.datasets.landmark_sets import LANDMARK_SETS, LAPA_106, landmark_set
from farl_lightning.datasets.synthetic import SyntheticFace, SyntheticFaces
from farl_lightning.errors import ConfigError
from farl_lightning.functional.landmark_errors import INTER_OCULAR, INTER_PUPIL
from farl_lightning.testing.benchmarks.cofw import cofw_landmarks

SIZE = 256

MIDDLE = {
    19: [13, 16, 18],
    29: [20, 21, 24, 25, 26, 27, 28],
    68: [8, 27, 28, 29, 30, 33, 51, 57, 62, 66],
    98: [16, 51, 52, 53, 54, 57, 79, 85, 90, 94],
    106: [16, 51, 52, 53, 54, 60, 87, 93, 98, 102],
}


@pytest.fixture(scope="module")
def faces() -> list[SyntheticFace]:
    return list(SyntheticFaces(30, SIZE, seed=3))


def landmarks(face: SyntheticFace, count: int) -> np.ndarray:
    return cofw_landmarks(face) if count == 29 else face.landmarks(count)


@pytest.mark.parametrize("count", sorted(LANDMARK_SETS))
def test_flip_pairs_name_every_point_once_and_leave_the_middle(count):
    order = landmark_set(count)
    named = [index for pair in order.flips for index in pair]
    assert len(named) == len(set(named))
    assert sorted(set(range(count)) - set(named)) == MIDDLE[count]
    np.testing.assert_array_equal(order.flip_order()[order.flip_order()], np.arange(count))


@pytest.mark.parametrize("count", sorted(LANDMARK_SETS))
def test_groups_cover_every_point_and_swap_sides_under_a_flip(count):
    order = landmark_set(count)
    assert {index for group in order.groups.values() for index in group} == set(range(count))
    partner = order.flip_order()
    for name, group in order.groups.items():
        mirrored = name.replace("left", "?").replace("right", "left").replace("?", "right")
        assert {int(partner[index]) for index in group} == set(order.groups[mirrored]), name


def test_lapa_pairs_known_by_hand():
    """Pairs as mmpose's description of LaPa gives them, one or two of each part."""
    known = {(0, 32), (15, 17), (33, 46), (37, 42), (38, 50), (41, 47), (55, 65), (59, 61), (66, 79), (70, 75)}
    known |= {(71, 82), (73, 80), (74, 83), (84, 90), (86, 88), (91, 95), (92, 94), (96, 100), (101, 103), (104, 105)}
    assert known <= set(LAPA_106.flips)
    assert LAPA_106.five == ((104,), (105,), (54,), (84,), (90,))


def test_cofw_pairs_are_those_of_hrnet():
    """HRNet's list of matched parts, which counts from 1."""
    matched = [(1, 2), (5, 7), (3, 4), (6, 8), (9, 10), (11, 12), (13, 15), (17, 18), (14, 16), (19, 20), (23, 24)]
    assert sorted(landmark_set(29).flips) == sorted((a - 1, b - 1) for a, b in matched)


@pytest.mark.parametrize("count", [19, 29, 68, 98])
def test_a_flip_of_the_points_is_the_mirror_image(faces, count):
    for face in faces[:10]:
        pose = dataclasses.replace(
            face.look.pose, x=1 - face.look.pose.x, yaw=-face.look.pose.yaw, roll=-face.look.pose.roll
        )
        look = dataclasses.replace(face.look, pose=pose, gaze=(-face.look.gaze[0], face.look.gaze[1]))
        points = landmarks(face, count)
        points[:, 0] = SIZE - 1 - points[:, 0]
        mirrored = landmarks(dataclasses.replace(face, look=look), count)
        np.testing.assert_allclose(points[landmark_set(count).flip_order()], mirrored, atol=0.02)


@pytest.mark.parametrize("count", [19, 29, 68, 98])
def test_parts_lie_on_the_pixels_of_their_side(faces, count):
    """The middle of each eye on the eye's class: 4 on the image's left, 5 on its right."""
    order, seen = landmark_set(count), 0
    for face in faces:
        if face.look.glasses is not None:
            continue
        seen += 1
        points, mask = landmarks(face, count), face.mask_lapa
        for side, label in (("left", 4), ("right", 5)):
            x, y = points[list(order.groups[f"{side}_eye"])].mean(axis=0).round().astype(int)
            assert (mask[y - 2 : y + 3, x - 2 : x + 3] == label).any()
            brow = points[list(order.groups[f"{side}_brow"])].mean(axis=0)
            assert np.linalg.norm(brow - [x, y]) < 0.25 * SIZE
    assert seen > 10


@pytest.mark.parametrize("count", [19, 29, 68, 98])
def test_five_points_are_eyes_nose_and_mouth_corners_from_left_to_right(faces, count):
    for face in faces:
        points = landmark_set(count).five_points(landmarks(face, count))
        assert points.dtype == np.float32
        # orders without a point at the eye's centre take the mean of its contour, those with pupils follow the gaze
        np.testing.assert_allclose(points, face.five_points, atol=0.03 * SIZE)
        np.testing.assert_allclose(points[2:], face.five_points[2:], atol=1e-3)


@pytest.mark.parametrize("count", [19, 29, 68, 98])
def test_eyes_that_errors_are_divided_by_belong_to_their_groups(count):
    groups = landmark_set(count).groups
    for table in (INTER_OCULAR, INTER_PUPIL):
        for side, indices in zip(("left", "right"), table[count], strict=True):
            assert set(indices) <= set(groups[f"{side}_eye"]) | set(groups.get(f"{side}_pupil", ()))


def test_spec_carries_the_labels():
    spec = landmark_set(29).spec(image_size=64)
    assert (spec.num_landmarks, spec.image_size) == (29, 64)
    assert spec.landmark_flips == landmark_set(29).flips
    assert spec.landmark_groups["left_pupil"] == (16,)


def test_an_unknown_number_of_points_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="21 points; known: 19, 29, 68, 98, 106"):
        landmark_set(21)
