from __future__ import annotations

import json

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

from farl_lightning.datamodules import PhotoFolderDataModule
from farl_lightning.datamodules.photos import PhotoDataset
from farl_lightning.datamodules.samplers import Padded
from farl_lightning.datasets.photos import PhotoFolder
from farl_lightning.errors import ConfigError, DatasetNotFoundError
from farl_lightning.functional.geometry import FARL_TEMPLATE
from farl_lightning.functional.warp import points_to_crop
from farl_lightning.transforms.dense import DenseTransform, DenseTransformConfig
from farl_lightning.transforms.detectors import Detector, detections
from farl_lightning.types import Configurable, FaceSpec

SPEC = FaceSpec(image_size=64, crop="align", template=FARL_TEMPLATE, warp_factor=0.5, zoom=0.8, classes=("a", "b"))
POINTS = np.array([[50, 40], [80, 43], [64, 56], [53, 75], [75, 77]], np.float32)


class FakeDetector(Configurable, Detector):
    """Finds as many faces as the red of the first pixel says."""

    def __init__(self, score: float = 0.9):
        self.score = score

    def detect(self, image):
        count = int(image[0, 0, 0])
        points = [POINTS + 10 * number for number in range(count)]
        boxes = [[*face.min(0), *face.max(0)] for face in points]
        return detections(boxes, [self.score] * count, points)


class Echo(L.LightningModule):
    """Returns its batches."""

    spec = SPEC

    def predict_step(self, batch, batch_idx):
        return batch


@pytest.fixture
def photos(tmp_path):
    """Pictures of 0, 1 and 3 faces, and two that cannot be read."""
    for name, faces in (("a0", 0), ("b1", 1), ("c3", 3)):
        image = np.full((120, 160, 3), 200, np.uint8)
        image[0, 0] = faces
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    (tmp_path / "d.jpg").write_bytes(b"no picture")
    Image.fromarray(image).save(tmp_path / "e.jpg")
    (tmp_path / "e.jpg").write_bytes((tmp_path / "e.jpg").read_bytes()[:300])
    return tmp_path


def predict(data, task=None):
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    return trainer.predict(task or Echo(), datamodule=data)


def test_every_face_of_every_photograph_and_every_reason(photos):
    batches = predict(PhotoFolderDataModule(str(photos), detector=FakeDetector(), batch_size=2))
    assert [batch["key"] for batch in batches] == [["b1.png#0"], ["c3.png#0", "c3.png#1", "c3.png#2"], [""]]
    drops = [(drop["key"], drop["reason"]) for batch in batches for drop in batch["dropped"]]
    assert drops == [("a0.png", "no_face"), ("d.jpg", "not_an_image"), ("e.jpg", "broken_image")]
    assert [batch["valid"].tolist() for batch in batches] == [[True], [True] * 3, [False]]


def test_a_face_brings_what_leads_back_to_its_photograph(photos):
    batch = predict(PhotoFolderDataModule(str(photos), detector=FakeDetector(0.7), batch_size=8))[0]
    assert batch["image"].shape == (4, 3, 64, 64)
    assert batch["size"].tolist() == [[120, 160]] * 4
    assert batch["path"] == [str(photos / "b1.png")] + [str(photos / "c3.png")] * 3
    assert batch["score"].tolist() == pytest.approx([0.7] * 4)
    np.testing.assert_allclose(batch["box"][2], [60, 50, 90, 87])
    assert [image.shape for image in batch["source_image"]] == [(120, 160, 3)] * 4
    assert isinstance(batch["source_image"][0], np.ndarray)
    assert batch["source_image"][1] is batch["source_image"][2]


def test_faces_are_cropped_as_the_network_was_trained(photos):
    batch = predict(PhotoFolderDataModule(str(photos), detector=FakeDetector(), batch_size=8))[0]
    for row, offset in enumerate((0, 0, 10, 20)):
        eyes = points_to_crop(torch.tensor(POINTS + offset), batch["matrix"][row], 64)[:2].mean(0)
        target = torch.tensor(FARL_TEMPLATE)[:2].mean(0) * 0.8 * 31.5 + 31.5
        torch.testing.assert_close(eyes, target, atol=0.8, rtol=0)
    black = -torch.tensor(SPEC.mean) / torch.tensor(SPEC.std)
    bright = (torch.tensor(200 / 255) - torch.tensor(SPEC.mean)) / torch.tensor(SPEC.std)
    torch.testing.assert_close(batch["image"][0, :, 32, 32], bright, atol=1e-5, rtol=0)
    torch.testing.assert_close(batch["image"][0, :, 0, 0], black, atol=1e-5, rtol=0)  # far outside of the photograph


def test_faces_from_a_file_need_no_detector(photos, monkeypatch):
    monkeypatch.setattr("farl_lightning.datamodules.photos.default_detector", lambda: pytest.fail("asked for one"))
    faces = photos / "faces.json"
    faces.write_text(json.dumps({"a0.png": [{"points": POINTS.tolist()}], "gone.png": [{"box": [1, 1, 9, 9]}]}))
    batches = predict(PhotoFolderDataModule(str(photos), faces=str(faces)))
    keys = [key for batch in batches for key, valid in zip(batch["key"], batch["valid"], strict=True) if valid]
    assert keys == ["a0.png#0"]
    reasons = {drop["key"]: drop["reason"] for batch in batches for drop in batch["dropped"]}
    expected = {"b1.png": "no_detection", "c3.png": "no_detection", "gone.png": "missing_image"}
    assert reasons == {**expected, "d.jpg": "not_an_image", "e.jpg": "broken_image"}
    assert np.isnan(batches[0]["box"][0]).all()
    assert np.isnan(batches[0]["score"][0])


def test_a_face_that_cannot_be_cropped_is_told(photos):
    faces = photos / "faces.json"
    rows = [{"box": [10, 10, 50, 50]}, {"points": [[3, 3]] * 5}, {"points": POINTS.tolist()}]
    faces.write_text(json.dumps({"a0.png": rows}))
    batch = predict(PhotoFolderDataModule(str(photos / "a0.png"), faces=str(faces)))[0]
    assert batch["key"] == ["a0.png#2"]
    assert [(drop["key"], drop["reason"]) for drop in batch["dropped"]] == [
        ("a0.png#0", "no_crop"),
        ("a0.png#1", "no_crop"),
    ]


def test_cropped_faces_keep_the_warp_and_lose_crop_and_zoom(photos):
    data = PhotoFolderDataModule(str(photos / "*.png"), cropped=True, batch_size=3)
    (batch,) = predict(data)
    assert batch["key"] == ["a0.png", "b1.png", "c3.png"]
    assert (data.spec.crop, data.spec.zoom, data.spec.warp_factor) == ("none", 1.0, 0.5)
    # the longer side fills the crop
    torch.testing.assert_close(batch["matrix"][0, 0, 0], torch.tensor(64 / 160))
    torch.testing.assert_close(batch["matrix"][0, 1, 1], torch.tensor(64 / 160))


def test_the_crop_rule_can_be_replaced(photos):
    data = PhotoFolderDataModule(str(photos), detector=FakeDetector(), crop="quad")
    assert predict(data)[0]["valid"].tolist() == [True] * 4
    assert data.spec.crop == "quad"


def test_networks_of_whole_pictures_look_for_nothing(photos):
    task = Echo()
    task.spec = FaceSpec(image_size=32, classes=("a", "b"))
    assert predict(PhotoFolderDataModule(str(photos / "*.png")), task)[0]["key"] == ["a0.png", "b1.png", "c3.png"]


def test_workers_give_the_same(photos):
    data = [PhotoFolderDataModule(str(photos), detector=FakeDetector(), num_workers=count) for count in (0, 1)]
    (one, *_), (other, *_) = map(predict, data)
    assert one["key"] == other["key"]
    torch.testing.assert_close(one["image"], other["image"])


def test_somebody_has_to_know_the_crop(photos):
    task = Echo()
    task.spec = None
    with pytest.raises(ConfigError, match="nothing says how: give --ckpt_path of a run that parses or aligns faces"):
        predict(PhotoFolderDataModule(str(photos), cropped=True), task)


def test_without_a_detector_the_message_says_what_to_do(photos, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install --no-deps facenet-pytorch.*or pass boxes or five points"):
        predict(PhotoFolderDataModule(str(photos)))


def test_an_empty_folder_is_found_before_anything_is_built(tmp_path):
    with pytest.raises(DatasetNotFoundError, match="no photograph at"):
        PhotoFolderDataModule(str(tmp_path)).setup("predict")


def test_photographs_are_for_predict_alone(photos):
    data = PhotoFolderDataModule(str(photos))
    with pytest.raises(ConfigError, match="for predict alone"):
        data.setup("fit")
    with pytest.raises(ConfigError, match="for predict alone"):
        data.fit_images(3)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"crop": "quat"}, r"crop 'quat' is unknown\. Did you mean 'quad'"), ({"max_faces": 0}, "max_faces is 0")],
)
def test_settings_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        PhotoFolderDataModule("photos", **options)


def test_settings_are_saved_as_plain_data():
    data = PhotoFolderDataModule("photos", detector=FakeDetector(0.5))
    saved = data.hparams["detector"]
    assert saved == {"class_path": f"{__name__}.FakeDetector", "init_args": {"score": 0.5}}


def test_a_photograph_that_only_pads_the_last_batch_brings_nothing(photos):
    folder = PhotoFolder(photos / "*.png", cropped=True)
    dataset = PhotoDataset(folder, DenseTransform(DenseTransformConfig(size=16, crop="none"), train=False))
    assert dataset[Padded(1, False)] == ([], [])
    assert [sample["key"] for sample in dataset[Padded(1, True)].samples] == ["b1.png"]
    batch = dataset.collate([dataset[Padded(1, False)], dataset[2]])
    assert batch["key"] == ["c3.png"]
