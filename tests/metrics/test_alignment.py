"""Landmark metrics over batches, subsets, flags, and two processes."""

from __future__ import annotations

import math

import pytest
import torch

from farl_lightning.errors import ConfigError
from farl_lightning.functional import ced
from farl_lightning.functional.distributed import rank
from farl_lightning.functional.landmark_errors import landmark_errors, norm_distance
from farl_lightning.metrics import CED, LandmarkNME
from farl_lightning.testing.distributed import run_distributed

SUBSETS = [("pose",), ("pose", "blur"), (), ("occlusión",), ("blur",), (), ("blur",)]
FLAGS = torch.tensor([True] * 6 + [False])


def _faces(count=7, landmarks=98, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = 100 * torch.rand(count, landmarks, 2, generator=generator)
    spread = torch.linspace(0.5, 9, count)[:, None, None]
    return target + spread * torch.randn(target.shape, generator=generator), target


def _values(metric):
    return {name: value.item() for name, value in metric.compute().items()}


def _errors(pred, target, normalizer="inter_ocular"):
    target = target.double()
    return landmark_errors(pred.double(), target, norm_distance(target, normalizer))


def test_mean_over_faces_and_subsets():
    pred, target = _faces()
    metric = LandmarkNME()
    metric.update(pred[:3], target[:3], subsets=SUBSETS[:3], valid=FLAGS[:3])
    metric.update(pred[3:], target[3:], subsets=SUBSETS[3:], valid=FLAGS[3:])
    errors = 100 * _errors(pred, target)
    expected = {
        "nme": errors[:6].mean().item(),
        "nme_pose": errors[[0, 1]].mean().item(),
        "nme_blur": errors[[1, 4]].mean().item(),  # the seventh does not count
        "nme_occlusión": errors[3].item(),
    }
    assert _values(metric) == pytest.approx(expected, abs=1e-12)


def test_pixels_boxes_and_own_indices():
    pred, target = _faces(2, 5)
    metric = LandmarkNME("none")
    metric.update(pred, target)
    assert _values(metric)["nme"] == pytest.approx((pred - target).double().norm(dim=-1).mean().item(), rel=1e-6)
    metric = LandmarkNME("diag")
    metric.update(pred, target, box=torch.tensor([[0.0, 0.0, 30.0, 40.0]] * 2))
    assert _values(metric)["nme"] == pytest.approx(2 * (pred - target).norm(dim=-1).mean().item(), rel=1e-5)
    metric = LandmarkNME("inter_pupil", indices=[[0], [1, 2]])
    metric.update(pred, target)
    distance = (target[:, 0] - target[:, 1:3].mean(1)).norm(dim=-1)
    expected = ((pred - target).norm(dim=-1).mean(1) / distance).mean()
    assert _values(metric)["nme"] == pytest.approx(100 * expected.item(), rel=1e-5)


def test_hidden_points_count_unless_told():
    pred, target = _faces(3)
    visible = torch.rand(3, 98, generator=torch.Generator().manual_seed(1)) < 0.5
    metric = LandmarkNME("none")
    metric.update(pred, target, visible=visible)
    each = torch.stack([(p - t)[v].norm(dim=-1).mean() for p, t, v in zip(pred, target, visible, strict=True)])
    assert _values(metric)["nme"] == pytest.approx(each.mean().item(), rel=1e-5)


def test_faces_without_a_distance_are_counted_not_averaged():
    pred, target = _faces(3)
    target[1, 72] = target[1, 60]
    metric = LandmarkNME()
    metric.update(pred, target, subsets=[("a",), ("a",), ()])
    values = _values(metric)
    assert values["undefined_faces"] == 1
    assert values["nme"] == pytest.approx(100 * _errors(pred, target)[[0, 2]].mean().item())
    assert values["nme_a"] == pytest.approx(100 * _errors(pred, target)[0].item())


def test_a_prediction_that_is_no_number_is_a_failure():
    pred, target = _faces(4)
    pred[2, 5] = math.nan
    nme, curve = LandmarkNME(), CED(10.0)
    for metric in (nme, curve):
        metric.update(pred, target)
    assert _values(nme)["nme"] == math.inf
    assert _values(curve)["fr"] == 25


@pytest.mark.parametrize("grid", ["exact", "reference"])
def test_area_and_failure_rate(grid):
    pred, target = _faces(9)
    metric = CED(0.07, grid=grid)
    metric.update(pred, target, subsets=[("a",) if i % 2 else () for i in range(9)])
    errors, values = _errors(pred, target), _values(metric)
    area, failures = (getattr(ced, f"{name}_{grid}") for name in ("auc", "failure_rate"))
    assert values == pytest.approx(
        {
            "auc": 100 * area(errors, 0.07).item(),
            "fr": 100 * failures(errors, 0.07).item(),
            "auc_a": 100 * area(errors[1::2], 0.07).item(),
            "fr_a": 100 * failures(errors[1::2], 0.07).item(),
        }
    )
    thresholds, share = metric.curves["a"]
    assert share.tolist() == [(errors[1::2] <= t).double().mean().item() for t in thresholds]


def test_both_rules_of_simpson():
    pred, target = _faces(9, 19)
    box = torch.tensor([[0.0, 0.0, 300.0, 300.0]] * 9)
    areas = []
    for rule in ("cartwright", "average"):
        metric = CED(0.07, "box", grid="reference", simpson=rule)
        metric.update(pred, target, box=box)
        areas.append(_values(metric)["auc"])
    assert areas[0] != areas[1]
    assert areas[0] == pytest.approx(areas[1], abs=0.05)


def _every(parts):
    """Metrics of this rank's parts: every number, to the last bit."""
    metrics = [LandmarkNME(), LandmarkNME("diag"), CED(0.1), CED(0.07, grid="reference")]
    metrics = [metric.to("cpu") for metric in metrics]  # as Lightning moves them
    for pred, target, subsets, valid in parts[rank()]:
        box = torch.cat([target.amin(1), target.amax(1)], dim=1)
        for metric in metrics:
            metric.update(pred, target, box=box, subsets=subsets, valid=valid)
    results = [{name: value.item() for name, value in metric.compute().items()} for metric in metrics]
    return results, {name: share.tolist() for name, (_, share) in metrics[2].curves.items()}


def test_uneven_processes_give_the_same_to_the_last_bit():
    pred, target = _faces()
    target[2, 72] = target[2, 60]

    def _part(rows):
        rows = list(rows)
        return pred[rows], target[rows], [SUBSETS[i] for i in rows], FLAGS[rows]

    one = run_distributed(_every, 1, [[_part(range(7))]])[0]
    assert one[0][0]["undefined_faces"] == 1
    assert set(one[1]) == {"", "pose", "blur", "occlusión"}
    # seven faces over two processes: the repeat that pads is marked, and both know subsets the other does not
    split = [[_part([0, 2]), _part([4])], [_part([1, 3]), _part([5, 6])]]
    assert run_distributed(_every, 2, split) == [one, one]
    # a process that saw nothing, or nothing that counts, must neither hang nor change a number
    assert run_distributed(_every, 2, [[_part(range(7))], []]) == [one, one]
    assert run_distributed(_every, 2, [[_part([6])], [_part(range(6))]]) == [one, one]


def test_reset_and_forward_keep_names():
    pred, target = _faces()
    metric = LandmarkNME()
    metric.update(pred[:2], target[:2], subsets=SUBSETS[:2])
    before = _values(metric)
    metric.reset()
    metric(pred[:1], target[:1], subsets=SUBSETS[:1])  # forward computes the batch on the side
    metric(pred[1:2], target[1:2], subsets=SUBSETS[1:2])
    assert _values(metric) == before
    metric.reset()
    metric.update(pred, target, valid=torch.zeros(7).bool())
    assert metric.compute()["nme"].isnan()


def test_mistakes_are_explained():
    with pytest.raises(ConfigError, match="normalizer='ocular'"):
        LandmarkNME("ocular")
    with pytest.raises(ConfigError, match="grid='fine'"):
        CED(grid="fine")
    with pytest.raises(ConfigError, match="threshold=0"):
        CED(0)
    pred, target = _faces(2)
    with pytest.raises(ConfigError, match="1 lists of subsets for 2 faces"):
        LandmarkNME().update(pred, target, subsets=[()])
