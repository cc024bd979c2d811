"""Masks and landmarks against the drawing, and against each other."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageDraw

from farl_lightning.datasets import SyntheticFace, SyntheticFaces
from farl_lightning.datasets.synthetic import CELEBAMASK_CLASSES, LAPA_CLASSES
from farl_lightning.datasets.synthetic.landmarks import landmark_flips, landmark_groups

SIZE = 256


@pytest.fixture(scope="module")
def faces() -> list[SyntheticFace]:
    return list(SyntheticFaces(60, SIZE, seed=5))


@pytest.fixture(scope="module")
def bare(faces) -> list[SyntheticFace]:
    """Faces whose features nothing covers."""
    return [face for face in faces if face.look.glasses is None and face.look.hat is None and not face.look.bangs]


def _inside(points: np.ndarray) -> np.ndarray:
    canvas = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in points.round().tolist()], fill=1)
    return np.asarray(canvas, bool)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def _near(mask: np.ndarray, point: np.ndarray, reach: int = 2) -> bool:
    x, y = (round(value) for value in point.tolist())
    return bool(mask[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1].any())


def test_enough_bare_faces(bare):
    assert len(bare) > 10


@pytest.mark.parametrize(("count", "left", "right"), [(68, (36, 42), (42, 48)), (98, (60, 68), (68, 76))])
def test_eye_contours_enclose_the_eye_classes(bare, count, left, right):
    scores = []
    for face in bare:
        points, mask = face.landmarks(count), face.mask_lapa
        scores.append(_iou(_inside(points[slice(*left)]), mask == 4))
        scores.append(_iou(_inside(points[slice(*right)]), mask == 5))
    assert np.median(scores) > 0.75  # the lash line covers some of the eye
    assert min(scores) > 0.5


def test_left_and_right_follow_the_conventions(bare):
    """LaPa's ``le`` and CelebAMask's ``le`` as FaRL names it: the eye on the image's left."""
    for face in bare:
        lapa, celeb = face.mask_lapa, face.mask_celebamask
        columns = np.arange(SIZE)
        for mask, pairs in ((lapa, ((2, 3), (4, 5))), (celeb, ((7, 6), (9, 8)))):
            for left, right in pairs:
                assert (columns * (mask == left)).sum() / (mask == left).sum() < (columns * (mask == right)).sum() / (
                    mask == right
                ).sum()
        assert LAPA_CLASSES[4] == CELEBAMASK_CLASSES[9] == "le"
        np.testing.assert_array_equal(lapa == 4, celeb == 9)
        np.testing.assert_array_equal(lapa == 6, celeb == 10)


def test_ears_follow_the_convention():
    face = SyntheticFaces(1, SIZE)[0]
    look = dataclasses.replace(face.look, hat=None, pose=dataclasses.replace(face.look.pose, yaw=0.0))
    mask = dataclasses.replace(
        face, look=look, person=dataclasses.replace(face.person, hair_length="bald")
    ).mask_celebamask
    right, left = (np.nonzero(mask == ear)[1] for ear in (4, 5))
    assert left.max() < right.min()
    assert CELEBAMASK_CLASSES[4] == "rr"


def test_pupils_and_centres_lie_in_the_eyes(bare):
    for face in bare:
        mask = face.mask_lapa
        for point, label in zip(face.landmarks(98)[96:], (4, 5), strict=True):
            assert _near(mask == label, point)
        for point, label in zip(face.landmarks(19)[[7, 10]], (4, 5), strict=True):
            assert _near(mask == label, point)


def test_mouth_corners_lie_at_the_ends_of_the_mouth(bare):
    for face in bare:
        mouth = np.isin(face.mask_lapa, (7, 8, 9))
        points = face.landmarks(68)
        width = float(np.linalg.norm(points[54] - points[48]))
        rows, columns = np.nonzero(mouth)
        along = (np.stack((columns, rows), 1) - points[48]) @ (points[54] - points[48]) / width
        assert along.min() == pytest.approx(0, abs=0.08 * width + 2)
        assert along.max() == pytest.approx(width, abs=0.08 * width + 2)
        np.testing.assert_array_equal(face.landmarks(19)[[15, 17]], points[[48, 54]])
        np.testing.assert_array_equal(face.landmarks(98)[76:96], points[48:68])


def test_mouth_contour_encloses_the_mouth(bare):
    scores = [_iou(_inside(face.landmarks(68)[48:60]), np.isin(face.mask_lapa, (7, 8, 9))) for face in bare]
    assert np.median(scores) > 0.85
    assert min(scores) > 0.7


def test_brows_and_nose_lie_on_their_classes(bare):
    for face in bare:
        mask, points, wflw = face.mask_lapa, face.landmarks(68), face.landmarks(98)
        hair = mask == 10
        for group, label in ((points[17:22], 2), (points[22:27], 3), (wflw[33:42], 2), (wflw[42:51], 3)):
            assert all(_near((mask == label) | hair, point) for point in group)
        assert all(_near(mask == 6, point) for point in points[28:36])


def test_jaw_lies_on_the_rim_of_the_face(bare):
    for face in bare:
        if face.person.hair_length in ("bald", "short") and face.look.beard != "full":
            skin, points = face.mask_lapa > 0, face.landmarks(68)[3:14]
            centre = face.landmarks(68)[30]
            inner, outer = (points + (centre - points) * share for share in (0.08, -0.08))
            assert all(_near(skin, point, 0) for point in inner)
            assert not any(_near(np.isin(face.mask_celebamask, (2, 10)), point, 0) for point in outer)
            np.testing.assert_array_equal(face.landmarks(19)[18], face.landmarks(68)[8])
            np.testing.assert_array_equal(face.landmarks(98)[:33:2], face.landmarks(68)[:17])


def test_classes_worn_are_in_the_mask_exactly_when_worn(faces):
    for face in faces:
        found = set(np.unique(face.mask_celebamask).tolist())
        assert (15 in found) == (face.look.glasses is not None)
        assert (16 in found) == (face.look.hat is not None)
        assert (17 in found) == (face.look.earrings is not None)
        assert {1, 2, 10, 12, 13} <= found
        assert set(np.unique(face.mask_lapa).tolist()) <= set(range(11))
        if face.person.hair_length == "bald":
            assert 14 not in found


def test_the_picture_is_drawn_where_the_mask_says(bare):
    """The iris is coloured, the inside of an open mouth dark or white: not skin."""
    for face in bare:
        flat = face.image.astype(float)
        hair, skin = face.mask_lapa == 10, face.mask_lapa == 1
        if (
            hair.sum() > 500
            and not face.look.beard
            and face.person.hair == "black"
            and face.person.skin in ("pale", "light")
        ):
            assert flat[hair].mean() < flat[skin].mean() - 40


def _mirrored(face: SyntheticFace) -> SyntheticFace:
    """Build the parameters of the mirror image."""
    look, pose = face.look, face.look.pose
    pose = dataclasses.replace(pose, x=1 - pose.x, yaw=-pose.yaw, roll=-pose.roll)
    light = dataclasses.replace(look.light, slope_x=-look.light.slope_x)
    gaze = (-look.gaze[0], look.gaze[1])
    mirrored = dataclasses.replace(look, pose=pose, light=light, gaze=gaze, parting=-look.parting)
    return dataclasses.replace(face, look=mirrored)


def _swapped(mask: np.ndarray, pairs: tuple[tuple[int, int], ...]) -> np.ndarray:
    table = np.arange(256, dtype=np.uint8)
    for a, b in pairs:
        table[a], table[b] = b, a
    return table[mask]


def test_a_flip_with_the_declared_pairs_is_the_mirror_image(faces):
    for face in faces[:25]:
        plain = dataclasses.replace(face.look.backdrop, kind="plain")
        face = dataclasses.replace(face, look=dataclasses.replace(face.look, backdrop=plain))
        mirror = _mirrored(face)
        # a glint sits on the same side of both eyes, all else is mirrored
        assert (np.abs(face.image[:, ::-1].astype(int) - mirror.image).max(2) > 12).mean() < 0.01
        for classes, name in ((11, "mask_lapa"), (19, "mask_celebamask")):
            flipped = _swapped(getattr(face, name)[:, ::-1], SyntheticFaces.spec(classes=classes).class_flips)
            assert (flipped != getattr(mirror, name)).mean() < 0.004
        for count in (68, 98, 19):
            points = face.landmarks(count)
            points[:, 0] = SIZE - 1 - points[:, 0]
            order = np.arange(count)
            for a, b in landmark_flips(count):
                order[a], order[b] = b, a
            np.testing.assert_allclose(points[order], mirror.landmarks(count), atol=0.02)


@pytest.mark.parametrize("count", [68, 98, 19])
def test_flip_pairs_name_every_point_at_most_once(count):
    named = [index for pair in landmark_flips(count) for index in pair]
    assert len(named) == len(set(named))
    middle = sorted(set(range(count)) - set(named))
    assert (
        middle
        == {
            68: [8, 27, 28, 29, 30, 33, 51, 57, 62, 66],
            98: [16, 51, 52, 53, 54, 57, 79, 85, 90, 94],
            19: [13, 16, 18],
        }[count]
    )


@pytest.mark.parametrize("count", [68, 98])
def test_groups_name_the_viewers_sides(bare, count):
    groups = landmark_groups(count)
    for face in bare:
        points = face.landmarks(count)
        for part in ("eye", "brow"):
            left, right = (points[list(groups[f"{side}_{part}"])][:, 0].mean() for side in ("left", "right"))
            assert left < right


def test_pose_has_the_documented_signs():
    face = SyntheticFaces(1, SIZE)[0]

    def posed(**angles: float) -> np.ndarray:
        pose = dataclasses.replace(face.look.pose, **({"yaw": 0.0, "pitch": 0.0, "roll": 0.0} | angles))
        return dataclasses.replace(face, look=dataclasses.replace(face.look, pose=pose)).landmarks(68)

    level = posed()
    eyes = level[42:48].mean(0) - level[36:42].mean(0)
    assert abs(eyes[1]) < 0.01
    turned, up, tilted = posed(yaw=20.0), posed(pitch=15.0), posed(roll=12.0)
    assert (turned[30] - turned[[36, 45]].mean(0))[0] > 5  # the nose moves to the image's right
    assert (up[30] - up[[36, 45]].mean(0))[1] < (level[30] - level[[36, 45]].mean(0))[1] - 3  # and up
    across = tilted[42:48].mean(0) - tilted[36:42].mean(0)
    assert np.degrees(np.arctan2(across[1], across[0])) == pytest.approx(12, abs=0.01)  # y points down: clockwise
