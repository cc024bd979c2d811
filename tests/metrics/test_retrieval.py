"""Retrieval recall: padding, identical captions, several processes, the size of a benchmark."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from farl_lightning.errors import ConfigError
from farl_lightning.functional.distributed import rank
from farl_lightning.metrics import RetrievalRecall
from farl_lightning.testing.distributed import run_distributed


def _data(images=11, captions=3, seed=0):
    """Images, caption features, tokens (some captions shared, some padding)."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, 4, (images, captions, 2), generator=generator)
    tokens[torch.arange(images) % 3 == 0, -1] = 0  # every third image has a caption less
    features = torch.randn(4, 4, 6, generator=generator)[tokens[..., 0], tokens[..., 1]]
    return torch.randn(images, 6, generator=generator), features, tokens


def _compute(parts, **kwargs):
    metric = RetrievalRecall(**kwargs)
    for part in parts:
        metric.update(*part)
    return metric.compute()


def test_recalls_and_chance_by_hand():
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[1, 2], [3, 4]])[:, None]
    features = torch.tensor([[0.6, 0.8], [-0.6, 0.8]])[:, None]
    # image 0: own .6, other -.6 -> rank 1; image 1: both .8, a tie -> rank 2; text 0: own .6, other .8 -> 2; text 1: 1
    values = _compute([(images, features, texts)], ks=(1, 2))
    assert values == {
        "image_to_text_r1": 0.5,
        "image_to_text_r2": 1.0,
        "text_to_image_r1": 0.5,
        "text_to_image_r2": 1.0,
        "chance_r1": 0.5,
    }


def test_padding_rows_may_hold_anything_or_be_left_out():
    images, features, tokens = _data()
    spoiled = features.masked_fill((tokens == 0).all(-1)[..., None], torch.nan)
    flat = features[(tokens != 0).any(-1)]
    expected = _compute([(images, features, tokens)])
    assert _compute([(images, spoiled, tokens)]) == expected
    assert _compute([(images, flat, tokens)]) == expected
    assert 0 < expected["image_to_text_r1"] < expected["image_to_text_r10"] <= 1


def test_batches_and_samples_that_are_not_valid_change_nothing():
    images, features, tokens = data = _data()
    first, second = (tuple(x[part] for x in data) for part in (slice(0, 4), slice(2, 11)))
    valid = torch.arange(9) >= 2  # rows 2 and 3 are repeats
    assert _compute([first, (*second, valid)]) == _compute([(images, features, tokens)])


def test_batches_may_differ_in_captions_per_image():
    images, features, tokens = _data()
    cut = (images[:1], features[:1, :2], tokens[:1, :2])  # image 0 has two captions
    assert _compute([cut, (images[1:], features[1:], tokens[1:])]) == _compute([(images, features, tokens)])


def _on_rank(parts):
    return _compute(parts[rank()])


@pytest.mark.parametrize("cut", [5, 9])
def test_several_processes_count_every_sample_once(cut):
    data = _data()
    shares = [tuple(x[:cut] for x in data), tuple(x[cut - 1 :] for x in data)]  # one row on both
    second = (*shares[1], torch.arange(len(shares[1][0])) > 0)
    expected = _compute([data])
    assert run_distributed(_on_rank, 2, [[shares[0]], [second]]) == [expected, expected]


def test_a_process_without_valid_samples():
    data = _data()
    nothing = (*data, torch.zeros(len(data[0]), dtype=torch.bool))
    expected = _compute([data])
    assert run_distributed(_on_rank, 2, [[nothing], [data]]) == [expected, expected]


def test_thousands_of_captions_are_counted_in_blocks():
    generator = torch.Generator().manual_seed(0)
    images = F.normalize(torch.randn(2000, 8, generator=generator), dim=1)
    texts = images[:, None] + 0.2 * torch.randn(2000, 5, 8, generator=generator)
    tokens = torch.arange(1, 10001).reshape(2000, 5, 1)
    values = _compute([(images, texts, tokens)])
    similarity = (F.normalize(texts, dim=-1) @ images.T).flatten(0, 1)
    expected = (similarity.argmax(1) == torch.arange(2000).repeat_interleave(5)).float().mean()
    assert 0.3 < expected < 0.5
    assert values["text_to_image_r1"].item() == pytest.approx(expected.item(), abs=2e-4)
    assert values["chance_r1"].item() == pytest.approx(1 / 2000)


def test_half_precision_and_reset():
    images, features, tokens = _data()
    metric = RetrievalRecall()
    metric.update(images.bfloat16(), features.bfloat16(), tokens)
    assert all(value.dtype == torch.float32 for value in metric.compute().values())
    metric.reset()
    metric.update(images, features, tokens)
    assert metric.compute() == _compute([(images, features, tokens)])


def test_mistakes_are_explained():
    with pytest.raises(ConfigError, match=r"ks=\(0, 1\)"):
        RetrievalRecall(ks=(0, 1))
    images, features, tokens = _data()
    with pytest.raises(ConfigError, match=r"give \(B, E\), \(B, K, E\) and \(B, K, L\)"):
        RetrievalRecall().update(images[:3], features, tokens)
