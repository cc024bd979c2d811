from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from farl_lightning.transforms.crop import FaceCrop, Region
from farl_lightning.transforms.sample import LoadedImage, as_source, cut


def smooth(width: int, height: int) -> Image.Image:
    """A picture whose colours are its coordinates: red grows to the right, green downwards."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([255 * x / width, 255 * y / height, 0 * x + 90], -1).round().astype(np.uint8))


def noisy(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("box", [(10, 5, 138, 101), (3, 2, 35, 34), (0, 0, 160, 120)])
def test_resizing_gives_pillows_pixels(interpolation, box):
    picture = noisy(160, 120)
    ours = cut(LoadedImage(picture), Region.from_box(*box), 48, interpolation)
    assert ours.shape == (3, 48, 48)
    assert ours.dtype == torch.uint8
    method = getattr(Image.Resampling, interpolation.upper())
    theirs = torch.from_numpy(np.array(picture.crop(box).resize((48, 48), method))).permute(2, 0, 1)
    assert (ours.int() - theirs.int()).abs().max() <= 1


def test_outside_of_the_picture_is_black():
    crop = cut(LoadedImage(Image.new("RGB", (40, 40), "white")), Region.from_box(-20, -20, 20, 20), 32)
    assert (crop[:, :14, :] == 0).all()
    assert (crop[:, :, :14] == 0).all()
    assert (crop[:, 19:, 19:] == 255).all()


def test_a_turned_region_samples_where_it_says():
    picture = smooth(300, 200)
    region = Region(120, 40, 64, 48, -48, 64)
    crop = cut(LoadedImage(picture), region, 80, "bilinear").float()
    row, column = torch.meshgrid(torch.arange(80), torch.arange(80), indexing="ij")
    u, v = (column + 0.5) / 80, (row + 0.5) / 80
    x, y = region.x + u * region.ux + v * region.vx - 0.5, region.y + u * region.uy + v * region.vy - 0.5
    torch.testing.assert_close(crop[0], 255 * x / 300, atol=1.5, rtol=0)
    torch.testing.assert_close(crop[1], 255 * y / 200, atol=1.5, rtol=0)
    # half a pixel off would be 0.4 and 0.6 grey levels on average
    assert abs((crop[0] - 255 * x / 300).mean()) < 0.1
    assert abs((crop[1] - 255 * y / 200).mean()) < 0.1


def test_an_almost_upright_region_equals_the_upright_one():
    picture = Image.fromarray(np.array(noisy(12, 9).resize((400, 300), Image.Resampling.BICUBIC)))
    upright = cut(LoadedImage(picture), Region.from_box(40, 30, 296, 286), 64).float()
    turned = cut(LoadedImage(picture), Region(40, 30, 256, 1e-6, 1e-6, 256), 64).float()
    assert (upright - turned).abs().mean() < 1.5


def test_a_turned_shrinking_crop_is_antialiased():
    """Stripes far finer than the crop's pixels become grey; without antialiasing they would alias."""
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    angle = math.radians(10)
    u = (400 * math.cos(angle), 400 * math.sin(angle))
    crop = cut(LoadedImage(Image.fromarray(stripes)), Region(80, 20, *u, -u[1], u[0]), 40).float()
    assert crop.mean() == pytest.approx(127.5, abs=2)
    assert crop.std() < 4


def test_aligned_landmarks_land_on_the_template():
    template = [(-0.5, -0.5), (0.5, -0.5), (0.0, 0.0), (-0.4, 0.5), (0.4, 0.5)]
    c, s = 90 * math.cos(0.4), 90 * math.sin(0.4)
    points = [(200 + c * x - s * y, 150 + s * x + c * y) for x, y in template]
    x, y = np.meshgrid(np.arange(400), np.arange(300))
    blob = 250 * np.exp(-((x - points[1][0]) ** 2 + (y - points[1][1]) ** 2) / 50)
    picture = Image.fromarray(np.stack([blob, 0 * blob, 0 * blob], -1).round().astype(np.uint8))
    crop = FaceCrop("align", template=template, size=64)
    red = cut(LoadedImage(picture), crop(picture.size, landmarks=points), 64)[0].double()
    row, column = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    center = (float((red * column).sum() / red.sum()), float((red * row).sum() / red.sum()))
    assert center == pytest.approx((1.5 * 31.5, 0.5 * 31.5), abs=0.03)


def test_arrays_and_grey_pictures_are_accepted():
    array = np.full((8, 8, 3), 7, np.uint8)
    assert (cut(as_source(array), Region.from_box(0, 0, 8, 8), 8) == 7).all()
    grey = cut(as_source(Image.new("L", (8, 8), 9)), Region.from_box(0, 0, 8, 8), 4)
    assert grey.shape == (3, 4, 4)
    assert (grey == 9).all()


def test_the_source_is_asked_for_no_more_than_needed():
    asked = []

    class Spy(LoadedImage):
        def load(self, scale: float = 1.0) -> Image.Image:
            asked.append(scale)
            return super().load(scale).resize((100, 50))

    crop = cut(Spy(smooth(400, 200)), Region.from_box(200, 0, 400, 200), 40)
    assert asked == [pytest.approx(0.2)]
    assert crop[0, 0, 0] == pytest.approx(127.5, abs=4)  # the right half, although the decoded picture is smaller
    assert crop[0, 0, -1] == pytest.approx(255, abs=6)


def test_far_larger_regions_than_the_picture_stay_cheap():
    crop = cut(LoadedImage(Image.new("RGB", (50, 50), "white")), Region(-1e6, -1e6, 2e6, 10, -10, 2e6), 32)
    assert crop.shape == (3, 32, 32)
    assert crop.float().mean() < 1
