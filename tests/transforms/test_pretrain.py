from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from farl_lightning.errors import ConfigError, DataError
from farl_lightning.transforms.collate import collate_pretrain
from farl_lightning.transforms.crop import CropError
from farl_lightning.transforms.pretrain import PretrainTransform, PretrainTransformConfig
from farl_lightning.types import CLIP_MEAN, CLIP_STD, FaceSpec

CAPTIONS = ["a smiling woman", "portrait of a woman with glasses", "a face"]
SMALL = PretrainTransformConfig(image_size=32, patch_size=4, min_block=4, scale=(0.3, 1.0), horizontal_flip=0.5)
COLOURS = dataclasses.replace(SMALL, brightness=0.4, hue=0.2, grayscale=0.3, blur=0.3)


def picture(seed: int = 0, size: tuple[int, int] = (60, 50)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[name], other[name]) if isinstance(one[name], torch.Tensor) else one[name] == other[name]
        for name in one
    )


def test_a_training_sample_has_the_schema():
    sample = PretrainTransform(SMALL)(picture(), CAPTIONS, "k", 3, labels=[1, 0, -1])
    assert set(sample) == {"image", "key", "text", "caption", "patch_mask", "labels"}
    assert sample["image"].shape == (3, 32, 32)
    assert sample["image"].dtype == torch.float32
    assert sample["image"].is_contiguous()
    assert sample["text"].shape == (77,)
    assert sample["text"].dtype == torch.int64
    assert sample["caption"] in CAPTIONS
    assert sample["patch_mask"].shape == (64,)
    assert sample["patch_mask"].dtype == torch.bool
    assert sample["labels"].tolist() == [1, 0, -1]


def test_an_evaluation_sample_keeps_every_caption_and_draws_nothing():
    transform = PretrainTransform(COLOURS, train=False)
    sample = transform(picture(), CAPTIONS, "k", 0)
    assert sample["texts"].shape == (3, 77)
    assert torch.equal(sample["texts"], transform.tokenizer(CAPTIONS))
    assert torch.equal(sample["text"], sample["texts"][0])
    assert sample["caption"] == CAPTIONS[0]
    assert equal(sample, transform(picture(), CAPTIONS, "k", 9))
    other = transform(picture(), CAPTIONS, "another key")
    assert torch.equal(sample["image"], other["image"])
    assert not torch.equal(sample["patch_mask"], other["patch_mask"])


def test_normalisation_is_the_stated_one():
    config = PretrainTransformConfig(
        image_size=32, patch_size=16, mask="none", mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0)
    )
    image = np.full((40, 40, 3), (255, 102, 0), np.uint8)
    sample = PretrainTransform(config, train=False)(image, [], "k")
    assert set(sample) == {"image", "key"}
    torch.testing.assert_close(sample["image"].mean((1, 2)), torch.tensor([0.9 / 0.5, 0.2, -0.15]))


def test_evaluation_takes_the_centre_square_resized():
    image = picture(size=(96, 64))
    pixels = PretrainTransform(SMALL, train=False).pixels(image, "k")
    expected = np.asarray(image.crop((16, 0, 80, 64)).resize((32, 32), Image.Resampling.BICUBIC))
    assert np.abs(pixels.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


def test_same_seed_epoch_and_key_give_the_same_sample_whatever_ran_before():
    transform = PretrainTransform(COLOURS, seed=4)
    first = transform(picture(), CAPTIONS, "k", 2)
    for index in range(5):
        transform(picture(index), CAPTIONS, f"other {index}", index)
    torch.rand(17)
    assert equal(first, transform(picture(), CAPTIONS, "k", 2))
    assert equal(first, PretrainTransform(COLOURS, seed=4)(picture(), CAPTIONS, "k", 2))


@pytest.mark.parametrize(("seed", "epoch", "key"), [(5, 2, "k"), (4, 3, "k"), (4, 2, "l")])
def test_another_seed_epoch_or_key_gives_another_sample(seed, epoch, key):
    first = PretrainTransform(COLOURS, seed=4)(picture(), CAPTIONS, "k", 2)
    other = PretrainTransform(COLOURS, seed=seed)(picture(), CAPTIONS, key, epoch)
    assert not torch.equal(first["image"], other["image"])
    assert not torch.equal(first["patch_mask"], other["patch_mask"])


def test_torchs_generator_is_left_as_it_was():
    state = torch.get_rng_state()
    PretrainTransform(COLOURS)(picture(), CAPTIONS, "k", 2)
    assert torch.equal(torch.get_rng_state(), state)


class _Pictures(Dataset):
    def __init__(self) -> None:
        self.transform = PretrainTransform(COLOURS, seed=1)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict:
        return self.transform(picture(index), CAPTIONS, f"key-{index}", 1)


def test_worker_processes_give_the_same_batches():
    here = list(DataLoader(_Pictures(), batch_size=4, collate_fn=collate_pretrain))
    there = list(DataLoader(_Pictures(), batch_size=4, collate_fn=collate_pretrain, num_workers=2))
    assert len(here) == len(there) == 2
    assert all(equal(one, other) for one, other in zip(here, there, strict=True))


def test_each_caption_is_drawn_about_equally_often():
    transform = PretrainTransform(dataclasses.replace(SMALL, mask="none"))
    image = picture(size=(32, 32))
    drawn = [transform(image, CAPTIONS, f"{index}", 0)["caption"] for index in range(600)]
    assert all(160 < drawn.count(caption) < 240 for caption in CAPTIONS)
    epochs = {transform(image, CAPTIONS, "k", epoch)["caption"] for epoch in range(20)}
    assert epochs == set(CAPTIONS)


def test_flips_mirror_half_of_the_pictures():
    config = dataclasses.replace(SMALL, scale=(1, 1), ratio=(1, 1), mask="none")
    transform, image = PretrainTransform(config), picture(size=(32, 32))
    upright = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    flips = 0
    for index in range(100):
        pixels = transform.pixels(image, str(index))
        flipped = torch.equal(pixels, upright.flip(-1))
        assert flipped or torch.equal(pixels, upright)
        flips += flipped
    assert 30 < flips < 70


def test_masks_follow_the_settings():
    block = PretrainTransform(PretrainTransformConfig())
    counts = [int(block.patch_mask(str(index)).sum()) for index in range(200)]
    assert max(counts) == 75
    assert 73.9 < sum(counts) / 200 < 75
    share = PretrainTransformConfig(mask="random", mask_ratio=0.25, num_masked=None)
    assert PretrainTransform(share).patch_mask("k").sum() == 49
    assert PretrainTransform(dataclasses.replace(share, num_masked=11)).patch_mask("k").sum() == 11


def test_box_and_align_reach_the_picture():
    image = Image.new("RGB", (200, 100))
    image.paste("white", (120, 30, 160, 70))
    config = dataclasses.replace(SMALL, crop="box", margin=(0, 0), scale=(1, 1), ratio=(1, 1))
    assert (PretrainTransform(config).pixels(image, "k", box=(120, 30, 160, 70)) == 255).all()
    with pytest.raises(CropError, match="landmarks"):
        PretrainTransform(dataclasses.replace(SMALL, crop="align"))(image, CAPTIONS, "k")


def test_context_length_reaches_the_tokenizer():
    sample = PretrainTransform(dataclasses.replace(SMALL, context_length=12))(picture(), CAPTIONS, "k")
    assert sample["text"].shape == (12,)


def test_transform_survives_pickling():
    transform = PretrainTransform(COLOURS, seed=3)
    copy = pickle.loads(pickle.dumps(transform))  # noqa: S301
    assert equal(transform(picture(), CAPTIONS, "k", 1), copy(picture(), CAPTIONS, "k", 1))


def test_face_spec_carries_what_a_model_must_know():
    spec = dataclasses.replace(SMALL, crop="align").face_spec(attributes=("Smiling",))
    assert (spec.image_size, spec.crop, spec.mean, spec.std) == (32, "align", CLIP_MEAN, CLIP_STD)
    assert spec.template[0] == (196 / 256 - 1, 226 / 256 - 1)
    assert spec.attributes == ("Smiling",)
    assert FaceSpec.from_dict(spec.to_dict()) == spec
    assert dataclasses.replace(SMALL, crop="center").face_spec().crop == "none"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 225}, "225 is not a multiple of patch_size 16"),
        ({"patch_size": 0}, "not a multiple"),
        ({"interpolation": "bicubik"}, "Did you mean 'bicubic'"),
        ({"mask": "blocks"}, "Did you mean 'block'"),
        ({"num_masked": 196}, "from 1 to 195"),
        ({"mask_ratio": 0.0}, "from 1 to 195"),
        ({"scale": (0.9, 1.1)}, r"scale must be a rising range above 0 up to 1, got \(0.9, 1.1\)"),
        ({"ratio": (2.0, 0.5)}, "ratio must be a rising range"),
        ({"blur": 1.5}, "blur is a probability from 0 to 1, got 1.5"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        PretrainTransformConfig(**settings)


def test_an_unknown_crop_is_refused():
    with pytest.raises(ConfigError, match="Did you mean 'align'"):
        PretrainTransform(dataclasses.replace(SMALL, crop="aligned"))


def test_collate_stacks_lists_and_pads():
    transform = PretrainTransform(SMALL, train=False)
    samples = [transform(picture(), CAPTIONS[:count], f"k{count}", labels=[1]) for count in (1, 3)]
    samples[1]["dropped"] = [{"key": "x", "reason": "broken_image", "detail": ""}]
    batch = collate_pretrain(samples)
    assert batch["image"].shape == (2, 3, 32, 32)
    assert batch["texts"].shape == (2, 3, 77)
    assert not batch["texts"][0, 1:].any()
    assert torch.equal(batch["texts"][1], samples[1]["texts"])
    assert batch["key"] == ["k1", "k3"]
    assert batch["caption"] == [CAPTIONS[0], CAPTIONS[0]]
    assert batch["labels"].tolist() == [[1], [1]]
    assert batch["dropped"] == samples[1]["dropped"]


def test_collate_refuses_uneven_samples():
    transform = PretrainTransform(SMALL)
    samples = [transform(picture(), CAPTIONS, "full"), transform(picture(), [], "silent")]
    with pytest.raises(DataError, match=r"caption, text is missing in some; keys: \['full', 'silent'\]"):
        collate_pretrain(samples)
