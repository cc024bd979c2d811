"""The evaluation by itself: what is evaluated, prompts, exact sums over processes."""

from __future__ import annotations

import pytest
import torch

from farl_lightning.errors import ConfigError
from farl_lightning.functional.distributed import rank, world_size
from farl_lightning.objectives import Contrastive
from farl_lightning.tasks import PretrainTask
from farl_lightning.tasks.evaluation import PretrainEvaluation, known_prompts, prompt_features
from farl_lightning.testing.distributed import run_distributed
from tests.tasks import tiny


def evaluate(batches: list[dict]) -> dict[str, float]:
    task = tiny.task().eval()
    task.model.fit(tiny.Pairs(8, False).images)
    evaluation = PretrainEvaluation(task.model, tiny.ATTRIBUTES)
    with torch.no_grad():
        for batch in batches:
            evaluation.update(task.model, task.model(batch, also=("image",)), batch)
    return {name: value.item() for name, value in evaluation.compute().values.items()}


def shares() -> dict[str, float]:
    """Evaluate every world_size-th sample; the last process pads with a repeat that is not valid."""
    torch.set_num_threads(1)
    pairs = tiny.Pairs(7, False)
    count = -(-7 // world_size())
    samples = []
    for place in range(count):
        index = place * world_size() + rank()
        samples.append(pairs[index] if index < 7 else {**pairs[0], "valid": torch.tensor(False)})
    return evaluate([tiny.collate_pretrain(samples[i : i + 2]) for i in range(0, count, 2)])


def test_two_processes_count_every_sample_once():
    alone = shares()
    assert alone["image_to_text_r10"] == 1.0
    for result in run_distributed(shares, 2):
        assert result == pytest.approx(alone, abs=1e-6)


def test_only_labelled_attributes_with_prompts_are_evaluated():
    model = tiny.task({"c": Contrastive()}).model
    assert PretrainEvaluation(model, tiny.ATTRIBUTES).columns == {"Eyeglasses": 1, "Smiling": 0}
    assert PretrainEvaluation(model, tiny.ATTRIBUTES, ["Smiling"]).columns == {"Smiling": 0}
    assert PretrainEvaluation(model, tiny.ATTRIBUTES, []).attributes is None
    assert PretrainEvaluation(model, ()).attributes is None


def test_small_vocabulary_turns_zero_shot_off():
    config = tiny.config()
    config.text.vocab_size, config.text.eos_token_id = 100, 99
    with pytest.warns(UserWarning, match="zero-shot is off: prompts need 49408 tokens, clip.text has 100"):
        assert PretrainEvaluation(PretrainTask(config).model, tiny.ATTRIBUTES).columns == {}


def test_nothing_is_left_after_compute():
    task = tiny.task({"c": Contrastive()}).eval()
    evaluation = PretrainEvaluation(task.model, tiny.ATTRIBUTES)
    batch = tiny.collate_pretrain([tiny.Pairs(4, False)[i] for i in range(4)])
    with torch.no_grad():
        evaluation.update(task.model, task.model(batch), batch)
    assert evaluation.compute().values
    assert evaluation._prompts is None  # other weights need other features
    assert evaluation.compute().values == {}


def test_prompt_features_are_unit_directions():
    clip = tiny.task({"c": Contrastive()}).model.clip
    features = prompt_features(clip, ["Smiling", "Male"])
    assert features.shape == (2, 2, 32)
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(2, 2))
    config = tiny.config()
    config.text = None
    with pytest.raises(ConfigError, match="needs a text tower"):
        prompt_features(type(clip)(config), ["Smiling"])


def test_unknown_attribute():
    with pytest.raises(ConfigError, match="Did you mean 'Wearing_Hat'"):
        known_prompts("Wearing_Hats")
