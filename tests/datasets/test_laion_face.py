"""Pictures, captions and faces of a sample, and every way in which one of them can be missing."""

from __future__ import annotations

import io
import json
from collections import Counter

import pytest
import torch
from PIL import Image

from farl_lightning.datasets.bad_sample import BadSample
from farl_lightning.datasets.detections import index_detections
from farl_lightning.datasets.laion_face import HeldPictures, LaionFace, PictureReader, PretrainSamples
from farl_lightning.datasets.tar import RawSample
from farl_lightning.errors import ConfigError
from farl_lightning.testing.shards import SAMPLE_FAULTS, SHARD_FAULTS, encode_image, write_fake_laion_face
from farl_lightning.transforms.pretrain import PretrainTransform, PretrainTransformConfig

FACES = [
    {"box": [0, 0, 10, 10], "landmarks": [[1, 1], [9, 1], [5, 5], [2, 8], [8, 8]], "score": 0.6},
    {"box": [10, 5, 40, 45], "landmarks": [[15, 15], [30, 15], [25, 25], [17, 35], [32, 35]], "score": 0.9},
    {"box": [20, 0, 40, 100], "score": 0.95},
]


def raw(metadata=None, **files):
    base = {"jpg": encode_image((200, 10, 10)), "txt": b"a face", "json": json.dumps(metadata or {}).encode()}
    return RawSample("7", 0, {name: data for name, data in {**base, **files}.items() if data is not None})


def test_picture_and_caption():
    (picture,) = PictureReader()(raw(txt="  Ein   schönes <b>Bild</b> ".encode()), "part/3")
    assert (picture.key, picture.captions, picture.face) == ("part/3/7", ["Ein schönes Bild"], None)
    assert picture.image().size == (40, 48)


def test_several_captions_come_from_the_metadata():
    (picture,) = PictureReader()(raw({"captions": ["a face", "another", "", 5, "another"]}), "s")
    assert picture.captions == ["a face", "another"]


@pytest.mark.parametrize("suffix", ["png", "webp", "jpeg"])
def test_other_image_suffixes(suffix):
    (picture,) = PictureReader()(raw(jpg=None, **{suffix: encode_image((0, 0, 255), suffix=suffix)}), "s")
    assert picture.image().getpixel((20, 24))[2] > 200


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"jpg": None}, "missing_image"),
        ({"txt": None}, "missing_caption"),
        ({"txt": b" \n\t"}, "empty_caption"),
        ({"txt": b"\xff\xfe\x00"}, "caption_not_utf8"),
    ],
)
def test_bad_samples_have_their_reason(files, reason):
    with pytest.raises(BadSample) as bad:
        PictureReader()(raw(**files), "s")
    assert bad.value.reason == reason


@pytest.mark.parametrize(
    ("choice", "expected"), [("largest", [1]), ("first", [0]), ("best", [2]), ("every", [0, 1, 2])]
)
def test_choice_among_several_faces(choice, expected):
    pictures = PictureReader(faces=choice, need_faces=True)(raw({"faces": FACES}), "s")
    assert [picture.face.box for picture in pictures] == [tuple(FACES[n]["box"]) for n in expected]
    assert [picture.key for picture in pictures] == ["s/7", "s/7#1", "s/7#2"][: len(expected)]


@pytest.mark.parametrize(("limits", "expected"), [({"min_face_size": 15}, [1, 2]), ({"min_face_score": 0.92}, [2])])
def test_small_and_uncertain_faces_are_passed_over(limits, expected):
    pictures = PictureReader(faces="every", **limits)(raw({"faces": FACES}), "s")
    assert [picture.face.box for picture in pictures] == [tuple(FACES[n]["box"]) for n in expected]


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({}, "no_detection"),
        ({"SAMPLE_ID": "x"}, "no_detection"),
        ({"SAMPLE_ID": 999}, "no_detection"),
        ({"faces": []}, "no_face"),
        ({"faces": [{"box": [0, 0, 1, 1], "score": 0.1}]}, "no_face"),
        ({"faces": [{"box": [1, 2]}]}, "no_face"),
        ({"faces": [{"box": [1, 2, 3, "x"]}]}, "broken_json"),
        ({"faces": 3}, "broken_json"),
    ],
)
def test_missing_faces_have_their_reason(tmp_path, metadata, reason):
    torch.save({1: []}, tmp_path / "sample2detect_0.pth")
    index_detections([tmp_path / "sample2detect_0.pth"], tmp_path / "table")
    with pytest.raises(BadSample) as bad:
        PictureReader(tmp_path / "table", min_face_score=0.5)(raw(metadata), "s")
    assert bad.value.reason == reason


@pytest.mark.parametrize("data", [b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_broken_metadata_matter_only_when_faces_are_needed(data):
    assert PictureReader()(raw(json=data), "s")
    with pytest.raises(BadSample) as bad:
        PictureReader(need_faces=True)(raw(json=data), "s")
    assert bad.value.reason == "broken_json"


def test_unknown_choice():
    with pytest.raises(ConfigError, match=r"faces 'bigest' is unknown\. Did you mean '(largest|best)'"):
        PictureReader(faces="bigest")


def test_detections_lead_to_the_crop(tmp_path):
    fake = write_fake_laion_face(tmp_path, shards=1, samples=3, size=60)
    index_detections([fake.detections], tmp_path / "table")
    for crop in ("box", "align"):
        config = PretrainTransformConfig(image_size=32, patch_size=8, min_block=2, crop=crop, margin=(0.0, 0.0))
        maker = PretrainSamples(
            PictureReader(tmp_path / "table", need_faces=True), PretrainTransform(config, train=False)
        )
        (picture, *_) = LaionFace(fake.shards, reader=PictureReader(tmp_path / "table", need_faces=True))
        assert picture.face.score == pytest.approx(0.99)
        sample = maker.make(picture, 0)
        whole = PretrainSamples(PictureReader(), PretrainTransform(PretrainTransformConfig(32, 8, min_block=2)))
        assert sample["image"].shape == (3, 32, 32)
        # the ellipse fills the crop: its corner regions are less grey than the whole picture's border
        assert not torch.equal(sample["image"], whole.make(picture, 0)["image"])


def test_a_face_outside_of_the_picture_is_a_bad_sample():
    config = PretrainTransformConfig(image_size=32, patch_size=8, min_block=2, crop="box")
    reader = PictureReader(need_faces=True)
    (picture,) = reader(raw({"faces": [{"box": [500, 500, 600, 600]}]}), "s")
    with pytest.raises(BadSample) as bad:
        PretrainSamples(reader, PretrainTransform(config)).make(picture, 0)
    assert bad.value.reason == "no_face"


def odd_images():
    red = Image.new("RGB", (40, 30), (250, 5, 5))
    gif = io.BytesIO()
    red.save(gif, "GIF", save_all=True, append_images=[Image.new("RGB", (40, 30), (0, 255, 0))])
    yield "gif", gif.getvalue()
    for mode, suffix in (("CMYK", "jpg"), ("P", "png"), ("RGBA", "png"), ("1", "png"), ("LA", "png"), ("I;16", "png")):
        stream = io.BytesIO()
        image = Image.new("I;16", (40, 30), 60_000) if mode == "I;16" else red.convert(mode)
        image.save(stream, Image.registered_extensions()[f".{suffix}"])
        yield suffix, stream.getvalue()


def test_odd_pictures_are_used_not_dropped():
    maker = PretrainSamples(PictureReader(), PretrainTransform(PretrainTransformConfig(32, 8, min_block=2)))
    for suffix, data in odd_images():
        (picture,) = maker.pictures(raw(**{"jpg": None, suffix: data}), "s")
        assert torch.isfinite(maker.make(picture, 0)["image"]).all()


def test_looking_through_shards_lists_faults(tmp_path):
    faults = {**dict.fromkeys(SAMPLE_FAULTS, 1), **dict.fromkeys(SHARD_FAULTS, 1)}
    fake = write_fake_laion_face(tmp_path, shards=2, samples=6, faults=faults)
    dataset = LaionFace(fake.shards)
    found = [picture.key for picture in dataset]
    assert set(fake.keys) <= set(found)
    only_decoding_tells = {"not_an_image", "broken_image", "huge_image"}
    assert len(found) == len(fake.keys) + len(only_decoding_tells)
    assert Counter(drop["reason"] for drop in dataset.drops) == dict.fromkeys(faults.keys() - only_decoding_tells, 1)
    assert [picture.key for picture in dataset] == found
    assert len(dataset.drops) == len(faults) - 3


def test_a_bad_picture_in_evaluation_is_stood_in_for(tmp_path):
    fake = write_fake_laion_face(tmp_path, shards=1, samples=3, faults={"not_an_image": 1})
    pictures = list(LaionFace(fake.shards))
    maker = PretrainSamples(
        PictureReader(), PretrainTransform(PretrainTransformConfig(32, 8, min_block=2), train=False)
    )
    held = HeldPictures(pictures, maker)
    samples = [held.sample(n, 0) for n in range(len(held))]
    assert len(samples) == 4
    assert sorted(sample.get("valid", True) for sample in samples) == [False, True, True, True]
    assert {sample["key"] for sample in samples} == set(fake.keys)
    assert [drop["reason"] for sample in samples for drop in sample["dropped"]] == ["not_an_image"]
