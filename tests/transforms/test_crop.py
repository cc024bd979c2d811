from __future__ import annotations

import math

import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from farl_lightning.errors import ConfigError
from farl_lightning.functional.geometry import align_matrix, apply_matrix
from farl_lightning.functional.random import keyed_rng
from farl_lightning.transforms.crop import CropError, FaceCrop, Region, center_square, random_window, visible_box

POINTS = [[30.0, 40], [70, 46], [49, 61], [34, 78], [64, 83]]


def test_whole_picture_in_training_and_centre_in_evaluation():
    crop = FaceCrop("none")
    assert crop((100, 60), train=True) == Region.from_box(0, 0, 100, 60)
    assert crop((100, 60)) == Region.from_box(20, 0, 80, 60) == center_square(100, 60)
    assert FaceCrop("center")((60, 100), train=True) == Region.from_box(0, 20, 60, 80)


def test_box_is_a_square_with_the_middle_margin():
    region = FaceCrop("box", margin=(0.2, 0.6))((500, 400), box=(100, 100, 150, 200))
    assert region.bounds == pytest.approx((125 - 90, 150 - 90, 125 + 90, 150 + 90))


def test_box_margin_is_drawn_from_its_range():
    crop = FaceCrop("box", margin=(0.1, 0.5))
    sides = []
    for index in range(200):
        with keyed_rng(index):
            sides.append(crop((500, 400), box=(100, 100, 200, 180), train=True).width)
    assert 120 <= min(sides) < 125
    assert 195 < max(sides) <= 200


def test_box_is_cut_to_the_picture_before_it_grows():
    region = FaceCrop("box", margin=(0, 0))((100, 100), box=(-1e9, 50, 1e9, 60))
    assert region.bounds == pytest.approx((0, 5, 100, 105))


def test_align_agrees_with_the_align_matrix():
    region = FaceCrop("align", align_scale=0.9, size=112)((300, 300), landmarks=POINTS)
    matrix = align_matrix(torch.tensor(POINTS, dtype=torch.float64), 112, scale=0.9)
    # the crop's corners are half a pixel outside the centres of its corner pixels
    corners = (
        torch.tensor([[region.x, region.y], [region.x + region.ux, region.y + region.uy]], dtype=torch.float64) - 0.5
    )
    expected = torch.tensor([[-0.5, -0.5], [111.5, -0.5]], dtype=torch.float64)
    torch.testing.assert_close(apply_matrix(corners, matrix), expected)
    assert not region.is_upright
    assert region.width == pytest.approx(region.height)


@pytest.mark.parametrize(
    ("policy", "given", "message"),
    [
        ("box", {}, "needs a face box"),
        ("box", {"box": (200, 10, 250, 20)}, r"does not meet the picture of 100 x 80"),
        ("box", {"box": (10, 10, 10, 20)}, "does not meet"),
        ("box", {"box": (math.nan, 10, 20, 20)}, "does not meet"),
        ("align", {}, "needs landmarks"),
        ("align", {"landmarks": POINTS[:3]}, r"needs 5 .*\(3, 2\)"),
        ("align", {"landmarks": [[5, 5]] * 5}, "one spot"),
        ("align", {"landmarks": [[5, math.nan]] * 5}, "not finite"),
        ("align", {"landmarks": [[x + 4000, y] for x, y in POINTS]}, "does not meet"),
    ],
)
def test_useless_boxes_and_landmarks_are_refused(policy, given, message):
    with pytest.raises(CropError, match=message):
        FaceCrop(policy)((100, 80), **given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": "aligned"}, "Did you mean 'align'"),
        ({"margin": (0.5, 0.2)}, "margin"),
        ({"align_scale": 0.0}, "align_scale must be above 0, got 0.0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        FaceCrop(**settings)


def test_visible_box_keeps_what_is_inside():
    assert visible_box((-5, 3, 50, 200), (40, 100)) == (0, 3, 40, 100)


def test_window_and_scaled_follow_the_sides():
    region = Region(10, 20, 30, 40, -40, 30)
    part = region.window(0.5, 0.0, 1.0, 0.1)
    assert part == pytest.approx((25, 40, 15, 20, -4, 3))
    assert (part.width, part.height) == pytest.approx((25, 5))
    assert region.scaled(0.5, 2) == (5, 40, 15, 80, -20, 60)
    assert region.bounds == (-30, 20, 40, 90)


def test_windows_are_distributed_as_torchvisions():
    scale, ratio, size = (0.3, 0.9), (0.6, 1.5), (200, 120)
    region, picture = Region.from_box(0, 0, *size), Image.new("RGB", size)
    torch.manual_seed(0)
    ours, theirs = [], []
    for _ in range(1500):
        left, top, right, bottom = random_window(region, scale, ratio).bounds
        ours.append((top, left, bottom - top, right - left))
        theirs.append(_reference(picture, scale, ratio))
    ours, theirs = torch.tensor(ours), torch.tensor(theirs, dtype=torch.float32)
    error = (ours.var(0) / len(ours) + theirs.var(0) / len(theirs)).sqrt()
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 4 * error + 0.5).all()
    assert ((ours.std(0) / theirs.std(0)).log().abs() < 0.15).all()


def _reference(picture, scale, ratio):
    params = v2.RandomResizedCrop(8, scale, ratio).make_params([picture])
    return params["top"], params["left"], params["height"], params["width"]


def test_windows_keep_their_range_in_a_turned_region():
    turned = Region(100, 50, 60, 80, -80, 60)
    torch.manual_seed(0)
    for _ in range(100):
        part = random_window(turned, (0.4, 0.5), (0.8, 1.25))
        assert 0.4 - 1e-6 <= part.width * part.height / 10_000 <= 0.5 + 1e-6
        assert 0.8 - 1e-6 <= part.width / part.height <= 1.25 + 1e-6


def test_impossible_windows_fall_back_to_the_largest_allowed_one():
    wide = random_window(Region.from_box(0, 0, 400, 10), (0.9, 1.0), (0.5, 2.0))
    assert wide.bounds == pytest.approx((190, 0, 210, 10))
    whole = random_window(Region.from_box(3, 4, 13, 14), (1.0, 1.0), (1.0, 1.0))
    assert whole.bounds == pytest.approx((3, 4, 13, 14))
