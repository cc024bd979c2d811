"""The evaluation by itself: what is evaluated, prompts, exact sums over processes."""

from __future__ import annotations

import pytest
import torch

from farl_lightning.functional.distributed import rank, world_size
from farl_lightning.objectives import Contrastive
from farl_lightning.tasks import PretrainTask
from farl_lightning.tasks.evaluation import PretrainEvaluation
from farl_lightning.testing.distributed import run_distributed
from farl_lightning.types import FaceSpec
from tests.tasks import tiny

SPEC = FaceSpec(attributes=tiny.ATTRIBUTES)


def evaluate(batches: list[dict]) -> dict[str, float]:
    task = tiny.task().eval()
    task.model.fit(tiny.Pairs(8, False).images)
    evaluation = PretrainEvaluation(task.model, SPEC)
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
    assert PretrainEvaluation(model, SPEC).zero_shot.columns == {"Eyeglasses": 1, "Smiling": 0}
    assert PretrainEvaluation(model, SPEC, ["Smiling"]).zero_shot.columns == {"Smiling": 0}
    assert PretrainEvaluation(model, SPEC, []).zero_shot is None
    assert PretrainEvaluation(model).zero_shot is None


def test_small_vocabulary_turns_zero_shot_off():
    config = tiny.config()
    config.text.vocab_size, config.text.eos_token_id = 100, 99
    with pytest.warns(UserWarning, match="zero-shot is off: prompts need 49408 tokens, clip.text has 100"):
        assert PretrainEvaluation(PretrainTask(config).model, SPEC).zero_shot is None


def test_nothing_is_left_after_compute():
    task = tiny.task({"c": Contrastive()}).eval()
    evaluation = PretrainEvaluation(task.model, SPEC)
    batch = tiny.collate_pretrain([tiny.Pairs(4, False)[i] for i in range(4)])
    with torch.no_grad():
        evaluation.update(task.model, task.model(batch), batch)
    assert evaluation.compute().values
    assert evaluation.zero_shot._features == {}  # other weights need other features
    assert evaluation.compute().values == {}
