"""Bilinear resizing, and convolutions of maps that are never made."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from farl_lightning.functional.resize import conv_resized, resize, resize_matrix


def test_same_size_is_untouched():
    x = torch.randn(1, 2, 3, 4)
    assert resize(x, (3, 4)) is x


def test_resize_by_hand():
    row = torch.tensor([[[[0.0, 4.0]]]])
    assert resize(row, (1, 4)).flatten().tolist() == [0.0, 1.0, 3.0, 4.0]
    wide = torch.arange(8.0).view(1, 1, 1, 8)
    assert resize(wide, (1, 2)).flatten().tolist() == [1.5, 5.5], "no antialiasing: neighbours of the centre alone"
    matrix = resize_matrix(2, 4, row)
    assert matrix.tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]


@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (5, 3)])
@pytest.mark.parametrize("size", [(28, 36), (13, 19), (7, 9), (15, 9), (3, 20)])
def test_convolution_of_a_resized_map(kernel, size):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 7, 9, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 5, *kernel, dtype=torch.float64, requires_grad=True)
    padding = (kernel[0] // 2, kernel[1] // 2)
    plain = F.conv2d(F.interpolate(x, size, mode="bilinear"), weight, padding=padding)
    ours = conv_resized(x, weight, size)
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)
    cotangent = torch.randn_like(plain)
    expected = torch.autograd.grad((plain * cotangent).sum(), (x, weight))
    found = torch.autograd.grad((ours * cotangent).sum(), (x, weight))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_a_single_pixel_spreads():
    x, weight = torch.full((1, 1, 1, 1), 2.0), torch.ones(1, 1, 3, 3)
    assert conv_resized(x, weight, (3, 3))[0, 0].tolist() == [[8, 12, 8], [12, 18, 12], [8, 12, 8]]
