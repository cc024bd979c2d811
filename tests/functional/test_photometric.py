from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from farl_lightning.functional.photometric import (
    Rectangle,
    box_blur,
    change_gamma,
    fuse_noise,
    occlude,
    occlusion_rectangle,
    to_gray,
)


def images(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_gray_weighs_the_colours():
    picture = torch.tensor([0.2, 0.5, 0.9]).view(3, 1, 1).expand(3, 2, 2)
    gray = to_gray(picture)
    assert gray.shape == (3, 2, 2)
    assert gray.flatten().tolist() == pytest.approx([0.299 * 0.2 + 0.587 * 0.5 + 0.114 * 0.9] * 12)
    batch = images(2, 3, 4, 5)
    assert torch.equal(to_gray(batch)[1], to_gray(batch[1]))


def test_gamma_by_hand_and_out_of_place():
    picture = torch.tensor([-0.1, 0.0, 0.25, 1.0, 1.5])
    assert change_gamma(picture, -1).tolist() == [0, 0, 0.5, 1, 1]
    assert change_gamma(picture, 0).tolist() == [0, 0, 0.25, 1, 1]
    assert change_gamma(picture, 1).tolist() == [0, 0, 0.0625, 1, 1]
    assert picture[0].item() == pytest.approx(-0.1)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7, 8, 11, 16])
def test_blur_is_the_mean_of_a_mirrored_window(size):
    picture = images(2, 3, 17, 19)
    before = size // 2
    padded = F.pad(picture, (before, size - 1 - before, before, size - 1 - before), mode="reflect")
    torch.testing.assert_close(box_blur(picture, size), F.avg_pool2d(padded, size, 1))


def test_blur_below_two_pixels_is_none_and_even_windows_reach_left():
    picture = torch.zeros(1, 5, 5)
    picture[0, 2, 2] = 4
    assert box_blur(picture, 0) is picture
    assert box_blur(picture, 1) is picture
    assert box_blur(picture, 2)[0].nonzero().tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]


def test_rectangles_by_hand():
    # height 0.5 * 100 / 2 = 25 -> 12 to either side; width (0.5 - 0.2 + 0.3) * 80 / 2 = 24 -> 12
    assert occlusion_rectangle([0.5, 0.75, 0.5, 0.25], (100, 80)) == Rectangle(39 - 12, 24 - 12, 39 + 13, 24 + 13)
    # the largest, in the corner
    assert occlusion_rectangle([0.9999, 0.9999, 0.0, 0.0], (100, 80)) == Rectangle(0, 0, 20, 20)
    # the smallest is one pixel wide, and inside
    assert occlusion_rectangle([0.0, 0.0, 0.9999, 0.9999], (100, 80)) == Rectangle(78, 93, 79, 104 - 4)


def test_occlusion_is_black_and_nothing_else_changes():
    picture = images(2, 3, 10, 12) + 0.1
    hidden = occlude(picture, Rectangle(3, 4, 7, 9))
    assert (hidden[..., 4:9, 3:7] == 0).all()
    assert ((hidden == 0).sum((1, 2, 3)) == 3 * 5 * 4).all()
    assert torch.equal(hidden[..., :3], picture[..., :3])
    assert (picture > 0).all()


def test_noise_is_mixed_by_share():
    picture, noise = images(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.5)
    torch.testing.assert_close(fuse_noise(picture, noise, 0.3), 0.7 * picture + 0.15)
    mixed = fuse_noise(picture, noise, torch.tensor([0.0, 1.0]).view(2, 1, 1, 1))
    torch.testing.assert_close(mixed, torch.stack([picture[0], noise[1]]))


@pytest.mark.parametrize(
    "change",
    [
        lambda x, inplace: change_gamma(x, -1, inplace=inplace),
        lambda x, inplace: change_gamma(x, 1, inplace=inplace),
        lambda x, inplace: box_blur(x, 4, inplace=inplace),
        lambda x, inplace: occlude(x, Rectangle(1, 2, 5, 6), inplace=inplace),
        lambda x, inplace: fuse_noise(x, torch.full_like(x, 0.5), 0.3, inplace=inplace),
    ],
)
def test_in_place_means_the_same_in_the_same_memory(change):
    picture, kept = images(2, 3, 9, 11), images(2, 3, 9, 11)
    changed = change(picture, False)
    assert torch.equal(picture, kept)
    assert change(picture, True) is picture
    assert torch.equal(picture, changed)
    assert not torch.equal(picture, kept)
