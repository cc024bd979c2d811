from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from farl_lightning.datasets.photos import PhotoFolder, find_photos
from farl_lightning.errors import BadSample, ConfigError, DatasetNotFoundError
from farl_lightning.transforms.detectors import detections
from farl_lightning.transforms.places import FacePlace

POINTS = np.float32([[10, 10], [20, 10], [15, 15], [11, 20], [19, 20]])


class FakeDetector:
    """Finds as many faces as the red of the first pixel says, each larger than the one before."""

    def __init__(self, with_points=True):
        self.with_points, self.calls = with_points, 0

    def detect(self, image):
        self.calls += 1
        count = int(image[0, 0, 0])
        boxes = [[0, 0, 10 + side, 10 + side] for side in range(count)]
        points = [POINTS + side for side in range(count)] if self.with_points else None
        return detections(boxes, np.linspace(1, 0.5, count), points)


@pytest.fixture
def photos(tmp_path):
    """Three pictures, two of them in a subfolder, and what is none."""
    (tmp_path / "sub").mkdir()
    for name, faces in (("a.png", 1), ("sub/b.png", 2), ("sub/c.PNG", 0)):
        Image.fromarray(np.full((40, 60, 3), faces, np.uint8)).save(tmp_path / name, format="PNG")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_a_folder_is_searched_with_its_subfolders(photos):
    assert find_photos(photos) == (photos, ["a.png", "sub/b.png", "sub/c.PNG"])


def test_patterns_and_single_files(photos, monkeypatch):
    assert find_photos(photos / "sub/*.png") == (photos / "sub", ["b.png"])
    assert find_photos(photos / "**/*.txt") == (photos, ["notes.txt"])
    assert find_photos(photos / "a.png") == (photos, ["a.png"])
    monkeypatch.chdir(photos)
    assert find_photos("*.png")[1] == ["a.png"]


@pytest.mark.parametrize("name", ["none", "*.webp"])
def test_no_photograph_is_an_error(photos, name):
    with pytest.raises(DatasetNotFoundError, match="neither a folder, nor a file, nor a pattern that matches any"):
        find_photos(photos / name)


def test_a_folder_without_photographs_says_what_is_looked_for(tmp_path):
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(DatasetNotFoundError, match=r"files ending in \.jpg, "):
        find_photos(tmp_path)


def test_somebody_has_to_know_where_the_faces_are(photos):
    with pytest.raises(ConfigError, match="give a file of boxes or points, a detector such as MTCNN, or cropped=True"):
        PhotoFolder(photos)


def test_faces_are_detected_and_share_their_picture(photos):
    folder = PhotoFolder(photos, detector=FakeDetector())
    photo = folder[1]
    assert (photo.file, photo.path) == ("sub/b.png", photos / "sub/b.png")
    assert [face.key for face in photo.faces] == ["sub/b.png#0", "sub/b.png#1"]
    assert photo.scores == (1.0, 0.5)
    assert photo.faces[0].box == (0, 0, 10, 10)
    np.testing.assert_array_equal(photo.faces[1].points, POINTS + 1)
    assert photo.faces[0].image is photo.faces[1].image
    assert photo.faces[0].image.shape == (40, 60, 3)


def test_only_the_largest_faces_are_kept(photos):
    photo = PhotoFolder(photos, detector=FakeDetector(), max_faces=1)[1]
    assert [face.error_box for face in photo.faces] == [(0, 0, 11, 11)]


def test_found_boxes_become_squares_and_given_ones_stay(photos):
    class Tall:
        def detect(self, image):
            return detections([[0, 0, 10, 20]], [1.0])

    (face,) = PhotoFolder(photos, detector=Tall())[0].faces
    assert (face.box, face.error_box) == ((-5, 0, 15, 20), (0, 0, 10, 20))
    (face,) = PhotoFolder(photos, {"a.png": [FacePlace(box=(0, 0, 10, 20))]})[0].faces
    assert (face.box, face.error_box) == ((0, 0, 10, 20), (0, 0, 10, 20))


def test_a_picture_without_a_face_is_a_bad_sample(photos):
    with pytest.raises(BadSample, match="no_face: 60 x 40 pixels"):
        PhotoFolder(photos, detector=FakeDetector())[2]


def test_given_faces_come_before_the_detector(photos):
    given = {"a.png": [FacePlace(points=POINTS), FacePlace(points=POINTS + 5)]}
    detector = FakeDetector()
    folder = PhotoFolder(photos, given, detector)
    assert len(folder[0].faces) == 2
    assert detector.calls == 0
    assert np.isnan(folder[0].scores).all()
    assert len(folder[1].faces) == 2
    assert detector.calls == 1


def test_the_detector_adds_points_to_given_boxes(photos):
    given = {"sub/b.png": [FacePlace(box=(0, 0, 11, 11)), FacePlace(box=(30, 30, 35, 35))]}
    first, second = PhotoFolder(photos, given, FakeDetector())[1].faces
    np.testing.assert_array_equal(first.points, POINTS + 1)
    assert first.box == (0, 0, 11, 11)
    assert second.points is None
    assert PhotoFolder(photos, given, FakeDetector(with_points=False))[1].faces[0].points is None


def test_photographs_that_nobody_knows_and_files_that_are_not_there_are_bad_samples(photos):
    folder = PhotoFolder(photos, {"gone.png": [FacePlace(box=(0, 0, 1, 1))]})
    assert folder.files == ["a.png", "gone.png", "sub/b.png", "sub/c.PNG"]
    with pytest.raises(BadSample, match=r"missing_image: gone\.png"):
        folder[1]
    with pytest.raises(BadSample, match="no_detection: the file of boxes and points does not name it"):
        folder[0]


def test_cropped_faces_need_nobody(photos):
    photo = PhotoFolder(photos, cropped=True)[0]
    (face,) = photo.faces
    assert (face.key, face.box, face.points) == ("a.png", None, None)


def test_exif_orientation_is_respected(tmp_path):
    image = Image.fromarray(np.zeros((20, 30, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert PhotoFolder(tmp_path, cropped=True)[0].faces[0].image.shape == (30, 20, 3)


@pytest.mark.parametrize("content", [b"", b"text", b"\xff\xd8\xff\xe0 cut short"])
def test_unreadable_files_are_bad_samples(tmp_path, content):
    (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(BadSample, match=r"not_an_image|broken_image"):
        PhotoFolder(tmp_path, cropped=True)[0]


def test_gigantic_photographs_are_refused_before_they_are_decoded(photos):
    with pytest.raises(BadSample, match="huge_image: 60 x 40 pixels, the limit is 1000"):
        PhotoFolder(photos, cropped=True, max_pixels=1000)[0]
