"""Test-time augmentation on pixels: views are what they say, and come back to where they were."""

from __future__ import annotations

import pytest
import torch

from farl_lightning.errors import ConfigError
from farl_lightning.functional.views import View, make_views, merge_logits, merge_points, swap_order, view_images

BLACK = torch.tensor([-1.0, -2.0, -3.0])
PLAIN, MIRROR = View(), View(flip=True)


def test_views_are_listed_once_and_the_plain_one_first():
    assert make_views() == [PLAIN]
    assert make_views([1.2, 1.0, 0.8], flip=True) == [
        View(1.0), View(1.0, True), View(1.2), View(1.2, True), View(0.8), View(0.8, True),
    ]  # fmt: skip
    assert [view.plain for view in make_views([0.5])] == [True, False]
    with pytest.raises(ConfigError, match=r"tta_scales has \[0, -1\.0\]"):
        make_views([0, 1.1, -1.0])


def test_swap_order_is_its_own_inverse():
    order = swap_order(6, [(1, 2), (3, 5)])
    assert order == [0, 2, 1, 5, 4, 3]
    assert [order[place] for place in order] == list(range(6))


def test_the_mirror_is_exact_and_zoom_shows_what_it_says():
    images = torch.randn(2, 3, 9, 9)
    assert view_images(images, PLAIN, BLACK) is images
    assert torch.equal(view_images(images, MIRROR, BLACK), images.flip(-1))
    small = view_images(images, View(0.5), BLACK)
    torch.testing.assert_close(small[:, :, 2:7, 2:7], images[:, :, ::2, ::2])  # the centre is pixel 4
    assert torch.equal(small[:, :, 0, 0], BLACK.expand(2, 3))
    large = view_images(images, View(2.0), BLACK)
    torch.testing.assert_close(large[:, :, ::2, ::2], images[:, :, 2:7, 2:7])


def eyes(flip: bool) -> torch.Tensor:
    """Logits of a perfect network: class 1 is the eye on the image's left, class 2 the one on its right."""
    logits = torch.zeros(1, 3, 8, 8)
    logits[:, 0] = 1.0
    logits[:, 1, 2, 1], logits[:, 2, 2, 5] = 9.0, 9.0
    if flip:  # it sees the mirrored face, and again names the eyes by the side on which they lie
        logits = logits.flip(-1)[:, [0, 2, 1]]
    return logits


def test_mirrored_logits_swap_classes_and_pixels():
    both = merge_logits([PLAIN, MIRROR], [eyes(False), eyes(True)], [(1, 2)])
    assert torch.equal(both, eyes(False))
    assert both.argmax(1)[0, 2, 1] == 1
    assert both.argmax(1)[0, 2, 5] == 2
    wrong = merge_logits([PLAIN, MIRROR], [eyes(False), eyes(True)])  # without the pairs, sides contradict each other
    assert not torch.equal(wrong, eyes(False))


def test_zoomed_logits_come_back_and_count_only_where_they_show_something():
    truth = torch.arange(81.0).view(1, 1, 9, 9)
    enlarged = view_images(truth.expand(1, 3, 9, 9), View(2.0), torch.zeros(3))[:, :1]
    merged = merge_logits([PLAIN, View(2.0)], [truth, enlarged])
    torch.testing.assert_close(merged, truth)  # the enlarged view knows nothing of the rim, and does not spoil it
    merged = merge_logits([PLAIN, View(2.0)], [truth, enlarged + 10])
    torch.testing.assert_close(merged[0, 0, 3:6, 3:6], truth[0, 0, 3:6, 3:6] + 5)
    assert torch.equal(merged[0, 0, 0], truth[0, 0, 0])


def test_mirrored_landmarks_swap_places():
    truth = torch.tensor([[[1.0, 2.0], [5.0, 2.0], [3.0, 6.0]]])
    mirrored = torch.tensor([[[2.0, 2.0], [6.0, 2.0], [4.0, 6.0]]])  # left eye, right eye, mouth of the mirrored face
    merged = merge_points([PLAIN, MIRROR], [truth, mirrored], 8, [(0, 1)])
    torch.testing.assert_close(merged, truth)


@pytest.mark.parametrize("zoom", [0.5, 2.0])
def test_zoomed_landmarks_come_back(zoom):
    truth = torch.tensor([[[3.0, 4.0], [0.5, 8.0]]])
    seen = (truth - 4) * zoom + 4
    seen[0, 1] += 0.0 if zoom < 1 else 99.0  # outside of the enlarged view: whatever it says does not count
    merged = merge_points([PLAIN, View(zoom)], [truth, seen], 9)
    torch.testing.assert_close(merged, truth)
    moved = merge_points([PLAIN, View(zoom)], [truth, seen + 2 * zoom], 9)
    torch.testing.assert_close(moved[0, 0], truth[0, 0] + 1)


def test_mirror_and_zoom_together_equal_one_after_the_other():
    images = torch.randn(1, 3, 9, 9)
    both = view_images(images, View(0.8, True), BLACK)
    torch.testing.assert_close(both, view_images(images, View(0.8), BLACK).flip(-1))
    truth = torch.tensor([[[2.0, 3.0], [7.0, 3.0]]])
    seen = ((truth - 4) * 0.8 * torch.tensor([-1.0, 1.0]) + 4)[:, [1, 0]]
    torch.testing.assert_close(merge_points([PLAIN, View(0.8, True)], [truth, seen], 9, [(0, 1)]), truth)
