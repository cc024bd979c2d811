"""Labels told by prompts: against the features themselves, intervals, own prompts, several processes, subgroups."""

from __future__ import annotations

import math

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from farl_lightning.callbacks import SubgroupResults
from farl_lightning.errors import ConfigError
from farl_lightning.functional.bootstrap import bootstrap_counts
from farl_lightning.functional.distributed import rank, world_size
from farl_lightning.functional.zero_shot import class_features, class_similarity
from farl_lightning.metrics import ClassificationScores
from farl_lightning.models.zero_shot import text_encoder
from farl_lightning.objectives import Contrastive, MaskedImage
from farl_lightning.tasks import PretrainTask
from farl_lightning.tasks.zero_shot import Question, ZeroShot, class_findings
from farl_lightning.testing.distributed import run_distributed
from farl_lightning.text.prompts import ATTRIBUTE_PROMPTS, class_prompts
from farl_lightning.transforms.collate_faces import collate_faces
from farl_lightning.types import FaceSpec
from tests.tasks import tiny

GENDERS, AGES = ("male", "female"), ("0-19", "20-59", "60+")
SIZE = tiny.config().image.image_size
SPEC = FaceSpec(
    image_size=SIZE,
    attributes=("Smiling", "Odd"),
    label_names={"gender": GENDERS, "age": (), "age_group": AGES, "mood": ("calm", "glad")},
)


def face(index: int) -> dict:
    generator = torch.Generator().manual_seed(index)
    labels = {
        "gender": torch.tensor(-1 if index == 5 else index % 2),
        "age": torch.tensor(math.nan if index == 3 else 9.0 * index),
        "age_group": torch.tensor(index % 3),
        "mood": torch.tensor(index % 2),
        "attributes": torch.tensor([index % 2, 1]),
    }
    image = torch.randn(3, SIZE, SIZE, generator=generator)
    return {"key": f"face-{index}", "image": image, "labels": labels, "valid": index < 9}


class Labelled(L.LightningDataModule):
    """Ten faces with labels and no captions; the last is a repeat."""

    spec = SPEC

    def test_dataloader(self) -> DataLoader:
        return DataLoader([face(index) for index in range(10)], batch_size=4, collate_fn=collate_faces)


def task(**changes) -> PretrainTask:
    torch.manual_seed(0)
    return tiny.task({"c": Contrastive()}, **changes).eval()


def told(task: PretrainTask, prompts: list[list[str]], faces=range(9)) -> torch.Tensor:
    """Answer by the features themselves."""
    images = torch.stack([face(index)["image"] for index in faces])
    with torch.no_grad():
        features = task(images)[0]
        return class_similarity(features, class_features(text_encoder(task.model.clip), prompts)).argmax(1)


def test_labels_are_told_by_prompts(tmp_path):
    model = task()
    callback = SubgroupResults(["gender", "mood"], min_faces=1)
    run = tiny.trainer(tmp_path, callbacks=[callback])
    (found,) = run.test(model, datamodule=Labelled(), verbose=False)
    answers = told(model, class_prompts("gender", GENDERS)).tolist()
    right = [float(answers[i] == i % 2) for i in range(9) if i != 5]
    assert found["test/zero_shot_gender"] == pytest.approx(sum(right) / 8, abs=1e-6)
    groups = told(model, class_prompts("age_group", AGES)).tolist()
    assert found["test/zero_shot_age_group"] == pytest.approx(sum(groups[i] == i % 3 for i in range(9)) / 9, abs=1e-6)
    smiles = told(model, ATTRIBUTE_PROMPTS["Smiling"][::-1]).tolist()
    assert found["test/zero_shot_Smiling"] == pytest.approx(sum(smiles[i] == i % 2 for i in range(9)) / 9, abs=1e-6)
    assert found["test/zero_shot_mean"] == pytest.approx(found["test/zero_shot_Smiling"], abs=1e-6)
    assert "test/zero_shot_age" in found
    assert "test/zero_shot_mood" not in found  # nobody knows prompts of it
    judged = callback._tables["mood"]
    assert (judged.faces, sum(row["faces"] for row in judged.rows)) == (9, 9)


def test_every_number_has_a_baseline_and_an_interval(tmp_path):
    model = task()
    (found,) = tiny.trainer(tmp_path).test(model, datamodule=Labelled(), verbose=False)
    wide = 0
    for key in found:
        if not key.endswith("_majority"):
            entry = model.references[key]
            assert entry["low"] <= found[key] - entry["baseline"] + 1e-6
            assert found[key] - entry["baseline"] <= entry["high"] + 1e-6
            wide += entry["low"] < entry["high"]
    assert wide >= 3  # one answer for all faces is the majority's without any doubt; not all are such
    assert model.references["test/zero_shot_gender"]["baseline"] == pytest.approx(5 / 8)
    assert model.references["test/zero_shot_age_group_balanced"]["baseline"] == pytest.approx(1 / 3)


def test_years_are_cut_into_groups():
    question = Question(("<10", "10-20", ">=20"), [], (10, 20))
    years = torch.tensor([0.0, 9.5, 10.0, 19.9, 20.0, 99.0, math.nan])
    assert question.truth(years).tolist() == [0, 0, 1, 1, 2, 2, -1]
    assert ZeroShot(SPEC).questions["age"].names[:2] == ("<3", "3-10")


def test_own_prompts_and_chosen_labels():
    model = task(zero_shot=["mood", "Odd"], prompts={
        "mood": {"calm": ["a calm face"], "glad": ["a glad face"]},
        "Odd": {"yes": ["an odd face"], "no": ["a common face"]},
    })  # fmt: skip
    model.set_spec(SPEC)
    zero_shot = model.evaluation.zero_shot
    assert (list(zero_shot.columns), list(zero_shot.questions)) == (["Odd"], ["mood"])
    with pytest.raises(ConfigError, match=r"'expresion' has no prompts\. Did you mean 'expression'"):
        task(zero_shot=["expresion"])
    with pytest.warns(UserWarning, match="zero-shot leaves out expression: the data has no such labels"):
        ZeroShot(SPEC, ["expression"])


def test_intervals_are_those_of_resampled_faces():
    generator = torch.Generator().manual_seed(0)
    truth = torch.multinomial(torch.tensor([0.6, 0.3, 0.1]), 90, replacement=True, generator=generator)
    noise = torch.randint(3, (90,), generator=generator)
    answers = torch.where(torch.rand(90, generator=generator) < 0.7, truth, noise)
    scores = ClassificationScores(3)
    scores.update(answers, truth)
    entry = class_findings("x", scores).references["x_balanced"]
    draws = torch.randint(90, (4000, 90), generator=generator)
    right = (answers == truth).double()[draws]
    recalls = [(right * (truth[draws] == k)).sum(1) / (truth[draws] == k).sum(1) for k in range(3)]
    ends = (torch.stack(recalls).nanmean(0) - 1 / 3).nanquantile(torch.tensor([0.025, 0.975]).double()).tolist()
    assert [entry["low"], entry["high"]] == pytest.approx(ends, abs=0.025)


def test_resampled_counts_are_multinomial():
    counts = torch.tensor([5, 0, 12, 3])
    draws = bootstrap_counts(counts, resamples=20_000)
    assert (draws.sum(1) == 20).all()
    assert (draws[:, 1] == 0).all()
    assert draws.mean(0).tolist() == pytest.approx(counts.tolist(), abs=0.06)
    assert draws[:, 2].var().item() == pytest.approx(20 * 0.6 * 0.4, rel=0.05)
    assert torch.cov(draws.T)[0, 2].item() == pytest.approx(-20 * 0.25 * 0.6, rel=0.1)
    assert bootstrap_counts(torch.zeros(2), resamples=3).tolist() == [[0, 0]] * 3


def test_a_network_that_reads_no_prompts_says_so(tmp_path):
    model = tiny.task({"m": MaskedImage(depth=1)})
    with pytest.raises(ConfigError, match="none of the data's labels can be told by prompts"):
        tiny.trainer(tmp_path).test(model, datamodule=Labelled(), verbose=False)
    config = tiny.config()
    config.text = None
    with pytest.raises(ConfigError, match="needs a text tower"):
        text_encoder(type(model.model.clip)(config))


def shares() -> dict[str, float]:
    torch.set_num_threads(1)
    model, zero_shot = task(), ZeroShot(SPEC)
    rows = [index for index in range(9) if index % world_size() == rank()]
    batch = collate_faces([face(index) for index in rows])
    with torch.no_grad():
        zero_shot.update(model.model.clip, model(batch["image"])[0], batch["labels"])
        found = zero_shot.compute()
    return {k: v.item() for k, v in found.values.items()} | {k: r["low"] for k, r in found.references.items()}


def test_two_processes_find_what_one_finds():
    (alone,) = run_distributed(shares, 1)
    for found in run_distributed(shares, 2):
        assert found == pytest.approx(alone, abs=1e-6)
