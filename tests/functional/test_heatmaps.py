"""Landmarks to heatmaps and back."""

from __future__ import annotations

import math

import pytest
import torch

from farl_lightning.errors import ConfigError
from farl_lightning.functional.heatmaps import (
    denormalize_points,
    heatmap_to_points,
    normalize_points,
    points_to_heatmap,
    sigmoid_x,
    splat_cosine,
)


def test_normalised_points_by_hand():
    points = torch.tensor([[[0.0, 0.0], [3.0, 1.0]]])
    normalised = normalize_points(points, (4, 2))
    assert normalised.tolist() == [[[0.125, 0.25], [0.875, 0.75]]]
    assert denormalize_points(normalised, (4, 2)).tolist() == points.tolist()


def test_centre_of_mass_by_hand():
    heatmap = torch.zeros(1, 2, 3, 5)
    heatmap[0, 0, 1, 2] = 0.3  # one pixel, whatever its height
    heatmap[0, 1, 0, 0], heatmap[0, 1, 2, 4] = 1.0, 3.0
    points = denormalize_points(heatmap_to_points(heatmap), (5, 3))
    torch.testing.assert_close(points, torch.tensor([[[2.0, 1.0], [3.0, 1.5]]]))


def test_empty_maps_give_a_point_and_a_finite_gradient():
    heatmap = torch.zeros(1, 2, 4, 8, requires_grad=True)
    points = heatmap_to_points(heatmap)
    torch.testing.assert_close(points, torch.tensor([0.5 / 8, 0.5 / 4]).expand(1, 2, 2))
    points.sum().backward()
    assert heatmap.grad.isfinite().all()


def test_sharpening_is_stable():
    heatmap = torch.tensor([[[[0.0, 0.5, 0.25]]]], dtype=torch.float64)
    weights = torch.exp(2 * heatmap[0, 0, 0])
    expected = (weights * torch.arange(3)).sum() / weights.sum()
    assert denormalize_points(heatmap_to_points(heatmap, 2.0), (3, 1))[0, 0, 0] == pytest.approx(expected.item())
    assert denormalize_points(heatmap_to_points(heatmap.float(), 1e5), (3, 1))[0, 0].tolist() == [1.0, 0.0]


def test_gradients():
    torch.manual_seed(0)
    heatmap = torch.rand(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(heatmap_to_points, heatmap)
    assert torch.autograd.gradcheck(lambda h: heatmap_to_points(h, 3.0), heatmap)
    points = torch.rand(1, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: points_to_heatmap(p, 6, 20.0), points)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_lifted(dtype):
    torch.manual_seed(0)
    heatmap = torch.rand(2, 3, 64, 64).to(dtype)
    points = heatmap_to_points(heatmap)
    assert points.dtype == torch.float32
    torch.testing.assert_close(points, heatmap_to_points(heatmap.double()).float(), rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(heatmap_to_points(heatmap), points)
        assert points_to_heatmap(points.to(dtype), 8).dtype == torch.float32
        assert torch.equal(points_to_heatmap(points, 32), points_to_heatmap(points.clone(), 32))


def test_heatmap_by_hand():
    points = normalize_points(torch.tensor([[[2.0, 1.0]]], dtype=torch.float64), (5, 4))
    drawn = points_to_heatmap(points, (4, 5), radius=2.0)[0, 0]
    squares = [[(x - 2) ** 2 + (y - 1) ** 2 for x in range(5)] for y in range(4)]
    expected = [[math.exp(-2 * square) if square <= 4 else 0.0 for square in row] for row in squares]
    torch.testing.assert_close(drawn, torch.tensor(expected, dtype=torch.float64))
    assert (drawn > 0).sum() == 12, "one of the thirteen pixels within two lies beside the map"


def test_points_beside_the_map_and_unknown_ones():
    points = torch.tensor([[[-0.05, 0.5], [3.0, 3.0], [math.nan, 0.5]]])
    drawn = points_to_heatmap(points, 16, radius=5.0)
    assert drawn[0, 0, :, 0].max() > 0.1
    assert drawn[0, 0, :, 8:].max() == 0
    assert drawn[0, 1:].abs().max() == 0
    assert drawn.isfinite().all()


def test_round_trip_within_the_map():
    torch.manual_seed(0)
    points = 0.2 + 0.6 * torch.rand(4, 7, 2, dtype=torch.float64)
    found = heatmap_to_points(points_to_heatmap(points, (96, 128), 8.0))
    assert ((found - points).abs() * torch.tensor([128, 96])).max() < 0.02


def test_radius_must_be_positive():
    with pytest.raises(ConfigError, match="radius is 0"):
        points_to_heatmap(torch.zeros(1, 1, 2), 8, 0)


def test_dots_by_hand():
    background = torch.ones(2, 1, 3, 3)
    points, values = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]), torch.tensor([[2.0], [1.0], [4.0]])
    drawn = splat_cosine(background, points, values, torch.tensor([0, 0, 1]), 2.0)
    assert drawn[0, 0, 1].tolist() == pytest.approx([1 + 3 * 0.5, 4.0, 2.5])
    assert drawn[1, 0, 0].tolist() == pytest.approx([5.0, 3.0, 1.0])
    assert torch.equal(background, torch.ones(2, 1, 3, 3))


def test_stretched_sigmoid_reaches_both_ends():
    values = sigmoid_x(torch.tensor([-20.0, 0.0, 20.0]))
    assert values.tolist() == [0.0, 0.5, 1.0]
