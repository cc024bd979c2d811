from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
import pytest
import torch

from farl_lightning.datasets.synthetic import SyntheticFaces
from farl_lightning.errors import ConfigError, DataError
from farl_lightning.functional.warp import points_to_source, sample, source_to_crop_grid
from farl_lightning.transforms.collate_faces import collate_faces
from farl_lightning.transforms.crop import CropError
from farl_lightning.transforms.dense import DenseTransform, DenseTransformConfig, alignment_recipe, parsing_recipe
from farl_lightning.types import FaceRecord, FaceSpec
from tests.transforms.faces import EYES, area_centroid, centroid, records


def flat(value, label, **changes):
    """A picture of 10 x 10 equal pixels."""
    return FaceRecord("a", np.full((10, 10, 3), value, np.uint8), np.full((10, 10), label, np.uint8), **changes)


LABELS = SyntheticFaces.spec(128)
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def make(config, train=True, labels=LABELS, seed=0):
    return DenseTransform(config, labels, seed, train)


@pytest.mark.parametrize(
    ("recipe", "mask", "count"),
    [(parsing_recipe, "lapa", 68), (alignment_recipe, "celebamask", 98), (parsing_recipe, "celebamask", 19)],
)
def test_mask_and_landmarks_stay_registered_over_200_draws(recipe, mask, count):
    """Mean distance between the landmarks of an eye and the eye of the mask, flips included."""
    labels = SyntheticFaces.spec(192, {"lapa": 11, "celebamask": 19}[mask], count)
    transform = make(recipe(size=192, horizontal_flip=0.5), labels=labels)
    faces, distances, flips = records(4, 192, mask, count), [], 0
    for draw in range(200):
        drawn = transform(faces[draw % 4], draw)
        flips += int(torch.linalg.det(drawn["matrix"]) < 0)
        for label, name in zip(EYES[mask], ("left_eye", "right_eye"), strict=True):
            feature = centroid(drawn["mask"], label)
            points = drawn["landmarks"][list(labels.landmark_groups[name])]
            if feature is not None:  # a large turn may carry it out of the crop
                middle = points.mean(0) if count == 19 else area_centroid(points)
                distances.append((feature - middle).norm().item())
    assert 60 < flips < 140
    assert len(distances) > 380
    assert np.mean(distances) < 1
    assert np.quantile(distances, 0.95) < 2


def test_the_picture_moves_with_its_mask():
    record = records(1, 160)[0]
    painted = dataclasses.replace(record, image=np.repeat((record.mask == 1)[..., None] * np.uint8(255), 3, -1))
    transform = make(DenseTransformConfig(160, warp_factor=0.8, shift=0.1, rotation=0.5, horizontal_flip=0.5, **PLAIN))
    for epoch in range(6):
        drawn = transform(painted, epoch)
        assert ((drawn["image"][0] > 0.5) == (drawn["mask"] == 1)).float().mean() > 0.99


@pytest.mark.parametrize("crop", ["align", "box", "quad", "none"])
@pytest.mark.parametrize("factor", [0.0, 0.8])
def test_landmarks_come_back_to_the_source(crop, factor):
    record = records(1, 96)[0]
    config = DenseTransformConfig(128, crop, warp_factor=factor, zoom_mean=0.7, shift=0.1, rotation=0.3)
    drawn = make(config)(record, 3)
    back = points_to_source(drawn["landmarks"].double(), drawn["matrix"].double(), 128, factor)
    assert (back - torch.tensor(record.landmarks)).abs().max() < 0.01


def test_the_mask_carried_back_is_the_source_mask():
    record = records(1, 96)[0]
    made = make(DenseTransformConfig(192, warp_factor=0.8, zoom_mean=0.6), train=False)(record)
    grid = source_to_crop_grid(made["matrix"][None].double(), (96, 96), 192, 0.8)
    back = sample(made["mask"][None, None].double(), grid, "nearest")[0, 0]
    assert (back.numpy() == record.mask).mean() > 0.985


def test_the_same_key_gives_the_same_sample():
    record, transform = records(1, 64)[0], make(alignment_recipe(size=64))
    first, again = transform(record, 2), transform(record, 2)
    assert all(torch.equal(first[name], again[name]) for name in ("image", "mask", "landmarks", "matrix"))
    for other in (transform(record, 3), make(alignment_recipe(size=64), seed=1)(record, 2)):
        assert not torch.equal(first["matrix"], other["matrix"])
    state = torch.get_rng_state()
    transform(record, 5)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("changes", "moves"), [({}, False), ({"shift": 0.1}, True), ({"rotation": 0.1}, True), ({"zoom": 0.1}, True)]
)
def test_training_moves_the_crop_only_where_a_range_is_given(changes, moves):
    config = DenseTransformConfig(**{"size": 64, "crop": "box", "shift": 0.0, "rotation": 0.0, "zoom": 0.0} | changes)
    face = records(1, 64)[0]
    still = make(config, train=False)(face)["matrix"]
    assert torch.equal(make(config)(face)["matrix"], still) is not moves


def test_evaluation_draws_nothing_and_keeps_the_truth():
    record = dataclasses.replace(records(1, 64)[0], subsets=("full", "pose"))
    transform = make(alignment_recipe(size=48), train=False)
    made, again = transform(record, 0), transform(record, 7)
    assert torch.equal(made["image"], again["image"])
    assert made["size"].tolist() == [64, 64]
    assert torch.equal(made["source_mask"], torch.tensor(record.mask))
    assert torch.equal(made["source_landmarks"], torch.tensor(record.landmarks))
    assert made["box"].tolist() == pytest.approx(record.box)
    assert made["subsets"] == ("full", "pose")
    other = dataclasses.replace(record, error_box=(1.0, 2.0, 3.0, 4.0))
    assert transform(other)["box"].tolist() == [1, 2, 3, 4]
    none = dataclasses.replace(record, box=None)
    assert make(DenseTransformConfig(48), train=False)(none)["box"].isnan().all()
    assert set(make(DenseTransformConfig(48))(record)) == {"key", "image", "matrix", "mask", "landmarks", "visible"}


def test_types_and_normalisation():
    record = FaceRecord("a", np.full((8, 8, 3), 51, np.uint8), np.full((8, 8), 3, np.uint8))
    config = DenseTransformConfig(8, "none", mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
    made = make(config, train=False)(record)
    assert made["image"].dtype == torch.float32
    assert made["mask"].dtype == torch.int64
    torch.testing.assert_close(made["image"][:, 4, 4], torch.tensor([0.2, 0.0, -0.8]), atol=1e-6, rtol=0)
    assert (made["mask"] == 3).all()


def test_a_crop_of_the_whole_picture_changes_no_pixel():
    record = records(1, 64)[0]
    made = make(DenseTransformConfig(64, "none", **PLAIN), train=False)(record)
    torch.testing.assert_close(
        made["image"] * 255, torch.tensor(record.image).permute(2, 0, 1).float(), atol=1e-2, rtol=0
    )
    assert np.array_equal(made["mask"], record.mask)
    assert torch.equal(made["matrix"], torch.eye(3))


def test_outside_is_background_or_ignored():
    record = flat(9, 7, box=(-5.5, -0.5, 9.5, 9.5))
    background = make(DenseTransformConfig(30, "box"), train=False)(record)["mask"]
    ignored = make(DenseTransformConfig(30, "box", outside="ignore"), train=False)(record)["mask"]
    assert background.unique().tolist() == [0, 7]
    assert torch.equal(ignored == 255, background == 0)
    assert (ignored == 255)[:, :9].all()
    assert (ignored[:, 11:] == 7).all()
    keeps = dataclasses.replace(record, mask=np.full((10, 10), 255, np.uint8))
    assert (make(DenseTransformConfig(30, "box", outside="ignore"), train=False)(keeps)["mask"] == 255).all()


def test_visible_points_follow_their_landmarks_through_a_flip():
    record = records(1, 64)[0]
    visible = np.ones(68, bool)
    visible[36] = False
    drawn = make(DenseTransformConfig(64, horizontal_flip=1.0))(dataclasses.replace(record, visible=visible))
    assert drawn["visible"].nonzero().numel() == 67
    assert not drawn["visible"][45]  # the corner that 36 becomes


def test_colour_jitter_is_off_unless_asked_for():
    record = records(1, 64)[0]
    plain = make(DenseTransformConfig(64))(record)["image"]
    assert torch.equal(plain, make(DenseTransformConfig(64), train=False)(record)["image"])
    assert not torch.equal(plain, make(DenseTransformConfig(64, brightness=0.5))(record)["image"])


def test_colours_changed_on_the_batch_equal_those_changed_in_the_loader():
    record = records(1, 96)[0]
    config = alignment_recipe(size=96, gray=0.5, blur=0.05)
    later = make(dataclasses.replace(config, on_device=True))
    batch = collate_faces([later(record, epoch) for epoch in range(6)])
    assert batch["image"].dtype == torch.uint8
    finished = later.finish(batch)
    now = torch.stack([make(config)(record, epoch)["image"] for epoch in range(6)])
    assert "draws" not in finished
    # the picture was rounded to uint8 between; the square root is steep near black
    assert (finished["image"] - now).abs().mean() < 0.01
    assert torch.equal(finished["landmarks"], batch["landmarks"])
    assert later.finish(finished) is finished


def test_antialiasing_averages_what_a_small_crop_merges():
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 200
    record = FaceRecord("a", stripes, np.zeros((512, 512), np.uint8))
    sharp = make(DenseTransformConfig(32, "none", **PLAIN), train=False)(record)["image"] * 255
    smooth = make(DenseTransformConfig(32, "none", antialias=True, **PLAIN), train=False)(record)["image"] * 255
    assert (smooth[:, 2:-2, 2:-2] - 100).abs().max() < 3
    assert sharp.std() == pytest.approx(0, abs=1e-3) or sharp.std() > smooth[:, 2:-2, 2:-2].std()
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 256, 0).repeat(3, -1)
    made = [
        make(DenseTransformConfig(64, "none", antialias=on, **PLAIN), train=False)(FaceRecord("b", ramp))["image"]
        for on in (False, True)
    ]
    torch.testing.assert_close(made[0][..., 2:-2], made[1][..., 2:-2], atol=2 / 255, rtol=0)  # no shift between them
    enlarged = [make(DenseTransformConfig(128, antialias=on), train=False)(records(1, 32)[0]) for on in (False, True)]
    assert torch.equal(enlarged[0]["image"], enlarged[1]["image"])


BOX = (20.0, 20.0, 60.0, 60.0)


@pytest.mark.parametrize(
    ("crop", "changes", "message"),
    [
        ("align", {"points": None}, "needs 5 points"),
        ("align", {"points": np.full((5, 2), 30.0)}, "lie on one spot"),
        ("align", {"points": np.full((5, 2), np.nan)}, "not finite"),
        ("align", {"points": np.zeros((4, 2))}, r"got shape \(4, 2\)"),
        ("align", {"points": np.array([[30, 40], [70, 46], [49, 61], [34, 78], [64, 83]]) + 9000}, "does not meet"),
        ("quad", {"points": np.full((5, 2), 30.0)}, "lie on one spot"),
        ("box", {"box": None}, "needs a face box"),
        ("box", {"box": (20.0, 20.0, 20.0, 60.0)}, "does not meet"),
        ("box", {"box": (20.0, 20.0, 20.5, 60.0)}, "less than a pixel"),
        ("box", {"box": (20.0, 20.0, math.nan, 60.0)}, "does not meet"),
        ("box", {"box": (20.0, 20.0, math.inf, 60.0)}, "does not meet"),
        ("box", {"box": (200.0, 20.0, 220.0, 60.0)}, "does not meet"),
        ("none", {"mask": np.zeros((5, 64), np.uint8)}, "mask of .* does not fit"),
        ("none", {"landmarks": np.full((68, 2), np.nan)}, "not finite"),
        ("none", {"landmarks": np.full((68, 2), 1e30)}, "a million pixels"),
        ("none", {"landmarks": np.zeros((68, 3))}, r"landmarks are \(number, 2\)"),
        ("none", {"image": np.zeros((64, 64), np.uint8)}, r"pictures are \(height, width, 3\)"),
        ("none", {"image": np.zeros((0, 64, 3), np.uint8)}, r"pictures are \(height, width, 3\)"),
    ],
)
@pytest.mark.parametrize("train", [True, False])
def test_bad_geometry_is_an_error_that_can_be_counted(crop, changes, message, train):
    record = dataclasses.replace(records(1, 64)[0], **changes)
    with pytest.raises(CropError, match=message):
        make(DenseTransformConfig(32, crop), train)(record)


@pytest.mark.parametrize("recipe", [parsing_recipe, alignment_recipe])
def test_landmarks_outside_the_picture_stay_finite(recipe):
    record = records(1, 64)[0]
    far = dataclasses.replace(record, landmarks=record.landmarks * 50 - 900)
    for epoch in range(10):
        drawn = make(recipe(size=48))(far, epoch)
        assert drawn["landmarks"].isfinite().all()
        assert drawn["image"].isfinite().all()


def test_one_pixel_pictures():
    pixel = FaceRecord("a", np.full((1, 1, 3), 90, np.uint8), np.full((1, 1), 2, np.uint8), box=(-0.5, -0.5, 0.5, 0.5))
    made = make(DenseTransformConfig(16, "none", **PLAIN), train=False)(pixel)
    assert made["mask"].unique().tolist() == [2]
    assert made["image"].max() == pytest.approx(90 / 255, abs=0.03)
    for recipe in (parsing_recipe, alignment_recipe):
        drawn = make(recipe(size=16, crop="none"))(pixel)
        assert drawn["image"].isfinite().all()
    five = dataclasses.replace(pixel, points=np.zeros((5, 2)))
    with pytest.raises(CropError, match="one spot"):
        make(DenseTransformConfig(16))(five)


def test_pictures_of_12000_pixels_need_no_copy_of_them():
    """The whole of a huge picture is cut as its parts are, in moderate time and without floats of all of it."""
    small = records(1, 64)[0]
    huge = np.broadcast_to(np.array([10, 20, 30], np.uint8), (12_000, 12_000, 3))  # a view of three bytes
    mask = np.broadcast_to(np.uint8(4), (12_000, 12_000))
    scale = 12_000 / 64
    record = dataclasses.replace(
        small, image=huge, mask=mask, landmarks=small.landmarks * scale, points=small.points * scale
    )
    began = time.perf_counter()
    made = make(parsing_recipe(size=256, warp_factor=0.8, outside="ignore", **PLAIN))(record, 1)
    assert time.perf_counter() - began < 10
    inside = made["mask"] == 4
    assert inside.float().mean() > 0.3
    assert made["mask"][~inside].unique().tolist() in ([], [255])
    assert made["image"].isfinite().all()


def test_large_parts_are_gathered_to_the_same_pixels(monkeypatch):
    record = records(1, 160)[0]
    config = DenseTransformConfig(96, warp_factor=0.8, zoom_mean=0.7, outside="ignore", **PLAIN)
    quick = make(config, train=False)(record)
    monkeypatch.setattr("farl_lightning.transforms.resample.GATHER_FROM", 0)
    slow = make(config, train=False)(record)
    torch.testing.assert_close(quick["image"], slow["image"], atol=2e-5, rtol=0)
    assert (quick["mask"] == slow["mask"]).float().mean() > 0.9999


def test_read_only_pictures_warn_about_nothing(recwarn):
    record = records(1, 64)[0]
    image = record.image.copy()
    image.flags.writeable = False
    make(DenseTransformConfig(32), train=False)(dataclasses.replace(record, image=image))
    assert not recwarn.list


def test_memory_of_an_evaluation_serves_training():
    small, large = flat(10, 1), FaceRecord("b", np.full((60, 60, 3), 20, np.uint8))
    plain = DenseTransformConfig(size=10, crop="none", **PLAIN)
    with torch.inference_mode():
        make(plain, train=False)(large)
    assert make(plain)(small)["image"].mean().item() == pytest.approx(10 / 255)


def test_a_crop_beside_the_picture_is_empty():
    record = flat(9, 7, box=(8.0, 8.0, 20.0, 20.0))
    transform = make(DenseTransformConfig(16, "box", shift=5.0, outside="ignore", **PLAIN))
    empty = [drawn for drawn in (transform(record, epoch) for epoch in range(30)) if (drawn["mask"] == 255).all()]
    assert empty
    assert all(drawn["image"].max() <= 9 / 255 for drawn in empty)  # the picture's border fades over half a pixel
    assert any((drawn["image"] == 0).all() for drawn in empty)


def test_recipes_are_farls():
    parsing, alignment = parsing_recipe(), alignment_recipe(zoom_mean=1.0)
    assert (parsing.size, parsing.crop, parsing.warp_factor, parsing.distribution) == (512, "align", 0.8, "normal")
    assert (parsing.shift, parsing.rotation, parsing.zoom) == (0.01, 0.314, 0.1)
    assert (alignment.crop, alignment.distribution) == ("box", "uniform")
    assert (alignment.occlusion, alignment.noise, alignment.noise_strength) == (1.0, 0.5, 0.5)
    assert (alignment.shift, alignment.rotation, alignment.zoom, alignment.zoom_mean) == (0.05, 0.174, 0.1, 1.0)
    for recipe in (parsing, alignment):
        assert (recipe.gray, recipe.gamma, recipe.blur) == (0.1, True, 0.01)
        assert recipe.horizontal_flip == recipe.brightness == recipe.hue == 0


def test_the_spec_says_how_the_crop_was_cut():
    spec = parsing_recipe(size=64, align_scale=0.5, zoom_mean=0.9).face_spec(LABELS)
    assert (spec.image_size, spec.crop, spec.warp_factor, spec.zoom) == (64, "align", 0.8, 0.9)
    assert spec.template[0] == pytest.approx(((196 / 256 - 1) / 2, (226 / 256 - 1) / 2))
    assert spec.classes == LABELS.classes
    assert FaceSpec.from_dict(spec.to_dict()) == spec
    assert alignment_recipe().face_spec().template == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": "aligned"}, "Did you mean 'align'"),
        ({"outside": "black"}, "outside 'black' is unknown"),
        ({"distribution": "gauss"}, "distribution 'gauss'"),
        ({"size": 0}, "size must be at least 1"),
        ({"warp_factor": 1.5}, "warp_factor must lie between 0 and 1, got 1.5"),
        ({"rotation": -0.1}, "rotation must be 0 or more"),
        ({"align_scale": 0.0}, "align_scale must be above 0"),
        ({"zoom": 1.0}, "zoom must lie between 0 and zoom_mean"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        DenseTransformConfig(**settings)


def test_collation():
    faces = [records(1, size)[0] for size in (48, 64)]
    transform = make(DenseTransformConfig(32), train=False)
    samples = [transform(face) | {"valid": True} for face in faces]
    samples[1]["dropped"] = [{"key": "x", "reason": "crop", "detail": ""}]
    batch = collate_faces(samples)
    assert batch["image"].shape == (2, 3, 32, 32)
    assert batch["landmarks"].shape == (2, 68, 2)
    assert [tuple(mask.shape) for mask in batch["source_mask"]] == [(48, 48), (64, 64)]
    assert batch["key"] == [face.key for face in faces]
    assert batch["subsets"] == [(), ()]
    assert batch["valid"].tolist() == [True, True]
    assert [drop["key"] for drop in batch["dropped"]] == ["x"]
    del samples[0]["mask"]
    with pytest.raises(DataError, match="mask is missing in some"):
        collate_faces(samples)
