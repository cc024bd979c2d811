from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from farl_lightning.datasets.synthetic import SyntheticFaces, landmark_flips
from farl_lightning.errors import ConfigError
from farl_lightning.functional.photometric import box_blur, change_gamma, to_gray
from farl_lightning.functional.random import keyed_rng
from farl_lightning.transforms.augment import (
    NoiseFusion,
    PhotometricChain,
    RandomBoxBlur,
    RandomFaceAffine,
    RandomFaceFlip,
    RandomGamma,
    RandomGray,
    RandomOcclusion,
    affine_matrix,
    swap_labels,
    swap_points,
)
from tests.transforms.faces import EYES, area_centroid, centroid, records


def picture(size=40):
    return tv_tensors.Image(torch.rand(3, size, size, generator=torch.Generator().manual_seed(1)))


def nest(record):
    """A record as torchvision's transforms take it."""
    size = record.image.shape[:2]
    return {
        "image": tv_tensors.Image(torch.tensor(record.image).permute(2, 0, 1)),
        "mask": tv_tensors.Mask(torch.tensor(record.mask)),
        "landmarks": tv_tensors.KeyPoints(torch.tensor(record.landmarks), canvas_size=size),
        "key": record.key,
    }


@pytest.mark.parametrize(
    "transform", [RandomGray(1), RandomGamma(), RandomBoxBlur(0.2), RandomOcclusion(), NoiseFusion(1)]
)
def test_photometric_transforms_change_pictures_alone(transform):
    face = nest(records()[0])
    with keyed_rng(3):
        changed = transform(face)
    assert isinstance(changed["image"], tv_tensors.Image)
    assert changed["image"].dtype == torch.uint8
    assert not torch.equal(changed["image"], face["image"])
    assert torch.equal(changed["mask"], face["mask"])
    assert torch.equal(changed["landmarks"], face["landmarks"])
    with keyed_rng(3):
        assert torch.equal(transform(face)["image"], changed["image"])
    with keyed_rng(3):  # a plain tensor is a picture, and a batch is drawn for once
        pair = transform(torch.stack([face["image"], face["image"]]).as_subclass(torch.Tensor))
    assert torch.equal(pair[0], changed["image"].as_subclass(torch.Tensor))


def test_the_draw_decides_what_is_done():
    image = picture().as_subclass(torch.Tensor)
    assert torch.equal(RandomGray().transform(image, {"gray": True}), to_gray(image))
    assert torch.equal(RandomGray().transform(image, {"gray": False}), image)
    assert torch.equal(RandomGamma().transform(image, {"octave": -1}), change_gamma(image, -1))
    assert torch.equal(RandomBoxBlur().transform(image, {"size": 3}), box_blur(image, 3))
    black = RandomOcclusion().transform(image, {"rectangle": (1, 2, 5, 9)})
    assert (black[:, 2:9, 1:5] == 0).all()
    assert torch.equal(NoiseFusion().transform(image, {"alpha": 0.0, "seed": 1}), image)


def test_uint8_pictures_are_rounded():
    image = tv_tensors.Image(torch.tensor([0, 1, 4, 100, 255], dtype=torch.uint8).expand(3, 1, 5))
    squared = RandomGamma().transform(image, {"octave": 1})
    assert squared[0, 0].tolist() == pytest.approx([0, 0, 0, 100 * 100 / 255, 255], abs=1)


def test_probabilities_of_every_draw():
    image, draws = picture(), {}
    for transform, name in ((RandomGray(0.3), "gray"), (RandomGamma(), "octave"), (RandomBoxBlur(0.1), "size")):
        with keyed_rng(name):
            draws[name] = [transform.make_params([image])[name] for _ in range(2000)]
    assert sum(draws["gray"]) / 2000 == pytest.approx(0.3, abs=0.05)
    assert [draws["octave"].count(octave) / 2000 for octave in (-1, 0, 1)] == pytest.approx([1 / 3] * 3, abs=0.05)
    assert [draws["size"].count(size) / 2000 for size in range(4)] == pytest.approx([0.25] * 4, abs=0.05)
    with keyed_rng("rest"):
        boxes = [RandomOcclusion(0.2).make_params([image])["rectangle"] for _ in range(2000)]
        shares = [NoiseFusion(0.25, 0.4).make_params([image])["alpha"] for _ in range(2000)]
    assert sum(box is not None for box in boxes) / 2000 == pytest.approx(0.2, abs=0.04)
    mixed = [share for share in shares if share]
    assert len(mixed) / 2000 == pytest.approx(0.25, abs=0.04)
    assert max(mixed) <= 0.4
    assert np.mean(mixed) == pytest.approx(0.2, abs=0.02)


def test_noise_is_even_and_named_by_its_seed():
    image = torch.zeros(3, 100, 101)
    noise = NoiseFusion().transform(image, {"alpha": 1.0, "seed": 5})
    assert noise.min() >= 0
    assert noise.max() < 1
    shares = torch.histc(noise, 10, 0, 1) / noise.numel()
    assert shares.tolist() == pytest.approx([0.1] * 10, abs=0.01)
    assert torch.equal(noise, NoiseFusion().transform(image, {"alpha": 1.0, "seed": 5}))
    assert not torch.equal(noise, NoiseFusion().transform(image, {"alpha": 1.0, "seed": 6}))
    assert torch.corrcoef(torch.stack([noise[0, :, :-1].flatten(), noise[0, :, 1:].flatten()]))[0, 1].abs() < 0.05


def test_affine_moves_picture_mask_and_points_together():
    face = nest(records(size=160)[0])
    change = RandomFaceAffine(0.1, 0.5, 0.2, "uniform")
    for seed in range(5):
        with keyed_rng(seed):
            moved = change(face)
        for label, corners in zip(EYES["lapa"], (range(36, 42), range(42, 48)), strict=True):
            feature = centroid(moved["mask"], label)
            assert (feature - area_centroid(moved["landmarks"].as_subclass(torch.Tensor)[list(corners)])).norm() < 1
        # the picture of the mask moves as the mask does (their borders differ: nearest against bilinear)
        with keyed_rng(seed):
            painted = change(face | {"image": tv_tensors.Image((face["mask"] == 1).float()[None])})
        assert ((painted["image"][0] > 0.5) == (moved["mask"] == 1)).float().mean() > 0.995
        assert moved["image"].dtype == torch.uint8
        assert isinstance(moved["landmarks"], tv_tensors.KeyPoints)


def test_affine_by_hand():
    # a quarter turn clockwise about the centre, then one pixel to the right
    matrix = affine_matrix((0.25, 0.0, np.pi / 2, 1.0), (4, 4))
    image = torch.arange(16.0).view(1, 4, 4)
    moved = RandomFaceAffine().transform(image, {"matrix": matrix, "size": (4, 4)})
    expected = torch.rot90(image, -1, (-2, -1)).roll(1, -1)
    expected[..., 0] = 0
    torch.testing.assert_close(moved, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("distribution", "largest"), [("uniform", 1.0), ("normal", 5.0)])
def test_affine_draws(distribution, largest):
    change = RandomFaceAffine(0.05, 0.2, 0.1, distribution, zoom_mean=0.8)
    with keyed_rng(0):
        draws = np.array([change.draw() for _ in range(3000)])
    assert np.abs(draws[:, :2]).max() == pytest.approx(0.05, rel=0.01)
    spread = 1 / 3**0.5 if distribution == "uniform" else 1.0
    assert draws[:, 2].std() == pytest.approx(0.2 * spread, rel=0.05)
    assert draws[:, 3].mean() == pytest.approx(0.8, abs=0.01)
    assert draws[:, 3].std() == pytest.approx(0.1 * spread, rel=0.05)
    assert np.abs(draws[:, 2]).max() <= 0.2 * largest


@pytest.mark.parametrize(("mask", "count"), [("lapa", 68), ("celebamask", 98), ("lapa", 19)])
def test_a_flip_keeps_left_on_the_left(mask, count):
    record = records(mask=mask, landmarks=count)[0]
    spec = SyntheticFaces.spec(128, {"lapa": 11, "celebamask": 19}[mask], count)
    flipped = RandomFaceFlip(1.0, spec.class_flips, spec.landmark_flips)(nest(record))
    left, right = EYES[mask]
    # the eye on the image's left was on its right, has that eye's shape, and is called the left one
    assert centroid(flipped["mask"], left)[0] < centroid(flipped["mask"], right)[0]
    torch.testing.assert_close(
        centroid(flipped["mask"], left), torch.tensor([127.0, 0]) + centroid(record.mask, right) * torch.tensor([-1, 1])
    )
    assert (flipped["mask"] == left).sum() == (record.mask == right).sum()
    points = flipped["landmarks"].as_subclass(torch.Tensor)
    groups = spec.landmark_groups
    for name in ("left_eye", "right_eye"):
        label = left if name == "left_eye" else right
        assert (points[list(groups[name])].mean(0) - centroid(flipped["mask"], label)).norm() < 3
    for first, second in spec.landmark_flips:  # every named point is still on its own side of the face
        before, after = record.landmarks[first] - record.landmarks[second], points[first] - points[second]
        assert after[0].item() == pytest.approx(before[0], abs=1e-3)
        assert after[1].item() == pytest.approx(-before[1], abs=1e-3)
    torch.testing.assert_close(flipped["image"][..., 0], torch.tensor(record.image[:, -1]).T)


def test_a_wrong_pairing_would_be_noticed():
    record = records()[0]
    unpaired = RandomFaceFlip(1.0)(nest(record))
    assert centroid(unpaired["mask"], 4)[0] > centroid(unpaired["mask"], 5)[0]


def test_two_flips_are_none_and_p_decides():
    face = nest(records()[0])
    flip = RandomFaceFlip(1.0, ((2, 3), (4, 5)), landmark_flips(68))
    twice = flip(flip(face))
    for name in ("image", "mask", "landmarks"):
        torch.testing.assert_close(twice[name], face[name])
    assert torch.equal(RandomFaceFlip(0.0)(face)["image"], face["image"])


def test_labels_and_points_are_exchanged_by_pairs():
    mask = torch.tensor([[0, 1, 2], [3, 255, 1]])
    assert swap_labels(mask, ((1, 3),)).tolist() == [[0, 3, 2], [1, 255, 3]]
    assert swap_labels(mask, ()).dtype == torch.int64
    assert swap_points(torch.arange(3.0)[:, None], ((0, 2),)).flatten().tolist() == [2, 1, 0]
    with pytest.raises(ConfigError, match=r"\[\(0, 7\)\] name landmarks beyond the 3"):
        swap_points(torch.zeros(3, 2), ((0, 1), (0, 7)))


def test_a_chain_draws_first_and_changes_later():
    chain = PhotometricChain([RandomOcclusion(), NoiseFusion(1), RandomGray(0.5), RandomGamma(), RandomBoxBlur(0.2)])
    image = picture().as_subclass(torch.Tensor)
    with keyed_rng(9):
        draws = chain.draw(image)
    with keyed_rng(9):
        expected = v2.Compose(chain.steps)(image)
    torch.testing.assert_close(chain.apply(image.clone(), draws), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomGray(1.5), "p is a probability from 0 to 1, got 1.5"),
        (lambda: NoiseFusion(0.5, -1), "strength is a probability"),
        (lambda: RandomBoxBlur(2), "blur windows are a share"),
        (lambda: RandomFaceAffine(distribution="gauss"), "distribution 'gauss' is unknown"),
        (lambda: RandomFaceAffine(zoom=1.0), "zoom below zoom_mean, got .* zoom=1.0"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
