from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from farl_lightning.functional.geometry import (
    FARL_TEMPLATE,
    align_matrix,
    apply_matrix,
    box_matrix,
    coincident,
    compose_matrices,
    fit_similarity,
    flip_matrix,
    invert_matrix,
    quad_corners,
    quad_matrix,
    similarity_matrix,
    square_box,
    template_points,
)
from tests.shared import SHARED, needs_shared


def similarity(angle: float, scale: float, shift: tuple[float, float]) -> torch.Tensor:
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    return torch.tensor([[c, -s, shift[0]], [s, c, shift[1]], [0, 0, 1]], dtype=torch.float64)


FACE = torch.tensor([[30.0, 40], [70, 42], [51, 61], [36, 80], [66, 81]], dtype=torch.float64)


def test_similarity_recovers_a_known_matrix_batched():
    truth = torch.stack([similarity(0.3, 1.7, (5, -2)), similarity(-2.0, 0.2, (100, 3))])
    points = torch.stack([FACE, FACE * 3 + 7])
    fitted = fit_similarity(points, apply_matrix(points, truth))
    assert fitted.dtype == torch.float64
    torch.testing.assert_close(fitted, truth, atol=1e-12, rtol=1e-12)


def test_similarity_is_the_least_squares_solution():
    target = FACE + torch.tensor([[1.0, 0], [-2, 1], [0, 3], [2, 2], [-1, -1]], dtype=torch.float64)
    ones, zeros = torch.ones(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    x, y = FACE.unbind(-1)
    rows = torch.cat([torch.stack([x, -y, ones, zeros], -1), torch.stack([y, x, zeros, ones], -1)])
    a, b, tx, ty = torch.linalg.lstsq(rows, torch.cat([target[:, 0], target[:, 1]])).solution
    expected = torch.stack([torch.stack([a, -b, tx]), torch.stack([b, a, ty])])
    torch.testing.assert_close(fit_similarity(FACE, target)[:2], expected)


def test_similarity_never_mirrors():
    mirrored = FACE * torch.tensor([-1.0, 1.0], dtype=torch.float64)
    assert torch.linalg.det(fit_similarity(FACE, mirrored)[:2, :2]) > 0


def test_similarity_is_differentiable():
    points = FACE.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: align_matrix(p, 32), (points,))


def test_align_puts_a_scaled_template_on_the_template():
    template = template_points(512, like=FACE)
    torch.testing.assert_close(template[0], FACE.new_tensor([196, 226]) * 511 / 512)
    assert template_points((200, 100), FARL_TEMPLATE).shape == (5, 2)
    matrix = align_matrix(template / 4 + 11, 512)
    torch.testing.assert_close(matrix, similarity(0, 4, (-44, -44)))


def test_align_scale_and_offset_move_the_targets():
    points = template_points((64, 128), [[-1, -1], [1, 1], [0, 0]], scale=0.5, offset=(3, -5))
    torch.testing.assert_close(points, torch.tensor([[31.75 + 3, 15.75 - 5], [95.25 + 3, 47.25 - 5], [66.5, 26.5]]))


def test_coincident_points_are_told_and_give_nan():
    points = torch.stack([FACE, FACE[:1].expand(5, 2), FACE * torch.nan])
    assert coincident(points).tolist() == [False, True, True]
    assert not fit_similarity(points[1], FACE)[:2, :2].isfinite().any()


def test_box_matrix_maps_the_borders_to_the_outer_edges():
    box = torch.tensor([[10.0, 20, 30, 80], [0, 0, 4, 4]], dtype=torch.float64)
    corners = box.view(2, 2, 2)
    edges = apply_matrix(corners, box_matrix(box, (120, 200)))
    torch.testing.assert_close(edges, torch.tensor([[[-0.5, -0.5], [199.5, 119.5]]] * 2, dtype=torch.float64))
    centres = apply_matrix(corners, box_matrix(box, (120, 200), align_corners=True))
    torch.testing.assert_close(centres, torch.tensor([[[0.0, 0.0], [199.0, 119.0]]] * 2, dtype=torch.float64))


def test_square_box_grows_around_the_centre():
    box = torch.tensor([10.0, 20, 30, 80])
    assert square_box(box).tolist() == [-10, 20, 50, 80]
    assert square_box(box, 0.5).tolist() == [-40, -10, 80, 110]


def test_compose_acts_in_order_and_invert_undoes():
    turn, move = similarity(math.pi / 2, 1, (0, 0)), similarity(0, 1, (10, 0))
    point = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(
        apply_matrix(point, compose_matrices(turn, move)), torch.tensor([[10.0, 1]], dtype=torch.float64)
    )
    both = compose_matrices(turn, move)
    torch.testing.assert_close(compose_matrices(both, invert_matrix(both)), torch.eye(3, dtype=torch.float64))


def test_apply_divides_by_the_homogeneous_coordinate():
    matrix = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0, 1]])
    assert apply_matrix(torch.tensor([[1.0, 4.0]]), matrix).tolist() == [[0.5, 2.0]]


def test_quad_is_celebas_square():
    # eyes 40 apart, mouth 50 below: half a side is max(2 * 40, 1.8 * 50) = 90; centre a tenth of the way to the mouth
    points = torch.tensor([[80.0, 100], [120, 100], [100, 120], [85, 150], [115, 150]], dtype=torch.float64)
    corners = quad_corners(points)
    center = torch.tensor([100.5, 105.5], dtype=torch.float64)
    offsets = torch.tensor([[-90.0, -90], [90, -90], [90, 90], [-90, 90]], dtype=torch.float64)
    torch.testing.assert_close(corners, center + offsets)
    mapped = apply_matrix(corners, quad_matrix(points, (64, 64)))
    torch.testing.assert_close(mapped, torch.tensor([[0.0, 0], [64, 0], [64, 64], [0, 64]], dtype=torch.float64))


def test_quad_follows_a_turned_face():
    turn = similarity(0.7, 1.3, (5, 9))
    torch.testing.assert_close(
        # the added half pixel does not turn with the face
        quad_corners(apply_matrix(FACE, turn)) - 0.5,
        apply_matrix(quad_corners(FACE) - 0.5, turn),
    )


def test_similarity_matrix_turns_about_the_centre_then_shifts():
    angle, scale = torch.tensor(math.pi / 2, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)
    matrix = similarity_matrix(angle, scale, torch.tensor([3.0, -1.0]).double(), (11, 21), (5, 7))
    points = torch.tensor([[3.0, 2.0], [4.0, 2.0]], dtype=torch.float64)  # the source's centre, and right of it
    torch.testing.assert_close(apply_matrix(points, matrix), torch.tensor([[13.0, 4.0], [13.0, 6.0]]).double())


def test_flips_exchange_the_first_and_last_pixel():
    points = torch.tensor([[0.0, 0.0], [9.0, 4.0]])
    assert apply_matrix(points, flip_matrix((5, 10))).tolist() == [[9, 0], [0, 4]]
    assert apply_matrix(points, flip_matrix((5, 10), vertical=True)).tolist() == [[0, 4], [9, 0]]


def test_new_matrices_have_gradients():
    points = FACE.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: quad_matrix(p, 32), (points,))
    draws = torch.tensor([0.3, 1.1, 2.0, -3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: similarity_matrix(d[0], d[1], d[2:], 32), (draws,))


@pytest.fixture(scope="module")
def fixture() -> dict[str, torch.Tensor]:
    assert SHARED is not None
    with np.load(SHARED / "parity" / "08_crop_warp.npz") as data:
        return {name: torch.from_numpy(data[name]) for name in data}


@needs_shared
@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "size", "scale", "offset"),
    [
        ("facer_align/lapa_448_scale1", 448, 1.0, (0, 0)),
        ("facer_align/landmark_448_scale0.8", 448, 0.8, (0, 0)),
        ("facer_align/offset_320x256_scale0.9_off3_-5", (320, 256), 0.9, (3, -5)),
        ("blueprint/align_512", 512, 1.0, (0, 0)),
    ],
)
def test_align_parity(fixture, name, size, scale, offset):
    matrix = align_matrix(fixture["in/face_pts"].double(), size, scale=scale, offset=offset)
    torch.testing.assert_close(matrix, fixture[name].double(), atol=2e-4, rtol=1e-5)


@needs_shared
@pytest.mark.shared
def test_similarity_parity(fixture):
    attributes = fit_similarity(fixture["in/face_pts"], fixture["facer_align/attr_target_pts_224_500"])
    torch.testing.assert_close(attributes, fixture["facer_align/attr_224"], atol=2e-4, rtol=1e-5)
    corners = torch.tensor([[0.0, 0], [448, 0], [448, 448], [0, 448]])
    quad = fit_similarity(fixture["facer_align/celebm_quad"], corners)
    torch.testing.assert_close(quad, fixture["facer_align/celebm_448"], atol=2e-4, rtol=1e-5)


@needs_shared
@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "scale", "align_corners"),
    [("default", 1.0, True), ("scale08", 0.8, True), ("rect", None, True), ("noalign", 1.0, False)],
)
def test_box_parity(fixture, name, scale, align_corners):
    box = fixture["in/box_x1y1x2y2"]
    box = box if scale is None else square_box(box, scale)
    matrix = box_matrix(box, (256, 192), align_corners=align_corners)
    torch.testing.assert_close(matrix, fixture[f"facer_box/{name}_256x192"], atol=2e-4, rtol=1e-5)


@needs_shared
@pytest.mark.shared
def test_training_box_parity(fixture):
    box = fixture["in/box_y1x1y2x2"][:, [1, 0, 3, 2]]
    for name, align_corners in (("crop_512", False), ("crop_512_aligncorners", True)):
        matrix = box_matrix(box, 512, align_corners=align_corners)
        torch.testing.assert_close(matrix, fixture[f"blueprint/{name}"], atol=2e-4, rtol=1e-5)
