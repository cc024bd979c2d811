"""Alignment losses against formulas written out by hand in double precision, with gradients and degenerate input."""

from __future__ import annotations

import math

import pytest
import torch

from farl_lightning.errors import ConfigError
from farl_lightning.functional.heatmaps import heatmap_to_points, points_to_heatmap
from farl_lightning.losses import AlignmentLoss
from farl_lightning.losses import alignment as losses
from farl_lightning.types import Configurable, from_config

EVERY = {"point": 1.0, "wing": 0.1, "star": 0.3, "heatmap_l1": 0.5, "heatmap_l2": 0.25, "adaptive_wing": 0.2}


def _points(batch=2, count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pred = torch.rand(batch, count, 2, generator=generator, dtype=torch.float64)
    return pred, (pred + 0.1 * torch.randn(pred.shape, generator=generator, dtype=torch.float64)).clamp(0.05, 0.95)


def _maps(batch=2, count=3, side=7, seed=0):
    return torch.randn(batch, count, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _mean(values):
    return sum(values) / len(values)


def test_point_loss_is_the_euclidean_distance():
    pred = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]], dtype=torch.float64)
    target = torch.tensor([[[0.3, 0.4], [1.0, 2.0]]], dtype=torch.float64)
    assert losses.point_loss(pred, target).item() == pytest.approx((0.5 + 1.0) / 2)
    hidden = torch.tensor([[True, False]])
    assert losses.point_loss(pred, target, counted=hidden).item() == pytest.approx(0.5)


def test_wing_by_hand():
    width, curvature = 10.0, 2.0
    offset = width - width * math.log(1 + width / curvature)

    def _wing(error):
        return width * math.log(1 + error / curvature) if error < width else error - offset

    errors = [(0.5, 12.0), (9.999, 0.0)]
    pred = torch.zeros(1, 2, 2, dtype=torch.float64)
    target = torch.tensor([errors], dtype=torch.float64)
    expected = _mean([_wing(error) for pair in errors for error in pair])
    assert losses.wing_loss(pred, -target).item() == pytest.approx(expected, abs=1e-12)
    just = torch.tensor([[[10.0 - 1e-9, 10.0 + 1e-9]]], dtype=torch.float64)
    assert losses.wing_loss(just, torch.zeros_like(just)).item() == pytest.approx(_wing(10.0), abs=1e-8)  # no jump


def _resize_by_hand(rows, size):
    """Bilinear with half-pixel centres and a clamped border, one value at a time."""
    side, result = len(rows), []
    for y in range(size):
        line = []
        for x in range(size):
            corner = [min(max((p + 0.5) * side / size - 0.5, 0), side - 1) for p in (y, x)]
            low = [int(c) for c in corner]
            high = [min(c + 1, side - 1) for c in low]
            fy, fx = corner[0] - low[0], corner[1] - low[1]
            top = rows[low[0]][low[1]] * (1 - fx) + rows[low[0]][high[1]] * fx
            bottom = rows[high[0]][low[1]] * (1 - fx) + rows[high[0]][high[1]] * fx
            line.append(top * (1 - fy) + bottom * fy)
        result.append(line)
    return result


def _sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("name", "pixel"),
    [
        ("heatmap_bce", lambda x, y: -(y * math.log(_sigmoid(x)) + (1 - y) * math.log(1 - _sigmoid(x)))),
        ("heatmap_l1", lambda x, y: abs(x - y)),
        ("heatmap_l2", lambda x, y: (x - y) ** 2),
    ],
)
def test_heatmap_losses_by_hand(name, pixel):
    logits, (_, target) = _maps(), _points()
    maps = logits.sigmoid() if name == "heatmap_l1" else logits  # resized after the sigmoid, as FaRL does
    truth = points_to_heatmap(target, 8, 3.0)
    counted = torch.tensor([[True, True, True], [True, False, True]])
    expected = []
    for b in range(2):
        values = []
        for n in range(3):
            if counted[b, n]:
                small = _resize_by_hand(maps[b, n].tolist(), 8)
                values.append(_mean([pixel(small[y][x], truth[b, n, y, x].item()) for y in range(8) for x in range(8)]))
        expected.append(_mean(values))
    assert getattr(losses, name)(logits, truth, counted=counted).tolist() == pytest.approx(expected, abs=1e-12)


def test_adaptive_wing_by_hand():
    alpha, omega, epsilon, theta = 2.1, 14.0, 1.0, 0.5
    truth = points_to_heatmap(torch.tensor([[[0.4, 0.6]]], dtype=torch.float64), 8, 3.0)
    logits = 3 * _maps(1, 1, 8)
    values = []
    for y in range(8):
        for x in range(8):
            t, p = truth[0, 0, y, x].item(), _sigmoid(logits[0, 0, y, x].item())
            error, power = abs(t - p), alpha - t
            ratio = (theta / epsilon) ** power
            slope = omega * (1 / (1 + ratio)) * power * (theta / epsilon) ** (power - 1) / epsilon
            offset = theta * slope - omega * math.log(1 + ratio)
            loss = omega * math.log(1 + (error / epsilon) ** power) if error < theta else slope * error - offset
            around = truth[0, 0, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
            values.append(loss * (11 if around.max() >= 0.2 else 1))
    assert len({round(v, 3) for v in values}) > 30
    assert losses.adaptive_wing_loss(logits, truth).item() == pytest.approx(_mean(values), abs=1e-10)


def test_star_divides_by_the_spread_along_each_axis():
    side, epsilon = 33, 1e-5
    steps = (torch.arange(side, dtype=torch.float64) + 0.5) * 2 / side - 1
    direction = torch.tensor([math.cos(0.5), math.sin(0.5)], dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)
    along, across = grid @ direction, grid @ torch.tensor([-direction[1], direction[0]], dtype=torch.float64)
    mass = torch.exp(-(along**2) / (2 * 0.3**2) - across**2 / (2 * 0.1**2)).clamp(1e-12, 1 - 1e-12)
    logits = torch.log(mass / (1 - mass))[None, None]
    weights = mass / mass.sum()
    mean = (weights[..., None] * grid).sum((0, 1))
    centred = grid - mean
    matrix = (weights[..., None, None] * centred[..., :, None] * centred[..., None, :]).sum((0, 1))
    values, vectors = torch.linalg.eigh(matrix + epsilon * torch.eye(2, dtype=torch.float64))
    error = torch.tensor([0.02, 0.05], dtype=torch.float64)
    expected = sum(
        abs(float(vectors[:, i] @ (2 * error))) / math.sqrt(float(values[i])) + float(values[i]) / 2 for i in range(2)
    )
    target = torch.full((1, 1, 2), 0.5, dtype=torch.float64)
    assert losses.star_loss(target + error, logits, target).item() == pytest.approx(expected, abs=1e-9)
    # the same error costs more across the contour than along it
    cost = [losses.star_loss(target + 0.05 * axis, logits, target).item() for axis in (direction, direction.flip(0))]
    assert cost[0] < cost[1]


def test_gradients_numerically():
    pred, target = _points()
    truth = points_to_heatmap(target, 8, 3.0)
    logits = _maps().requires_grad_()
    pred.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: losses.point_loss(p, target), pred)
    assert torch.autograd.gradcheck(lambda p: losses.wing_loss(30 * p, 30 * target), pred)
    assert torch.autograd.gradcheck(lambda p: losses.star_loss(p, logits.detach(), target), pred)
    for loss in (losses.heatmap_bce, losses.heatmap_l1, losses.heatmap_l2, losses.adaptive_wing_loss):
        assert torch.autograd.gradcheck(lambda x, loss=loss: loss(x, truth), logits)


def test_gradient_of_the_spreads():
    """With the axes held, the numerical derivative needs maps whose axes do not turn: symmetric ones."""
    base = _maps(1, 1, 7)
    symmetric = (base + base.flip(-1)).requires_grad_()
    target = torch.full((1, 1, 2), 0.4, dtype=torch.float64)

    def _loss(x):
        return losses.star_loss(target + 0.05, (x + x.flip(-1)) / 2, target)

    assert torch.autograd.gradcheck(_loss, symmetric)


def test_module_is_the_reference_by_default_and_sums_weights():
    pred, target = _points()
    logits, size = _maps(), 64
    pixels = target * size - 0.5
    truth = points_to_heatmap(target, 128, 5.0)
    loss, logs = AlignmentLoss()(pred, logits, pixels, size)
    expected = losses.point_loss(pred, target).mean() + losses.heatmap_bce(logits, truth).mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-9)
    assert set(logs) == {"loss_point", "loss_heatmap_bce"}
    module = AlignmentLoss(heatmap_bce=0.0, heatmap_size=16, radius=3.0, **EVERY)
    loss, logs = module(pred, logits, pixels, size)
    assert set(logs) == {f"loss_{name}" for name in EVERY}
    assert loss.item() == pytest.approx(sum(EVERY[name] * logs[f"loss_{name}"].item() for name in EVERY))
    small = points_to_heatmap(target, 16, 3.0)
    assert logs["loss_heatmap_l2"].item() == pytest.approx(losses.heatmap_l2(logits, small).mean().item())
    assert logs["loss_wing"].item() == pytest.approx(losses.wing_loss(pred * 64, target * 64).mean().item())


def test_hidden_missing_and_left_out():
    pred, target = _points(3)
    logits, pixels = _maps(3), target * 64 - 0.5
    module = AlignmentLoss(heatmap_size=16, **EVERY)
    missing = pixels.clone()
    missing[0, 1] = math.nan
    visible = torch.ones(3, 3, dtype=torch.bool)
    visible[0, 1] = False
    as_hidden, _ = module(pred, logits, pixels, 64, visible)
    assert module(pred, logits, missing, 64)[0].item() == pytest.approx(as_hidden.item())
    assert as_hidden.item() != pytest.approx(module(pred, logits, pixels, 64)[0].item())
    flags = torch.tensor([True, False, True])
    alone, _ = module(pred[flags], logits[flags], pixels[flags], 64)
    assert module(pred, logits, pixels, 64, valid=flags)[0].item() == pytest.approx(alone.item())


@pytest.mark.parametrize("case", ["missing", "outside", "exact", "zero map", "full map", "huge logits"])
def test_degenerate_input_stays_finite(case):
    _, target = _points()
    logits, pixels = _maps().float(), (target * 64 - 0.5).float()
    if case == "missing":
        pixels[:] = math.nan
    elif case == "outside":
        pixels[:] = 1e4
    elif case == "zero map":
        logits[:] = -200.0
    elif case == "full map":
        logits[:] = 200.0
    elif case == "huge logits":
        logits *= 1e30
    logits.requires_grad_()
    points = heatmap_to_points(logits.sigmoid())
    if case == "exact":
        pixels = (points.detach() * 64) - 0.5
    module = AlignmentLoss(heatmap_size=16, **(EVERY | ({"heatmap_l2": 0.0} if case == "huge logits" else {})))
    loss, logs = module(points, logits, pixels, 64)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    if case == "missing":
        assert loss.item() == 0
        assert logits.grad.abs().max() == 0
    if case == "exact":
        assert logs["loss_point"].item() < 1e-6


def test_autocast_keeps_single_precision():
    pred, target = _points()
    logits, pixels = _maps(side=28).float(), (target * 512 - 0.5).float()
    module = AlignmentLoss(heatmap_size=32, **EVERY)
    expected, _ = module(pred.float(), logits, pixels, 512)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = module(pred.float(), logits, pixels, 512)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_module_is_plain_data_and_mistakes_are_explained():
    loss = from_config(AlignmentLoss(star=0.5, radius=3.0).to_config(), Configurable)
    assert (loss.weights, loss.radius) == ({"point": 1.0, "heatmap_bce": 1.0, "star": 0.5}, 3.0)
    with pytest.raises(ConfigError, match="one of them above 0"):
        AlignmentLoss(0.0, 0.0)
    with pytest.raises(ConfigError, match="0 or more"):
        AlignmentLoss(wing=-1.0)
    with pytest.raises(ConfigError, match=r"landmarks \(2, 3, 2\) and \(2, 2, 2\)"):
        losses.point_loss(torch.zeros(2, 3, 2), torch.zeros(2, 2, 2))
