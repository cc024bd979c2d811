"""Margins, triplets and symmetry by hand and by brute force; two processes against one."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from farl_lightning.errors import ConfigError
from farl_lightning.functional.distributed import rank
from farl_lightning.losses.margin import margin_logits, symmetry_loss, triplet_loss
from farl_lightning.testing.distributed import run_distributed


def _faces(count=9, width=4, people=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    faces = F.normalize(torch.randn(count, width, dtype=torch.float64, generator=generator), dim=1)
    return faces, torch.arange(count) % people


def test_arcface_widens_the_own_angle():
    cosine = torch.tensor([0.8, 0.3, -0.5], dtype=torch.float64)[None].repeat(3, 1)
    logits = margin_logits(cosine, torch.tensor([0, 2, -1]), "arcface", 0.5, 64.0)
    expected = 64 * cosine
    expected[0, 0] = 64 * math.cos(math.acos(0.8) + 0.5)
    expected[1, 2] = 64 * math.cos(math.acos(-0.5) + 0.5)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)


def test_arcface_goes_on_falling_beyond_half_a_turn():
    angles = torch.linspace(0, math.pi, 1001, dtype=torch.float64)
    logits = margin_logits(angles.cos()[:, None], torch.zeros(1001, dtype=torch.int64), "arcface", 0.5, 1.0)[:, 0]
    assert (logits.diff() < 0).all()
    assert logits[-1].item() == pytest.approx(-1 - 0.5 * math.sin(0.5), abs=1e-12)


def test_cosface_lowers_the_own_cosine():
    cosine = torch.tensor([[0.8, 0.3]], dtype=torch.float64)
    assert margin_logits(cosine, torch.tensor([1]), "cosface", 0.35, 30.0).tolist() == [
        pytest.approx([24.0, -1.5], abs=1e-12)
    ]


@pytest.mark.parametrize("kind", ["arcface", "cosface"])
def test_logits_are_float32_and_gradients_finite_at_the_ends(kind):
    cosine = torch.tensor([[1.0, -1.0], [1.0, -1.0]], dtype=torch.bfloat16, requires_grad=True)
    logits = margin_logits(cosine, torch.tensor([0, 1]), kind, 0.5, 64.0)
    logits.sum().backward()
    assert logits.dtype == torch.float32
    assert cosine.grad.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("arcfase", 0.5, 64.0), "Did you mean 'arcface'"),
        (("arcface", -0.1, 64.0), r"margin=-0.1.*from 0 to 1.571"),
        (("cosface", 1.2, 64.0), "margin=1.2"),
        (("cosface", 0.35, 0.0), "scale=0.0"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        margin_logits(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), *settings)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ConfigError, match=r"cosine \(2, 3\).*labels \(3,\)"):
        margin_logits(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64), "arcface", 0.5, 64.0)
    with pytest.raises(ConfigError, match=r"embeddings \(2, 3\).*labels \(3,\)"):
        triplet_loss(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ConfigError, match=r"mirrored \(3, 3\)"):
        symmetry_loss(torch.zeros(2, 3), torch.zeros(3, 3))


def _brute_hard(distances, labels, margin):
    losses = []
    for a in range(len(labels)):
        near = [distances[a][p] for p in range(len(labels)) if p != a and labels[p] == labels[a] >= 0]
        far = [distances[a][n] for n in range(len(labels)) if labels[n] >= 0 and labels[n] != labels[a] >= 0]
        if near and far:
            losses.append(max(0.0, max(near) - min(far) + margin))
    return sum(losses) / len(losses)


def _brute_semi_hard(distances, labels, margin):
    losses = []
    for a, p in itertools.permutations(range(len(labels)), 2):
        far = [distances[a][n] for n in range(len(labels)) if labels[n] >= 0 and labels[n] != labels[a]]
        if labels[a] == labels[p] >= 0 and far:
            farther = [d for d in far if d > distances[a][p]]
            losses.append(max(0.0, distances[a][p] - (min(farther) if farther else max(far)) + margin))
    return sum(losses) / len(losses)


@pytest.mark.parametrize(("mining", "brute"), [("hard", _brute_hard), ("semihard", _brute_semi_hard)])
@pytest.mark.parametrize("seed", range(3))
def test_triplets_agree_with_brute_force(mining, brute, seed):
    faces, labels = _faces(12, seed=seed)
    labels[3], labels[7] = -1, 9  # one unknown, one alone
    distances = torch.cdist(faces, faces).square().tolist()
    found = triplet_loss(faces, labels, 0.4, mining)
    assert found.item() == pytest.approx(brute(distances, labels.tolist(), 0.4), abs=1e-12)


@pytest.mark.parametrize("mining", ["hard", "semihard"])
def test_no_triplet_is_no_loss_and_no_nan(mining):
    for labels in ([0, 0, 0], [0, 1, 2], [-1, -1, -1]):
        faces = _faces(3)[0].requires_grad_()
        loss = triplet_loss(faces, torch.tensor(labels), 0.2, mining)
        loss.backward()
        assert loss.item() == 0
        assert faces.grad.abs().sum() == 0
    empty = torch.zeros(0, 4, requires_grad=True)
    assert triplet_loss(empty, torch.zeros(0, dtype=torch.int64), 0.2, mining).item() == 0


@pytest.mark.parametrize("mining", ["hard", "semihard"])
def test_triplets_have_the_gradient_of_finite_differences(mining):
    faces, labels = _faces(6, people=2)
    assert torch.autograd.gradcheck(lambda x: triplet_loss(x, labels, 0.4, mining), faces.requires_grad_())


def test_settings_of_triplets_are_checked():
    with pytest.raises(ConfigError, match="Did you mean 'semihard'"):
        triplet_loss(*_faces(), 0.2, "semi-hard")
    with pytest.raises(ConfigError, match="margin of triplets is 0"):
        triplet_loss(*_faces(), 0.0)


def test_symmetry_is_one_less_the_cosine():
    one = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    other = torch.tensor([[1.0, 1.0], [0.0, -3.0]])
    assert symmetry_loss(one, other).item() == pytest.approx((1 - math.sqrt(0.5) + 2) / 2, abs=1e-6)
    assert symmetry_loss(one, 3 * one).item() == pytest.approx(0, abs=1e-6)


def _losses(faces, labels, counts):
    """Return losses and gradients of this process's share."""
    first = sum(counts[: rank()])
    share = slice(first, first + counts[rank()])
    found = []
    for mining in ("hard", "semihard"):
        own = faces[share].clone().requires_grad_()
        loss = triplet_loss(own, labels[share], 0.4, mining) + symmetry_loss(own, faces.roll(1, 0)[share])
        loss.backward()
        found += [loss.detach(), own.grad]
    return found


@pytest.mark.parametrize("counts", [(6, 6), (9, 3), (12, 0)])
def test_two_processes_mine_in_the_joint_batch(counts):
    faces, labels = _faces(12)
    joint = _losses(faces, labels, (12,))
    parts = list(zip(*run_distributed(_losses, 2, faces, labels, counts), strict=True))
    for index in (0, 2):
        torch.testing.assert_close(torch.stack(parts[index]).mean(), joint[index], rtol=0, atol=1e-12)
        torch.testing.assert_close(torch.cat(parts[index + 1]) / 2, joint[index + 1], rtol=0, atol=1e-12)
