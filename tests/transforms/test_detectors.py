from __future__ import annotations

import hashlib
import pickle
import sys
import types

import numpy as np
import pytest
from PIL import Image

from farl_lightning.errors import ConfigError, DatasetNotFoundError, MissingDependencyError
from farl_lightning.transforms.detectors import MTCNN, Detections, Detector, YuNet, best_overlap, detections, shrink
from farl_lightning.types import from_config
from tests.shared import SHARED, needs_shared

BLANK = np.zeros((120, 200, 3), np.uint8)


class _FakeYN:
    """Answers as cv2.FaceDetectorYN does: x y w h, ten coordinates, score."""

    def __init__(self, rows):
        self.rows, self.sizes, self.images = rows, [], []

    def setInputSize(self, size):
        self.sizes.append(size)

    def detect(self, image):
        self.images.append(image)
        return 1, self.rows


@pytest.fixture
def fake_cv2(monkeypatch, tmp_path):
    """A cv2 whose detector always sees the same two faces."""
    rows = np.array(
        [[10, 20, 30, 40, *range(10), 0.85], [50, 20, 20, 20, *range(10, 20), 0.95]],
        np.float32,
    )
    network, calls = _FakeYN(rows), []

    def create(model, config, size, score_threshold, nms_threshold):
        calls.append((model, score_threshold, nms_threshold))
        return network

    module = types.SimpleNamespace(FaceDetectorYN=types.SimpleNamespace(create=create), error=ValueError)
    monkeypatch.setitem(sys.modules, "cv2", module)
    model = tmp_path / "yunet.onnx"
    model.write_bytes(b"network")
    return types.SimpleNamespace(network=network, calls=calls, model=model, module=module)


def test_yunet_returns_corners_points_and_scores_best_first(fake_cv2):
    found = YuNet(fake_cv2.model, min_score=0.7).detect(BLANK)
    np.testing.assert_allclose(found.boxes, [[50, 20, 70, 40], [10, 20, 40, 60]])
    np.testing.assert_allclose(found.scores, [0.95, 0.85])
    np.testing.assert_allclose(found.points[1], [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]])
    assert fake_cv2.network.sizes == [(200, 120)]
    assert fake_cv2.calls == [(str(fake_cv2.model), 0.7, 0.3)]


def test_yunet_sees_bgr(fake_cv2):
    image = BLANK.copy()
    image[..., 0] = 255
    YuNet(fake_cv2.model).detect(image)
    assert fake_cv2.network.images[0][0, 0].tolist() == [0, 0, 255]


def test_large_pictures_are_shrunk_and_answers_enlarged(fake_cv2):
    detector = YuNet(fake_cv2.model, max_side=100)
    found = detector.detect(BLANK)
    assert fake_cv2.network.sizes == [(100, 60)]
    # pixel centres at integers: x -> (x + 0.5) * 2 - 0.5
    np.testing.assert_allclose(found.boxes[0], [100.5, 40.5, 140.5, 80.5])
    np.testing.assert_allclose(found.points[1, 0], [0.5, 2.5])


def test_yunet_without_a_face(fake_cv2):
    fake_cv2.network.rows = None
    found = YuNet(fake_cv2.model).detect(BLANK)
    assert (len(found), found.boxes.shape, found.points.shape) == (0, (0, 4), (0, 5, 2))


def test_a_picture_of_one_pixel_has_no_face(fake_cv2):
    assert len(YuNet(fake_cv2.model).detect(BLANK[:1, :1])) == 0
    assert fake_cv2.network.images == []


def test_yunet_checks_the_hash_when_it_is_stated(fake_cv2):
    right = hashlib.sha256(b"network").hexdigest()
    assert len(YuNet(fake_cv2.model, sha256=right.upper()).detect(BLANK)) == 2
    with pytest.raises(ConfigError, match=f"has the SHA-256 {right}, expected 00"):
        YuNet(fake_cv2.model, sha256="00").detect(BLANK)


def test_yunet_says_where_the_missing_file_is_found(fake_cv2, tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"no\.onnx' does not exist; OpenCV offers .*opencv_zoo"):
        YuNet(tmp_path / "no.onnx").detect(BLANK)


def test_the_real_opencv_refuses_a_file_that_is_no_network(tmp_path):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    assert hasattr(cv2, "FaceDetectorYN")
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"this is text")
    with pytest.raises(ConfigError, match=r"OpenCV cannot read .*bad\.onnx' \(12 bytes\) as YuNet"):
        YuNet(bad).detect(BLANK)


@pytest.mark.parametrize(
    ("detector", "module", "advice"),
    [
        (MTCNN(), "facenet_pytorch", "pip install --no-deps facenet-pytorch"),
        (YuNet("x.onnx"), "cv2", "pip install opencv-python-headless"),
    ],
)
def test_a_missing_package_says_what_to_install(monkeypatch, detector, module, advice):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=f"run '{advice}', or pass boxes or five points"):
        detector.detect(BLANK)


class _FakeMTCNN:
    def __init__(self, **options):
        self.options = options

    def detect(self, image, landmarks):
        assert landmarks
        assert isinstance(image, Image.Image)
        boxes = np.array([[1, 2, 3, 4], [5, 6, 50, 60]], dtype=object)
        return boxes, np.array([0.5, 0.99], dtype=object), np.arange(20).reshape(2, 5, 2).astype(object)


def test_mtcnn_keeps_the_certain_faces(monkeypatch):
    monkeypatch.setitem(sys.modules, "facenet_pytorch", types.SimpleNamespace(MTCNN=_FakeMTCNN))
    detector = MTCNN(min_score=0.9, min_face_size=30)
    found = detector.detect(BLANK)
    np.testing.assert_allclose(found.boxes, [[5, 6, 50, 60]])
    np.testing.assert_allclose(found.points[0, 0], [10, 11])
    assert detector._network.options == {"keep_all": True, "min_face_size": 30, "device": "cpu"}


def test_mtcnn_without_a_face(monkeypatch):
    class Blind(_FakeMTCNN):
        def detect(self, image, landmarks):
            return None, [None], None

    monkeypatch.setitem(sys.modules, "facenet_pytorch", types.SimpleNamespace(MTCNN=Blind))
    assert len(MTCNN().detect(BLANK)) == 0


@needs_shared
@pytest.mark.shared
def test_mtcnn_finds_the_face_of_every_portrait():
    pytest.importorskip("facenet_pytorch", reason="facenet-pytorch is not installed (pip install --no-deps)")
    detector = MTCNN()
    for path in sorted((SHARED / "real/congress/images").glob("*.jpg"))[::20]:
        image = np.asarray(Image.open(path).convert("RGB"))
        found = detector.detect(image)
        assert len(found) >= 1, path.name
        left, top, right, bottom = found.boxes[0]
        (left_eye, right_eye, nose, left_mouth, right_mouth) = found.points[0]
        assert left_eye[0] < right_eye[0], path.name
        assert left_mouth[0] < right_mouth[0], path.name
        assert left_eye[1] < nose[1] < left_mouth[1], path.name
        assert 0.15 < (right - left) / image.shape[1] < 0.9, path.name
        assert left < nose[0] < right, path.name
        assert top < nose[1] < bottom, path.name


def test_shrinking_keeps_the_ratio_and_never_ends_at_zero():
    small, scale = shrink(np.zeros((2, 4000, 3), np.uint8), 100)
    assert small.shape == (1, 100, 3)
    assert scale == 40
    assert shrink(BLANK, None)[0] is BLANK
    assert shrink(BLANK, 200)[0] is BLANK


def test_rows_that_are_not_finite_are_left_out():
    found = detections([[0, 0, 1, 1], [np.nan, 0, 1, 1], [2, 2, 3, 3]], [0.1, 0.9, 0.5])
    np.testing.assert_allclose(found.scores, [0.5, 0.1])
    assert found.points is None


def test_largest_keeps_the_largest():
    found = Detections(np.float32([[0, 0, 2, 2], [0, 0, 9, 9], [0, 0, 4, 4]]), np.float32([0.9, 0.5, 0.7]))
    assert found.largest(2).boxes[:, 2].tolist() == [9, 4]
    assert found.largest(None) is found


def test_boxes_are_matched_by_overlap():
    found = Detections(np.float32([[0, 0, 10, 10], [20, 0, 30, 10]]), np.float32([0.9, 0.8]))
    assert best_overlap([[21, 1, 31, 11], [1, 1, 9, 9], [50, 50, 60, 60]], found) == [1, 0, None]
    assert best_overlap([[0, 0, 1, 1]], detections([], [])) == [None]


@pytest.mark.parametrize("kind", [MTCNN, lambda **options: YuNet("x.onnx", **options)])
def test_numbers_out_of_range_are_refused(kind):
    with pytest.raises(ConfigError, match="min_score is 2; scores lie between 0 and 1"):
        kind(min_score=2)
    with pytest.raises(ConfigError, match="max_side is 3"):
        kind(max_side=3)


def test_detectors_are_plain_data_and_cross_processes(fake_cv2):
    detector = YuNet(fake_cv2.model, min_score=0.75)
    detector.detect(BLANK)
    again = from_config(detector.to_config(), YuNet)
    assert (again.model, again.min_score) == (fake_cv2.model, 0.75)
    copy = pickle.loads(pickle.dumps(detector))  # noqa: S301
    assert copy._network is None
    assert isinstance(copy, Detector)
