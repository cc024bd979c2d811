"""Labels and landmarks back in the source picture: against a direct computation, in bands, and in bounded memory."""

from __future__ import annotations

import math

import pytest
import torch

from farl_lightning.functional.geometry import align_matrix, apply_matrix, box_matrix, template_points
from farl_lightning.functional.restore import restore_labels, restore_landmarks
from farl_lightning.functional.warp import points_to_crop, sample, source_to_crop_grid


def turned(size: tuple[int, int], crop: int, degrees: float = 20.0, share: float = 0.6) -> torch.Tensor:
    """A crop around the middle of a picture, turned."""
    height, width = size
    side, angle = share * min(size), math.radians(degrees)
    cos, sin = math.cos(angle) * crop / side, math.sin(angle) * crop / side
    linear = torch.tensor([[cos, -sin], [sin, cos]])
    shift = (crop - 1) / 2 - linear @ torch.tensor([(width - 1) / 2, (height - 1) / 2])
    return torch.cat([torch.cat([linear, shift[:, None]], 1), torch.tensor([[0.0, 0.0, 1.0]])])


def whole(logits, matrix, size, factor=0.0, convention="blueprint"):
    """The reference: everything at once."""
    grid = source_to_crop_grid(matrix[None], size, logits.shape[-1], factor, convention)
    return sample(logits[None], grid)[0].argmax(0).to(torch.uint8)


@pytest.mark.parametrize("convention", ["blueprint", "facer"])
@pytest.mark.parametrize("factor", [0.0, 0.8])
@pytest.mark.parametrize("size", [(97, 61), (40, 90), (1, 1), (300, 200)])
def test_bands_equal_the_whole_exactly(factor, size, convention):
    torch.manual_seed(0)
    logits = torch.randn(5, 32, 32)
    matrix = turned(size, 32)
    expected = whole(logits, matrix, size, factor, convention)
    for band in (1, 1000, 1 << 22):
        labels = restore_labels(logits, matrix, size, factor, convention=convention, band_values=band)
        assert labels.dtype == torch.uint8
        assert torch.equal(labels, expected)
    assert len(expected.unique()) > 1 or size == (1, 1)


def test_outside_of_the_crop_is_background():
    logits = torch.full((3, 8, 8), -1.0)
    logits[2] = 5.0
    labels = restore_labels(logits, box_matrix(torch.tensor([3.5, 1.5, 11.5, 9.5]), 8), (20, 30))
    assert labels[2:10, 4:12].eq(2).all()
    assert labels.count_nonzero() == 64


def test_a_crop_beside_the_picture_and_one_that_cannot_be_inverted_in_numbers():
    logits = torch.ones(3, 8, 8)
    logits[0] = 0
    beside = box_matrix(torch.tensor([100.0, 100.0, 120.0, 120.0]), 8)
    assert restore_labels(logits, beside, (20, 30)).count_nonzero() == 0
    broken = torch.tensor([[math.nan, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert restore_labels(logits, broken, (20, 30)).count_nonzero() == 0


def test_logits_are_interpolated_and_labels_are_not():
    """Between two pixels of other classes the border lies where their logits cross, at three quarters."""
    logits = torch.tensor([[[3.0, -1.0]], [[0.0, 0.0]]]).expand(2, 2, 2).contiguous()
    matrix = torch.diag(torch.tensor([0.125, 0.125, 1.0]))  # eight pixels of the source for one of the crop
    row = restore_labels(logits, matrix, (1, 9))[0]
    assert row.tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 1]  # at 6/8 both are 0: the first class wins


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_type(dtype):
    logits = torch.randint(-4, 5, (4, 16, 16)).to(dtype)
    matrix = turned((50, 40), 16)
    assert torch.equal(restore_labels(logits, matrix, (50, 40)), whole(logits.float(), matrix, (50, 40)))


@pytest.mark.parametrize("factor", [0.0, 0.8])
def test_landmarks_come_back_and_have_gradients(factor):
    five = template_points(200) + torch.tensor([[30.0, 10.0]])
    matrix = align_matrix(five[None], 64)
    points = torch.tensor([[[100.0, 90.0], [140.5, 120.25], [80.0, 150.0]]], dtype=torch.float64)
    crop = points_to_crop(points, matrix.double(), 64, factor).requires_grad_()
    back = restore_landmarks(crop, matrix.double(), 64, factor)
    torch.testing.assert_close(back, points)
    assert torch.autograd.gradcheck(lambda p: restore_landmarks(p, matrix.double(), 64, factor), crop)


def test_landmarks_of_half_precision_are_mapped_in_single_precision():
    matrix = torch.diag(torch.tensor([0.01, 0.01, 1.0]))[None]
    back = restore_landmarks(torch.tensor([[[30.0, 20.0]]], dtype=torch.bfloat16), matrix, 64)
    assert back.dtype == torch.float32
    torch.testing.assert_close(apply_matrix(back, matrix), torch.tensor([[[30.0, 20.0]]]))
