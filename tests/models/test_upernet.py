"""UPerNet's head."""

from __future__ import annotations

import pytest
import torch

from farl_lightning.errors import ConfigError
from farl_lightning.models.upernet import UPerHead
from tests.models import dense
from tests.models.conftest import shake


def _maps(widths, sides, dtype=torch.float64):
    return [torch.randn(2, w, s, s + 1, dtype=dtype, requires_grad=True) for w, s in zip(widths, sides, strict=True)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("widths", "sides"), [([3, 4, 5, 6], [24, 12, 6, 3]), ([4, 4, 4], [13, 7, 2]), ([2, 3], [5, 5])]
)
def test_values_gradients_and_statistics(widths, sides, training):
    torch.manual_seed(0)
    head = shake(UPerHead(7, widths, 8, dropout=0.0)).double().train(training)
    slow = UPerHead(7, widths, 8, dropout=0.0).double().train(training)
    slow.load_state_dict(head.state_dict())
    maps = _maps(widths, sides)
    results = []
    for module, logits in ((head, head(maps)), (slow, dense.upernet(slow, maps))):
        cotangent = torch.randn(logits.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        grads = torch.autograd.grad((logits * cotangent).sum(), [*maps, *module.parameters()])
        results.append([logits, *grads, *(b for b in module.buffers() if b.is_floating_point())])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-7, atol=1e-8)


def test_one_number_of_channels_means_four_maps():
    head = UPerHead(2, 5, 4)
    assert head(_maps([5] * 4, [8, 4, 2, 1], torch.float32)).shape == (2, 2, 8, 9)


def test_dropout_drops_whole_channels_in_training_only():
    torch.manual_seed(0)
    head = UPerHead(1, [2, 2], 400, dropout=0.5)
    seen = []
    head.classify.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    maps = _maps([2, 2], [6, 3], torch.float32)
    head.train()(maps)
    dead = (seen[0] == 0).flatten(2).all(2).float().mean()
    assert 0.4 < dead < 0.7
    head.eval()(maps)
    assert (seen[1] == 0).flatten(2).all(2).float().mean() < dead / 2


def test_nothing_works_in_place():
    torch.manual_seed(0)
    maps = _maps([3, 3], [6, 3])
    before = [one.clone() for one in maps]
    UPerHead(2, [3, 3], 4).double()(maps)
    assert all(torch.equal(a, b) for a, b in zip(maps, before, strict=True))


def test_fresh_weights():
    torch.manual_seed(0)
    head = UPerHead(3, 4, 64)
    bound = 64**-0.5  # torch's own default of the last layer, which FaRL keeps
    assert 0.8 * bound < head.classify.weight.abs().max() <= bound
    assert head.fuse.conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)


def test_too_few_maps():
    with pytest.raises(ConfigError, match=r"two maps or more; got \[4\]"):
        UPerHead(2, [4])
