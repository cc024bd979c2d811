"""The base of face datasets: checked records, folders that are not what they should be, subsets, draws."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from farl_lightning.datasets import bad_sample as reasons
from farl_lightning.datasets.bad_sample import BadSample
from farl_lightning.datasets.faces import DatasetSource, FaceDataset, FaceSubset, check_record, find_root
from farl_lightning.datasets.splits import hold_out, take_fraction
from farl_lightning.errors import ConfigError, DatasetNotFoundError
from farl_lightning.types import FaceRecord, FaceSpec

SPEC = FaceSpec(classes=("background", "skin", "hair"), num_landmarks=2)
SOURCE = DatasetSource(
    "Faces", "https://example.org", ("a.zip", "b.zip"), "research only", ("images/*.jpg", "list.txt")
)


class Numbers(FaceDataset):
    """Pictures of one grey level each: the index."""

    source = SOURCE
    spec = SPEC

    def __init__(self, count: int) -> None:
        self.keys = [f"n{index}" for index in range(count)]

    def read(self, index: int) -> FaceRecord:
        return FaceRecord(self.keys[index], np.full((8, 8, 3), index, np.uint8))


def record(**changes) -> FaceRecord:
    whole = FaceRecord(
        "a", np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.uint8), np.zeros((2, 2), np.float32), points=None
    )
    return dataclasses.replace(whole, **changes)


def reason_of(made: FaceRecord) -> tuple[str, str]:
    with pytest.raises(BadSample) as caught:
        check_record(made, SPEC)
    return caught.value.reason, caught.value.detail


def test_a_sound_record_passes():
    mask = np.full((4, 6), 2, np.uint8)
    mask[0] = 255
    sound = record(mask=mask)
    assert check_record(sound, SPEC) is sound
    outside = record(landmarks=np.array([[-50, 3], [900, 2]], np.float32))
    assert check_record(outside, SPEC) is outside


def test_wrong_labels_are_told_apart():
    mask = np.zeros((4, 6), np.uint8)
    mask[1, 1], mask[2, 2] = 3, 254
    assert reason_of(record(mask=mask)) == (reasons.UNKNOWN_LABEL, "ids [3, 254]; allowed: 0 to 2, and 255")
    turned = record(mask=np.zeros((6, 4), np.uint8))
    assert reason_of(turned) == (reasons.MASK_SIZE, "the label map is 4 x 6, the picture 6 x 4 pixels")
    assert reason_of(record(landmarks=np.zeros((3, 2), np.float32)))[0] == reasons.BROKEN_ANNOTATION
    for bad in (np.nan, np.inf):
        assert reason_of(record(landmarks=np.array([[0, bad], [1, 1]], np.float32)))[0] == reasons.BAD_LANDMARKS
        assert reason_of(record(points=np.full((5, 2), bad, np.float32)))[0] == reasons.BAD_LANDMARKS


def test_rows_are_counted_from_either_end():
    faces = Numbers(5)
    assert faces[-1].key == "n4"
    for index in (5, -6):
        with pytest.raises(IndexError, match=f"index {index} of 5"):
            faces[index]


def test_a_missing_folder_says_what_to_get(tmp_path):
    with pytest.raises(DatasetNotFoundError) as caught:
        find_root(tmp_path / "none", ["images", "list.txt"], SOURCE)
    text = str(caught.value)
    assert text.startswith(f"Faces: '{tmp_path}/none' does not exist.")
    assert "Get a.zip and b.zip from https://example.org (research only)" in text
    assert "  images/*.jpg\n  list.txt" in text


def test_the_right_folder_nearby_is_named(tmp_path):
    right = tmp_path / "Faces" / "unpacked"
    (right / "images").mkdir(parents=True)
    (right / "list.txt").touch()
    required = ["images", "list.txt"]
    assert find_root(right, required, SOURCE) == right
    for wrong in (tmp_path / "Faces", right / "images"):
        with pytest.raises(DatasetNotFoundError, match=f"Did you mean root='{right}'"):
            find_root(wrong, required, SOURCE)
    with pytest.raises(DatasetNotFoundError, match="Did you mean 'Faces'"):
        find_root(tmp_path / "Facse", required, SOURCE)
    (right / "list.txt").unlink()
    with pytest.raises(DatasetNotFoundError, match=r"has no 'list.txt'. It holds: images"):
        find_root(right, required, SOURCE)


def test_subsets_keep_names_and_rows():
    part = FaceSubset(Numbers(10), [7, 2])
    assert part.keys == ["n7", "n2"]
    assert [int(face.image[0, 0, 0]) for face in (part[0], part[1])] == [7, 2]
    assert part.spec is SPEC


@pytest.mark.parametrize(("fraction", "count"), [(0.1, 10), (0.29, 29), (0.019, 1), (0.999, 99), (1, 100)])
def test_a_fraction_keeps_the_exact_count(fraction, count):
    part = take_fraction(Numbers(100), fraction, seed=3)
    assert len(part) == len(set(part.keys)) == count
    assert part.keys == take_fraction(Numbers(100), fraction, seed=3).keys


def test_fractions_nest_and_follow_the_seed():
    faces = Numbers(200)
    small, large = (set(take_fraction(faces, share, seed=0).keys) for share in (0.05, 0.3))
    assert small < large
    assert set(take_fraction(faces, 0.3, seed=1).keys) != large


@pytest.mark.parametrize(("fraction", "match"), [(0, "share above 0"), (1.2, "got 1.2"), (0.001, "keeps none")])
def test_impossible_fractions_are_refused(fraction, match):
    with pytest.raises(ConfigError, match=match):
        take_fraction(Numbers(100), fraction)


def test_held_out_parts_share_nothing_and_stay():
    faces = Numbers(60)
    rest, test, val = hold_out(faces, 0.2, 0.1, seed=4)
    assert [len(part) for part in (rest, test, val)] == [42, 12, 6]
    assert sorted(rest.keys + test.keys + val.keys) == sorted(faces.keys)
    assert hold_out(faces, 0.2, seed=4)[1].keys == test.keys  # whatever is held out besides
    assert hold_out(faces, 0.2, seed=5)[1].keys != test.keys
    assert hold_out(faces, 0.0)[0] is faces
    with pytest.raises(ConfigError, match="leave nothing"):
        hold_out(faces, 0.5, 0.5)


def test_versions_of_a_picture_stay_together():
    class Versions(Numbers):
        @property
        def photographs(self) -> list[str]:
            return [str(index // 5) for index in range(len(self))]

    rest, test, val = hold_out(Versions(100), 0.1, 0.22, seed=0)
    assert [len(part) for part in (rest, test, val)] == [65, 10, 25]  # whole pictures of five versions
    pictures = [{int(key[1:]) // 5 for key in part.keys} for part in (rest, test, val)]
    assert sum(map(len, pictures)) == len(set.union(*pictures)) == 20
