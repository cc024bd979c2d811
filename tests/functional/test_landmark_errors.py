"""Landmark errors and their distribution against hand computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from farl_lightning.errors import ConfigError
from farl_lightning.functional import ced
from farl_lightning.functional.landmark_errors import eye_indices, landmark_errors, norm_distance


def _faces(count, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 100 * torch.rand(batch, count, 2, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("count", "normalizer", "first", "second"),
    [
        (68, "inter_ocular", [36], [45]),
        (68, "inter_pupil", [36, 37, 38, 39, 40, 41], [42, 43, 44, 45, 46, 47]),
        (98, "inter_ocular", [60], [72]),
        (98, "inter_pupil", [96], [97]),
        (19, "inter_ocular", [6], [11]),
        (19, "inter_pupil", [7], [10]),
        (29, "inter_ocular", [8], [9]),
        (29, "inter_pupil", [16], [17]),
    ],
)
def test_distance_between_the_eyes(count, normalizer, first, second):
    faces = _faces(count)
    for face, distance in zip(faces.tolist(), norm_distance(faces, normalizer).tolist(), strict=True):
        ends = [[sum(face[i][axis] for i in group) / len(group) for axis in (0, 1)] for group in (first, second)]
        assert distance == pytest.approx(math.dist(*ends))


def test_box_and_own_indices():
    faces = _faces(5)
    box = torch.tensor([[1.0, 2.0, 4.0, 6.0], [0.0, 0.0, 12.0, 3.0]])
    assert norm_distance(faces, "box", box=box).tolist() == pytest.approx([12**0.5, 6.0])
    assert norm_distance(faces, "diag", box=box).tolist() == pytest.approx([5.0, 153**0.5])
    assert norm_distance(faces, "none").tolist() == [1.0, 1.0]
    own = norm_distance(faces, "inter_pupil", indices=[[0, 1], [4]])
    assert own[0].item() == pytest.approx(math.dist(faces[0, :2].mean(0).tolist(), faces[0, 4].tolist()))


def test_errors_by_hand():
    target = torch.zeros(1, 3, 2)
    pred = torch.tensor([[[3.0, 4.0], [0.0, 1.0], [0.0, 0.0]]])
    assert landmark_errors(pred, target, torch.tensor([10.0])).tolist() == pytest.approx([0.2])
    hidden = torch.tensor([[True, True, False]])
    assert landmark_errors(pred, target, torch.tensor([10.0]), visible=hidden).tolist() == pytest.approx([0.3])


def test_what_has_no_error_and_what_is_a_failure():
    target = torch.zeros(4, 2, 2)
    target[1, 0] = math.nan
    pred = target.nan_to_num()
    pred[3, 1] = math.nan
    distance = torch.tensor([0.0, 1.0, math.nan, 1.0])
    errors = landmark_errors(pred, target, distance)
    assert errors[:3].isnan().all()  # no distance, no truth, no distance
    assert errors[3] == math.inf  # a prediction that is not a number
    hidden = torch.tensor([[False, True]]).expand(4, 2)
    assert landmark_errors(pred, target, torch.ones(4), visible=hidden)[1] == 0
    assert landmark_errors(pred, target, torch.ones(4), visible=torch.zeros(4, 2).bool()).isnan().all()
    empty = torch.tensor([[5.0, 5.0, 5.0, 9.0], [5.0, 9.0, 1.0, 2.0], [0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, math.nan]])
    for name in ("box", "diag"):
        assert norm_distance(target, name, box=empty).isnan().tolist() == [True, True, False, True]


def test_mistakes_are_explained():
    with pytest.raises(ConfigError, match="Did you mean 'inter_ocular'"):
        norm_distance(_faces(68), "interocular")
    with pytest.raises(ConfigError, match="needs a box"):
        norm_distance(_faces(68), "diag")
    with pytest.raises(ConfigError, match="known for 19, 29, 68, 98 landmarks, not for 7"):
        norm_distance(_faces(7), "inter_ocular")
    with pytest.raises(ConfigError, match=r"0\.\.6"):
        eye_indices(7, "inter_ocular", [[0], [7]])
    with pytest.raises(ConfigError, match=r"\(2, 68, 2\) and \(2, 19, 2\)"):
        landmark_errors(_faces(68), _faces(19), torch.ones(2))


def test_curve_by_hand():
    errors = torch.tensor([0.3, 0.1, 0.2, 0.2], dtype=torch.float64)
    grid = torch.tensor([0.0, 0.1, 0.15, 0.2, 0.5], dtype=torch.float64)
    assert ced.ced(errors, grid).tolist() == [0.0, 0.25, 0.25, 0.75, 1.0]
    assert ced.ced(errors.float(), grid).tolist() == [0.0, 0.0, 0.25, 0.25, 1.0]  # 0.1 in float32 exceeds 0.1
    assert ced.ced(errors[:0], grid).isnan().all()


def test_exact_area_is_that_of_the_steps():
    errors, threshold = torch.tensor([0.01, 0.04, 0.09, 0.2], dtype=torch.float64), 0.1
    area = (0.03 * 1 + 0.05 * 2 + 0.01 * 3) / 4  # height 1/4 from 0.01 to 0.04, 2/4 up to 0.09, 3/4 up to 0.1
    assert ced.auc_exact(errors, threshold).item() == pytest.approx(area / threshold)
    assert ced.failure_rate_exact(errors, threshold).item() == 0.25
    assert ced.failure_rate_exact(torch.tensor([0.1], dtype=torch.float64), 0.1).item() == 0
    assert ced.auc_exact(torch.tensor([math.inf]), 0.1).item() == 0
    assert ced.failure_rate_exact(torch.tensor([math.inf]), 0.1).item() == 1


@pytest.mark.parametrize("threshold", [0.05, 0.07, 0.08, 0.1])
def test_reference_grid_rounds_as_numpy_does(threshold):
    expected = np.arange(0, threshold + 1e-4, 1e-4)
    assert ced.reference_grid(threshold).numpy().tolist() == expected.tolist()


def test_the_grid_of_aflw_reaches_past_its_threshold():
    grid = ced.reference_grid(0.07)
    assert len(grid) == 702
    assert grid[-1].item() == pytest.approx(0.0701, abs=1e-12)
    errors = torch.tensor([0.07005, 0.01])
    assert ced.failure_rate_reference(errors, 0.07).item() == 0  # the trap: 0.07005 is no failure on this grid
    assert ced.failure_rate_exact(errors, 0.07).item() == 0.5
    assert ced.auc_reference(torch.zeros(3), 0.07).item() > 1


def test_reference_area_comes_near_the_exact_one():
    errors = 0.15 * torch.rand(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = ced.auc_exact(errors, 0.1).item()
    assert ced.auc_reference(errors, 0.1).item() == pytest.approx(exact, abs=2e-3)


def test_simpson_integrates_polynomials():
    for count in (3, 4, 5, 8, 9):
        x = torch.linspace(0, 1, count, dtype=torch.float64)
        step = 1 / (count - 1)
        assert ced.simpson(x**2, step).item() == pytest.approx(1 / 3)  # exact for parabolas, odd or even
        if count % 2:
            assert ced.simpson(x**3, step, rule="average").item() == pytest.approx(1 / 4)
    assert ced.simpson(torch.tensor([1.0, 3.0]), 0.5).item() == pytest.approx(1.0)


def test_average_rule_by_hand():
    a, b, c, d = 1.0, 5.0, 2.0, 7.0
    first = (a + 4 * b + c) / 3 + (c + d) / 2
    last = (a + b) / 2 + (b + 4 * c + d) / 3
    values = torch.tensor([a, b, c, d])
    assert ced.simpson(values, 1.0, rule="average").item() == pytest.approx((first + last) / 2)
    assert ced.simpson(values, 1.0).item() == pytest.approx((a + 4 * b + c) / 3 + (5 * d + 8 * c - b) / 12)


def test_distribution_mistakes_are_explained():
    with pytest.raises(ConfigError, match="threshold=0"):
        ced.auc_exact(torch.ones(1), 0)
    with pytest.raises(ConfigError, match="rule='midpoint'"):
        ced.simpson(torch.ones(4), 1.0, rule="midpoint")
    with pytest.raises(ConfigError, match="1 samples"):
        ced.simpson(torch.ones(1), 1.0)
