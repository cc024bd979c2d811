"""Zero-shot answers against small cases worked out by hand."""

from __future__ import annotations

import pytest
import torch

from farl_lightning.functional.zero_shot import attribute_features, attribute_logits, prompt_ensemble

VECTORS = {
    "yes": [3.0, 0.0, 0.0],
    "yes!": [0.0, 5.0, 0.0],
    "no": [0.0, 0.0, 2.0],
    "old": [0.0, -1.0, 0.0],
    "young": [0.0, 1.0, 0.0],
}


def _encode(prompts):
    return torch.tensor([VECTORS[prompt] for prompt in prompts])


def test_ensemble_weighs_prompts_equally():
    merged = prompt_ensemble(torch.tensor([[10.0, 0.0], [0.0, 0.1]]))
    torch.testing.assert_close(merged, torch.full((2,), 0.5**0.5))


def test_classes_stand_as_labels_count_and_answers_follow():
    features = attribute_features(_encode, [(["yes", "yes!"], ["no"]), (["young"], ["old"])])
    assert features.shape == (2, 2, 3)
    assert features[0, 0].tolist() == [0, 0, 1]
    assert features[0, 1].tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0])
    assert features[1].tolist() == [[0, -1, 0], [0, 1, 0]]
    logits = attribute_logits(torch.tensor([[4.0, 0.0, 0.0], [0.0, -1.0, 2.0]]), features)
    assert logits[0, 0].tolist() == pytest.approx([0, 0.5**0.5])
    assert logits.argmax(-1).tolist()[1] == [0, 0]


def test_half_precision_features_are_lifted():
    features = attribute_features(lambda prompts: _encode(prompts).bfloat16(), [(["yes"], ["no"])])
    assert attribute_logits(torch.ones(1, 3, dtype=torch.bfloat16), features).dtype == torch.float32
