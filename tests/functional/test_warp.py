from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from farl_lightning.errors import ConfigError
from farl_lightning.functional.geometry import align_matrix, invert_matrix, similarity_matrix
from farl_lightning.functional.warp import (
    Warp,
    crop_to_source_grid,
    points_to_crop,
    points_to_source,
    read,
    sample,
    source_to_crop_grid,
    tanh_forward,
    tanh_inverse,
)

SIZE = (20, 28)
FACES = torch.tensor(
    [[[30.0, 40], [70, 42], [51, 61], [36, 80], [66, 81]], [[12.0, 15], [20, 11], [18, 17], [16, 24], [23, 21]]],
    dtype=torch.float64,
)
MATRIX = align_matrix(FACES, SIZE)
CONVENTIONS = ["blueprint", "facer"]


def test_squeeze_by_hand():
    # f = 0.5 on 8 pixels: u = 2 * 7.2 / 8 - 1 = 0.8 -> tanh(0.6) / 2 + 0.5; u = 0.25 stays; far out ends at the rim
    points = torch.tensor([[7.2, 5.0], [-1e4, 1e4]], dtype=torch.float64)
    rim = (math.tanh(0.6) / 2 + 0.5 + 1) * 4
    expected = torch.tensor([[rim, 5.0], [0.0, 8.0]], dtype=torch.float64)
    torch.testing.assert_close(tanh_forward(points, 8, 0.5), expected)
    # the inverse ends where the tanh has 0.999 of its range
    end = (math.atanh(0.999) * 0.5 + 0.5 + 1) * 4
    torch.testing.assert_close(
        tanh_inverse(torch.tensor([[rim, 8.0]], dtype=torch.float64), 8, 0.5),
        torch.tensor([[7.2, end]], dtype=torch.float64),
    )


def test_factor_0_is_the_identity():
    points = torch.randn(5, 2) * 100
    assert tanh_forward(points, 8, 0.0) is points
    assert tanh_inverse(points, 8, 0.0) is points


@pytest.mark.parametrize("factor", [0.3, 0.8, 1.0])
def test_each_axis_has_its_own_size(factor):
    points = torch.tensor([[25.0, 18.0]], dtype=torch.float64)
    both = tanh_forward(points, (20, 28), factor)
    assert both[0, 0] == tanh_forward(points, 28, factor)[0, 0]
    assert both[0, 1] == tanh_forward(points, 20, factor)[0, 1]


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("factor", [0.0, 0.5, 0.8, 1.0])
def test_back_and_forth_is_the_identity(factor, convention):
    inside = torch.rand(2, 50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    points = (inside * 1.2 - 0.1) * torch.tensor([28.0, 20])  # beyond the crop too
    source = points_to_source(tanh_forward(points + 0.5, SIZE, factor) - 0.5, MATRIX, SIZE, factor, convention)
    crop = points_to_crop(source, MATRIX, SIZE, factor, convention)
    torch.testing.assert_close(points_to_source(crop, MATRIX, SIZE, factor, convention), source, atol=1e-7, rtol=0)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("factor", [0.0, 0.8, 1.0])
def test_grids_are_points_of_every_pixel(factor, convention):
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(28.0), indexing="ij")
    pixels = torch.stack([x, y], -1).double().view(1, -1, 2).expand(2, -1, -1)
    grid = crop_to_source_grid(MATRIX, SIZE, factor, convention)
    torch.testing.assert_close(grid.view(2, -1, 2), points_to_source(pixels, MATRIX, SIZE, factor, convention))
    back = source_to_crop_grid(MATRIX, SIZE, (64, 48), factor, convention)
    torch.testing.assert_close(back.view(2, -1, 2), points_to_crop(pixels, MATRIX, (64, 48), factor, convention))
    rows = source_to_crop_grid(MATRIX, SIZE, (64, 48), factor, convention, rows=(7, 12))
    torch.testing.assert_close(rows, back[:, 7:12])


def test_conventions_differ_by_half_a_pixel_on_both_sides():
    matrix = torch.diag(torch.tensor([2.0, 2, 1], dtype=torch.float64))[None]
    point = torch.tensor([[[3.0, 4.0]]], dtype=torch.float64)
    assert points_to_crop(point, matrix, 16).tolist() == [[[6.0, 8.0]]]
    assert points_to_crop(point, matrix, 16, convention="facer").tolist() == [[[6.5, 8.5]]]


def test_an_unknown_convention_is_named():
    with pytest.raises(ConfigError, match="Did you mean 'facer'"):
        points_to_crop(FACES, MATRIX, SIZE, convention="faser")


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0])
def test_gradients(factor):
    points = torch.tensor([[[3.3, 4.1], [14.2, 9.9], [24.9, 18.1], [27.3, 1.2]]], dtype=torch.float64)
    source = points_to_source(points, MATRIX[:1], SIZE, factor)
    arguments = (source.detach().requires_grad_(), MATRIX[:1].clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda p, m: points_to_crop(p, m, SIZE, factor), arguments)
    arguments = (points.clone().requires_grad_(), MATRIX[:1].clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda p, m: points_to_source(p, m, SIZE, factor), arguments)
    matrix = MATRIX.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda m: crop_to_source_grid(m, (5, 4), factor), (matrix,))
    assert torch.autograd.gradcheck(lambda m: source_to_crop_grid(m, (5, 4), SIZE, factor), (matrix,))


def test_gradients_are_finite_at_the_rim_and_far_outside():
    points = torch.tensor([[0.0, 0.0], [14, 10], [28, 20], [1e5, -1e5]], dtype=torch.float64, requires_grad=True)
    for function in (tanh_forward, tanh_inverse):
        (gradient,) = torch.autograd.grad(function(points, SIZE, 0.8).sum(), points)
        assert gradient.isfinite().all()


def test_sample_returns_pixels_at_whole_positions_and_fades_to_0_outside():
    image = torch.randn(2, 3, 6, 9, dtype=torch.float64)
    y, x = torch.meshgrid(torch.arange(-1.0, 7), torch.arange(-1.0, 10), indexing="ij")
    grid = torch.stack([x, y], -1).double().expand(2, -1, -1, -1)
    for mode in ("bilinear", "nearest"):
        torch.testing.assert_close(sample(image, grid, mode), F.pad(image, (1, 1, 1, 1)), atol=1e-12, rtol=0)
    half = sample(image, torch.tensor([[[[-0.5, 2.0], [3.0, 5.75]]]]).double().expand(2, -1, -1, -1))
    torch.testing.assert_close(half[..., 0, 0], image[..., 2, 0] / 2)
    torch.testing.assert_close(half[..., 0, 1], image[..., 5, 3] / 4)


def test_sample_by_hand_and_of_one_pixel():
    image = torch.tensor([[[[1.0, 2.0], [5.0, 11.0]]]])
    assert sample(image, torch.tensor([[[[0.25, 0.5]]]])).item() == pytest.approx(0.5 * 1.25 + 0.5 * 6.5)
    one, grid = torch.full((1, 1, 1, 1), 4.0), torch.tensor([[[[0.0, 0.0], [0.5, 0.0]]]])
    assert sample(one, grid).flatten().tolist() == [4, 2]


def test_sample_has_gradients_for_picture_and_positions():
    image = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    grid = (torch.rand(1, 3, 3, 2, dtype=torch.float64) * 2.8 + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(sample, (image, grid))


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("factor", [0.0, 0.8])
def test_warp_in_one_step_equals_grid_and_sample(factor, convention):
    image = torch.randn(2, 3, 90, 100, dtype=torch.float64)
    grid = crop_to_source_grid(MATRIX, SIZE, factor, convention)
    warp = Warp(MATRIX, SIZE, factor, convention)
    torch.testing.assert_close(read(image, warp.grid((90, 100), dtype=torch.float64)), sample(image, grid))
    left, top, right, bottom = warp.bounds().unbind(-1)
    torch.testing.assert_close(torch.stack([left, top], -1), grid.amin((1, 2)))
    torch.testing.assert_close(torch.stack([right, bottom], -1), grid.amax((1, 2)))
    part = read(image[..., 10:, 20:], warp.grid((80, 80), (20, 10), torch.float64))
    within = ((grid >= torch.tensor([20, 10])).all(-1))[:, None]
    torch.testing.assert_close(part * within, sample(image, grid) * within)


def test_a_crop_carried_back_is_where_it_was():
    """Crop a smooth picture, carry the crop back: inside of what the crop shows, it is the picture again."""
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    image = (torch.sin(x / 9) + torch.cos(y / 11))[None, None].double()
    turn = torch.tensor(0.4, dtype=torch.float64)
    matrix = similarity_matrix(turn, turn * 0 + 0.9, torch.tensor([3.0, -5.0]).double(), 96)[None]
    for factor in (0.0, 0.8):
        crop = sample(image, crop_to_source_grid(matrix, 96, factor))
        back = sample(crop, source_to_crop_grid(matrix, 96, 96, factor))
        middle = (..., slice(30, 66), slice(30, 66))
        assert (back - image)[middle].abs().max() < 0.01


def test_autocast_does_not_round_positions():
    points, matrix = FACES.float() * 5, invert_matrix(MATRIX).float()
    exact = points_to_crop(points, matrix, 512, 0.8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(points_to_crop(points, matrix, 512, 0.8), exact)
        torch.testing.assert_close(
            align_matrix(FACES.float(), 512), align_matrix(FACES, 512).float(), atol=1e-3, rtol=0
        )
        assert crop_to_source_grid(matrix, 16, 0.8).dtype == torch.float32
