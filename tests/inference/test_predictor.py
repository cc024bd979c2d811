from __future__ import annotations

import dataclasses
import json
import logging
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from farl_lightning.errors import CheckpointError, ConfigError, DataError
from farl_lightning.functional.geometry import FARL_TEMPLATE, square_box
from farl_lightning.inference import FacePredictor
from farl_lightning.models.attributes import FaceAttributes
from farl_lightning.models.config import GlobalConfig
from farl_lightning.models.dense import FaceAligner, FaceParser
from farl_lightning.transforms.detectors import detections
from farl_lightning.types import FaceSpec
from tests.inference.networks import ALIGNMENT, PARSING, TINY, ColourParser, SpotAligner
from tests.shared import SHARED, needs_shared

POINTS = np.array([[100, 80], [160, 86], [128, 112], [106, 150], [150, 154]], np.float32)


class FakeDetector:
    """Finds the faces it was told."""

    def __init__(self, *faces, with_points=True):
        self.faces, self.with_points, self.calls = faces, with_points, 0

    def detect(self, image):
        self.calls += 1
        boxes = [[*face.min(0), *face.max(0)] for face in self.faces]
        points = np.stack(self.faces) if self.faces and self.with_points else None
        return detections(boxes, np.linspace(1, 0.9, len(boxes)), points if self.with_points else None)


def stripes(height=240, width=320, step=20):
    """Return a picture of red, green and blue squares, and the class of each pixel."""
    rows, columns = np.indices((height, width)) // step
    classes = (rows + 2 * columns) % 3
    return (np.eye(3)[classes] * 255).astype(np.uint8), classes


def parser(spec=PARSING, **options):
    return FacePredictor(ColourParser(spec), spec, device="cpu", **options)


@pytest.mark.parametrize("warp_factor", [0.0, 0.8])
@pytest.mark.parametrize("zoom", [1.0, 0.7])
def test_labels_land_on_the_pixels_they_belong_to(warp_factor, zoom):
    spec = dataclasses.replace(PARSING, warp_factor=warp_factor, zoom=zoom, image_size=192)
    image, classes = stripes()
    (face,) = parser(spec)(image, points=POINTS)
    assert face.labels.shape == (240, 320)
    assert face.labels.dtype == np.uint8
    near = np.s_[70:160, 90:170]  # the middle of the face, which no warp bends
    assert (face.labels[near] == classes[near]).mean() > 0.93
    assert (face.labels != 0).any()


def test_outside_of_the_crop_is_background():
    image = np.zeros((240, 320, 3), np.uint8)
    image[..., 1] = 255  # everything is class 1
    (face,) = parser()(image, points=POINTS / 2)
    x, y = np.meshgrid(np.arange(320), np.arange(240))
    crop = np.stack([x, y, np.ones_like(x)], -1) @ face.matrix.T
    outside = (np.abs(crop[..., :2] - 47.5) > 48.5).any(-1)
    inside = (np.abs(crop[..., :2] - 47.5) < 47.5).all(-1)
    assert outside.sum() > 1000
    assert (face.labels[outside] == 0).all()
    assert (face.labels[inside] == 1).all()


@pytest.mark.parametrize("warp_factor", [0.0, 0.8])
def test_landmarks_come_back_to_the_pixel(warp_factor):
    spec = dataclasses.replace(ALIGNMENT, warp_factor=warp_factor, zoom=0.8)
    y, x = np.mgrid[:200, :260]
    spot = np.exp(-((x - 131.3) ** 2 + (y - 90.8) ** 2) / (2 * 6**2))
    image = np.repeat((spot * 255).round().astype(np.uint8)[..., None], 3, axis=2)
    predictor = FacePredictor(SpotAligner(spec), spec, device="cpu", antialias=False)
    (face,) = predictor(image, boxes=[70, 30, 190, 150])
    # the warp bends the spot, so that its centre of mass moves a little
    np.testing.assert_allclose(face.landmarks, [[131.3, 90.8]], atol=0.05 if warp_factor == 0 else 2.0)
    assert face.landmarks.dtype == np.float32
    assert face.confidence.shape == (1,)
    assert 0.9 < face.confidence[0] <= 1


def test_a_given_box_is_taken_as_it_is_and_a_found_one_squared():
    image = np.zeros((200, 260, 3), np.uint8)
    detector = FakeDetector(POINTS, with_points=False)
    predictor = FacePredictor(SpotAligner(ALIGNMENT), ALIGNMENT, detector=detector, device="cpu")
    box = [100.0, 80, 160, 154]
    (given,) = predictor(image, boxes=box)
    np.testing.assert_allclose(given.matrix[[0, 1], [0, 1]], [96 / 60, 96 / 74])
    (found,) = predictor(image)
    np.testing.assert_allclose(found.matrix[[0, 1], [0, 1]], [96 / 74, 96 / 74])
    left, top, *_ = square_box(torch.tensor(box)).tolist()
    np.testing.assert_allclose(found.matrix[:2, 2], [-left * 96 / 74 - 0.5, -top * 96 / 74 - 0.5], rtol=1e-6)
    assert found.box == tuple(box)
    assert (found.score, given.score) == (1.0, None)


def test_all_faces_of_all_pictures_share_the_batches():
    image, _ = stripes()
    predictor = parser(detector=FakeDetector(POINTS, POINTS + 20, POINTS - 10), batch_size=4)
    faces = predictor([image, image, image])
    assert [len(found) for found in faces] == [3, 3, 3]
    assert predictor.network.batches == [4, 4, 1]
    alone = parser(detector=FakeDetector(POINTS, POINTS + 20, POINTS - 10), batch_size=1)(image)
    for one, other in zip(alone, faces[2], strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        assert one.score == other.score


def test_every_kind_of_picture_gives_the_same(tmp_path):
    image, _ = stripes()
    path = tmp_path / "photo.png"
    Image.fromarray(image).save(path)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    kinds = [path, str(path), path.read_bytes(), Image.fromarray(image), image, tensor, tensor / 255, image / 255.0]
    predictor = parser()
    reference = predictor(image, points=POINTS)[0].labels
    for kind in kinds:
        (face,) = predictor(kind, points=POINTS)
        np.testing.assert_array_equal(face.labels, reference)
    batch = predictor(tensor[None].expand(2, -1, -1, -1), points=[POINTS, POINTS])
    assert [len(found) for found in batch] == [1, 1]
    np.testing.assert_array_equal(batch[1][0].labels, reference)


def test_grey_pictures_and_transparency():
    predictor = parser()
    grey = np.full((240, 320), 255, np.uint8)
    assert predictor(grey, points=POINTS)[0].labels.shape == (240, 320)
    clear = np.zeros((240, 320, 4), np.uint8)  # fully transparent: white shows
    (face,) = predictor(clear, points=POINTS)
    np.testing.assert_array_equal(face.picture.pixels(), 255)


def test_exif_orientation_is_respected(tmp_path):
    image, _ = stripes(height=320, width=240)
    stored = Image.fromarray(image).transpose(Image.Transpose.ROTATE_90)
    exif = stored.getexif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    stored.save(path, exif=exif)
    for source in (path, Image.open(path)):
        (face,) = parser()(source, points=POINTS)
        assert face.labels.shape == (320, 240)
        np.testing.assert_array_equal(face.labels, parser()(image, points=POINTS)[0].labels)


def test_cropped_faces_skip_the_detector():
    detector = FakeDetector(POINTS)
    image, classes = stripes(96, 96)
    (face,) = parser(detector=detector)(image, detect=False)
    assert detector.calls == 0
    np.testing.assert_allclose(face.matrix, np.eye(3), atol=1e-12)
    np.testing.assert_array_equal(face.labels, classes)


def test_a_network_of_whole_pictures_needs_no_detector():
    spec = dataclasses.replace(PARSING, crop="none")
    image, classes = stripes(96, 96)
    np.testing.assert_array_equal(parser(spec)(image)[0].labels, classes)


def test_a_picture_without_a_face_gives_an_empty_list():
    image, _ = stripes()
    assert parser(detector=FakeDetector())(image) == []
    assert parser(detector=FakeDetector())([image, image]) == [[], []]
    assert parser()([]) == []
    assert parser()(image, points=np.zeros((0, 5, 2))) == []


def test_pictures_of_one_pixel_and_wide_ones():
    predictor = parser(detector=FakeDetector())
    assert predictor(np.zeros((1, 1, 3), np.uint8)) == []
    (face,) = predictor(np.zeros((1, 1, 3), np.uint8), detect=False)
    assert face.labels.shape == (1, 1)
    (face,) = predictor(np.zeros((3, 12_000, 3), np.uint8), detect=False)
    assert face.labels.shape == (3, 12_000)


def test_boxes_get_their_points_from_the_detector():
    image, _ = stripes()
    box = [*POINTS.min(0), *POINTS.max(0)]
    predictor = parser(detector=FakeDetector(POINTS + 60, POINTS))
    (face,) = predictor(image, boxes=box)
    np.testing.assert_array_equal(face.place.points, POINTS)
    np.testing.assert_array_equal(face.labels, parser()(image, points=POINTS)[0].labels)


def test_a_box_in_which_nothing_is_found_asks_for_points():
    image, _ = stripes()
    with pytest.raises(DataError, match=r"picture0: crop 'align' needs 5 points .* in the box .*; pass points"):
        parser(detector=FakeDetector())(image, boxes=[1, 1, 50, 50])


def test_points_alone_are_not_enough_for_a_crop_by_box():
    predictor = FacePredictor(SpotAligner(ALIGNMENT), ALIGNMENT, device="cpu")
    with pytest.raises(DataError, match=r"crop 'box' needs a face box, .*; pass boxes"):
        predictor(np.zeros((200, 200, 3), np.uint8), points=POINTS)


def test_a_detector_of_boxes_alone_cannot_serve_a_crop_by_points():
    image, _ = stripes()
    with pytest.raises(ConfigError, match="FakeDetector finds boxes alone; take another detector, or pass points"):
        parser(detector=FakeDetector(POINTS, with_points=False))(image)


def test_without_a_detector_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    image, _ = stripes()
    with pytest.raises(ConfigError, match=r"pip install --no-deps facenet-pytorch.*or pass boxes or five points"):
        parser()(image)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"points": POINTS[:4]}, r"points of picture 0 have shape \(1, 4, 2\), expected \(N, 5, 2\)"),
        ({"points": POINTS[None, :, :1]}, "expected"),
        ({"boxes": [1, 2, 3]}, r"boxes of picture 0 have shape \(1, 3\), expected \(N, 4\)"),
        ({"boxes": [[1, 2], [3]]}, "boxes of picture 0 are no numbers of one shape"),
        ({"boxes": "face"}, "are no numbers"),
        ({"boxes": np.ones((2, 4)), "points": POINTS}, "picture 0 has 2 boxes and 1 sets of points"),
    ],
)
def test_wrong_shapes_are_named(given, message):
    image, _ = stripes()
    with pytest.raises(ConfigError, match=message):
        parser()(image, **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"points": np.full((5, 2), np.nan)}, "picture 0: points are five pairs .* all finite"),
        ({"points": np.full((5, 2), 3.0)}, "picture0: the points of the face lie on one spot"),
        ({"points": POINTS + 5000}, "does not meet the picture"),
        ({"boxes": [50, 50, 50, 80], "points": POINTS}, "left < right"),
    ],
)
def test_useless_faces_are_named(given, message):
    image, _ = stripes()
    with pytest.raises(DataError, match=message):
        parser()(image, **given)


def test_a_useless_face_that_was_found_is_left_out(caplog):
    image, _ = stripes()
    predictor = parser(detector=FakeDetector(POINTS, np.full((5, 2), 7.0, np.float32)))
    with caplog.at_level(logging.WARNING):
        assert len(predictor(image)) == 1
    assert "picture0: a face that was found is left out: the points of the face lie on one spot" in caplog.text


def test_lists_need_one_entry_per_picture():
    image, _ = stripes()
    with pytest.raises(ConfigError, match="points has 1 entries for 2 pictures"):
        parser()([image, image], points=[POINTS])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("gone.jpg", "picture 'gone.jpg' cannot be read: No such file"),
        (b"text", r"picture0 cannot be used: not_an_image"),
        (np.zeros((4, 4, 5), np.uint8), r"has shape \(4, 4, 5\) and dtype uint8; a picture is a path"),
        (np.zeros((4, 4, 3), np.int32), "dtype int32"),
        (np.full((4, 4, 3), 200.0), r"values outside \[0, 1\]"),
        (np.zeros((0, 4, 3), np.uint8), "has shape"),
        (torch.zeros(9, 9, 3), "has shape"),
        (7, "a int is no picture"),
        ([None], "picture 0 is a NoneType"),
    ],
)
def test_what_is_no_picture_is_named(image, message):
    with pytest.raises(DataError, match=message):
        parser()(image, detect=False)


def test_gigantic_pictures_are_refused_with_the_way_out(tmp_path):
    path = tmp_path / "large.png"
    Image.fromarray(np.zeros((100, 100, 3), np.uint8)).save(path)
    with pytest.raises(DataError, match=r"large\.png cannot be used: huge_image.*give a larger max_pixels"):
        parser(max_pixels=5000)(path, detect=False)


def test_max_faces_keeps_the_largest():
    image, _ = stripes()
    large = (POINTS - POINTS.mean(0)) * 1.3 + POINTS.mean(0)
    (face,) = parser(detector=FakeDetector(POINTS, large), max_faces=1)(image)
    np.testing.assert_allclose(face.place.points, large)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"max_faces": 0}])
def test_numbers_out_of_range(options):
    with pytest.raises(ConfigError, match="have to be at least 1"):
        parser(**options)


def _save(path, network, spec, **hparams):
    """Write a checkpoint as a task does."""
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    content = {"state_dict": state, "hyper_parameters": {"network": dataclasses.asdict(TINY), **hparams}}
    torch.save(content if spec is None else {**content, "face_spec": spec.to_dict()}, path)
    return path


def test_a_checkpoint_brings_everything(tmp_path):
    torch.manual_seed(0)
    network = FaceParser(TINY, 3).eval()
    path = _save(tmp_path / "parsing.ckpt", network, PARSING, num_classes=None)
    predictor = FacePredictor.load(path, device="cpu", detector=FakeDetector(POINTS))
    assert predictor.spec == PARSING
    image, _ = stripes()
    (face,) = predictor(image)
    expected = FacePredictor(network, PARSING, device="cpu")(image, points=POINTS)[0]
    np.testing.assert_array_equal(face.labels, expected.labels)
    assert face.classes == ("background", "green", "blue")


def test_an_aligner_is_recognised(tmp_path):
    path = _save(tmp_path / "alignment.ckpt", FaceAligner(TINY, 1), ALIGNMENT, num_landmarks=1)
    (face,) = FacePredictor.load(path, device="cpu")(np.zeros((50, 50, 3), np.uint8), boxes=[5, 5, 45, 45])
    assert face.landmarks.shape == (1, 2)
    assert face.labels is None


def test_attributes_come_by_name():
    spec = FaceSpec(image_size=32, crop="align", template=FARL_TEMPLATE, attributes=("Smiling", "Young"))
    network = FaceAttributes(GlobalConfig(TINY.image), 2)
    image, _ = stripes()
    (face,) = FacePredictor(network, spec, device="cpu")(image, points=POINTS)
    assert list(face.attributes) == ["Smiling", "Young"]
    assert all(0 < value < 1 for value in face.attributes.values())
    assert json.loads(json.dumps(face.to_dict()))["attributes"] == face.attributes


def test_half_precision_answers_alike():
    torch.manual_seed(3)
    network = FaceParser(TINY, 3).eval()
    image, _ = stripes()
    full, half = (
        FacePredictor(network, PARSING, device="cpu", dtype=dtype)(image, points=POINTS)[0]
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert (full.labels == half.labels).mean() > 0.95


def test_a_result_draws_saves_and_tells(tmp_path):
    image, _ = stripes()
    (face,) = parser()(image, points=POINTS)
    drawn = face.draw()
    assert drawn.shape == image.shape
    assert (drawn != image).any()
    with Image.open(face.save(tmp_path / "looks/face.png")) as saved:
        np.testing.assert_array_equal(np.asarray(saved), drawn)
    np.testing.assert_array_equal(face.mask("blue"), face.labels == 2)
    with pytest.raises(ConfigError, match=r"there is no class 'blu' here\. Did you mean 'blue'"):
        face.mask("blu")
    told = json.loads(json.dumps(face.to_dict()))
    assert (told["picture"], told["size"], told["box"], told["score"]) == ("picture0", [240, 320], None, None)
    np.testing.assert_allclose(told["points"], POINTS)
    assert "labels" not in repr(face)


def test_landmarks_are_drawn():
    predictor = FacePredictor(SpotAligner(ALIGNMENT), ALIGNMENT, device="cpu")
    image = np.full((100, 100, 3), 128, np.uint8)
    (face,) = predictor(image, boxes=[10, 10, 90, 90])
    x, y = face.landmarks[0].round().astype(int)
    assert face.draw()[y, x].tolist() != [128, 128, 128]
    with pytest.raises(ConfigError, match="there is no class 'hair'"):
        face.mask("hair")


def test_a_checkpoint_without_a_face_spec_asks_for_it(tmp_path):
    path = _save(tmp_path / "bare.ckpt", FaceParser(TINY, 3), None, num_classes=3)
    with pytest.raises(CheckpointError, match=r"does not say how its faces were cropped \(parsing, 3 outputs\)"):
        FacePredictor.load(path)
    assert FacePredictor.load(path, spec=PARSING, device="cpu").spec == PARSING
    wrong = dataclasses.replace(PARSING, classes=("one", "two"))
    with pytest.raises(CheckpointError, match="has 3 outputs for parsing, but its FaceSpec describes 2"):
        FacePredictor.load(path, spec=wrong)


def test_a_file_of_any_bytes_is_no_checkpoint(tmp_path):
    path = tmp_path / "bad.ckpt"
    random = np.random.default_rng(0)
    for content in (b"broken\n", b"", b"a", b"\x80\x02", *(random.bytes(size) for size in range(1, 200, 3))):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"bad\.ckpt' cannot be read"):
            FacePredictor.load(path)


def test_a_file_that_does_not_say_what_it_answers(tmp_path):
    path = _save(tmp_path / "bare.ckpt", FaceParser(TINY, 3), PARSING)
    with pytest.raises(CheckpointError, match="give kind: parsing, alignment, attributes"):
        FacePredictor.load(path)
    with pytest.raises(CheckpointError, match=r"kind .parser. is unknown\. Did you mean 'parsing'"):
        FacePredictor.load(path, kind="parser")
    assert isinstance(FacePredictor.load(path, kind="parsing", device="cpu").network, FaceParser)


@needs_shared
@pytest.mark.shared
def test_real_portraits_from_file_to_labels():
    pytest.importorskip("facenet_pytorch", reason="facenet-pytorch is not installed (pip install --no-deps)")
    paths = sorted((SHARED / "real/congress/images").glob("*.jpg"))[5::60]
    for path, faces in zip(paths, parser()(paths), strict=True):
        with Image.open(path) as image:
            assert faces, path.name
            assert faces[0].labels.shape == image.size[::-1]
        assert faces[0].score > 0.9


@needs_shared
@pytest.mark.shared
def test_a_photo_that_lies_on_its_side_is_turned():
    pytest.importorskip("facenet_pytorch", reason="facenet-pytorch is not installed (pip install --no-deps)")
    path = next((SHARED / "real/antispoof").glob("image_T1*"))
    faces = parser()(path)
    assert faces[0].labels.shape == (640, 480)
    eyes, mouth = faces[0].place.points[:2].mean(0), faces[0].place.points[3:].mean(0)
    assert mouth[1] - eyes[1] > abs(mouth[0] - eyes[0])
