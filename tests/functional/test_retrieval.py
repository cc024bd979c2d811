"""Retrieval ranks against brute force and small cases worked out by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from farl_lightning.functional import retrieval
from farl_lightning.functional.retrieval import (
    chance_recall,
    group_captions,
    recall_at_k,
    retrieval_ranks,
    text_weights,
)


def _angle(*degrees):
    radians = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def _captions(texts, owners, images):
    return group_captions(torch.tensor(texts)[:, None], torch.tensor(owners), images)


def test_any_of_several_captions_answers_an_image():
    captions = _captions([10, 11, 12, 13], [0, 0, 1, 1], 2)
    # from image 0 at 0 degrees: own captions at 40 and 5, those of image 1 at 20 and 90
    ranks = retrieval_ranks(_angle(0, 60), _angle(40, 5, 20, 90), captions)
    assert ranks.image_to_text.tolist() == [1, 2]  # image 1 at 60: 40 is nearer than its own 90, 20 is not
    # caption at 40: image 1 (20 away) before image 0 (40 away); at 20: image 0 before image 1
    assert ranks.text_to_image.tolist() == [2, 1, 2, 1]


def test_an_identical_caption_is_right_for_every_image_that_has_it():
    captions = _captions([7, 7, 8], [0, 1, 2], 3)
    assert captions.first.tolist() == [0, 2]
    ranks = retrieval_ranks(_angle(0, 10, 90), _angle(20, 20, 80), captions)
    assert ranks.image_to_text.tolist() == [1, 1, 1]
    assert ranks.text_to_image.tolist() == [1, 1]
    assert text_weights(captions).tolist() == [2, 1]


def test_a_shared_caption_is_one_candidate():
    captions = _captions([7, 7, 8], [0, 1, 2], 3)
    ranks = retrieval_ranks(_angle(0, 10, 30), _angle(20, 20, 80), captions)
    assert ranks.image_to_text.tolist() == [1, 1, 2]  # one text, not two, comes before image 2's own


def test_repeated_captions_of_one_image_are_one_candidate_but_several_queries():
    captions = _captions([7, 7, 8], [0, 0, 1], 2)
    assert captions.repeats.tolist() == [2, 1]
    assert recall_at_k(torch.tensor([1, 2]), 1, text_weights(captions)).item() == pytest.approx(2 / 3)


def test_ties_count_against_the_model():
    captions = _captions([1, 2, 3], [0, 1, 2], 3)
    ranks = retrieval_ranks(torch.ones(3, 4), torch.ones(3, 4), captions)
    assert ranks.image_to_text.tolist() == ranks.text_to_image.tolist() == [3, 3, 3]


@pytest.mark.parametrize(("behind", "rank"), [(1e-6, 2), (1e-3, 1)])
def test_rounding_decides_no_rank(behind, rank):
    captions = _captions([1, 2], [0, 1], 2)  # at 50 degrees a millionth of a degree changes the cosine by 1.3e-8
    ranks = retrieval_ranks(_angle(0, 120), _angle(50, 50 + behind), captions)
    assert ranks.image_to_text[0] == rank


@pytest.mark.parametrize("side", [0, 1])
def test_features_that_are_not_numbers_rank_last(side):
    features = [torch.eye(3), torch.eye(3)]
    features[side] = torch.full((3, 3), torch.nan)
    ranks = retrieval_ranks(*features, _captions([1, 2, 3], [0, 1, 2], 3))
    assert ranks.image_to_text.tolist() == ranks.text_to_image.tolist() == [3, 3, 3]


def test_an_image_without_caption_is_no_query_but_a_candidate():
    captions = _captions([1, 2], [0, 2], 3)
    ranks = retrieval_ranks(_angle(0, 25, 90), _angle(30, 90), captions)
    assert ranks.image_to_text.tolist() == [1, 0, 1]
    assert ranks.text_to_image.tolist() == [2, 1]
    assert recall_at_k(ranks.image_to_text, 1).item() == 1.0


def test_chance_counts_what_random_order_reaches():
    captions = _captions([7, 7, 8, 9], [0, 1, 1, 2], 4)  # three distinct texts, image 3 has none
    image_to_text, text_to_image = chance_recall(captions)
    assert image_to_text.item() == pytest.approx((1 + 2 + 1) / 3 / 3)
    assert text_to_image.item() == pytest.approx((2 + 2 + 1 + 1) / 4 / 4)


def _brute_force(images, texts, tokens, owners):
    """Ranks by sorting everything, one query at a time."""
    names = [tuple(row) for row in tokens.tolist()]
    distinct = sorted(set(names))
    similarity = F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T
    columns = {name: similarity[:, names.index(name)] for name in distinct}
    have = [{names[t] for t in range(len(names)) if owners[t] == i} for i in range(len(images))]
    by_image = [
        1 + next(r for r, n in enumerate(sorted(distinct, key=lambda n: -columns[n][i])) if n in have[i])
        for i in range(len(images))
    ]
    by_text = [1 + next(r for r, i in enumerate((-columns[n]).argsort().tolist()) if n in have[i]) for n in distinct]
    return by_image, by_text


@pytest.mark.parametrize("chunk", [1, 40, 1 << 20])
def test_brute_force_agrees_for_every_size_of_block(monkeypatch, chunk):
    monkeypatch.setattr(retrieval, "_CHUNK", chunk)
    generator = torch.Generator().manual_seed(3)
    owners = torch.arange(12).repeat_interleave(torch.tensor([1, 2, 3] * 4))
    tokens = torch.randint(1, 4, (24, 2), generator=generator)
    prototypes = torch.randn(10, 10, 6, dtype=torch.float64, generator=generator)
    texts = prototypes[tokens[:, 0], tokens[:, 1]]  # equal captions have equal features
    images = torch.randn(12, 6, dtype=torch.float64, generator=generator)
    ranks = retrieval_ranks(images, texts, group_captions(tokens, owners, 12))
    by_image, by_text = _brute_force(images, texts, tokens, owners)
    assert ranks.image_to_text.tolist() == by_image
    assert ranks.text_to_image.tolist() == by_text


def test_nothing_to_retrieve_gives_nan():
    captions = group_captions(torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), 0)
    ranks = retrieval_ranks(torch.zeros(0, 4), torch.zeros(0, 4), captions)
    assert recall_at_k(ranks.image_to_text, 1).isnan()
    assert all(value.isnan() for value in chance_recall(captions))
