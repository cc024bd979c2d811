"""Verification: people are learned, others are judged by pairs and by rank, and files say what they need to."""

from __future__ import annotations

import json
import math
import tempfile
import warnings

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import WeightAveraging

from farl_lightning.errors import CheckpointError, ConfigError
from farl_lightning.functional.distributed import rank
from farl_lightning.losses.margin import margin_logits, symmetry_loss, triplet_loss
from farl_lightning.models.attributes import FaceEmbedder
from farl_lightning.models.dense_checkpoint import read_dense
from farl_lightning.tasks import BaseTask, OptimConfig, PaperResult, VerificationTask
from farl_lightning.testing.distributed import run_distributed
from farl_lightning.types import FaceSpec
from tests.tasks import faces, labelled, people, tiny
from tests.tasks.test_base import cli
from tests.tasks.test_dense_ranks import trainer as rank_trainer

NETWORK = "{image: {image_size: 16, patch_size: 8, width: 24, depth: 2, heads: 2}}"


def fit(task, folder, data=None, **changes):
    run = tiny.trainer(folder, **{"max_steps": 40, "limit_val_batches": 0, **changes})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.fit(task, datamodule=data or people.PeopleData(), ckpt_path=changes.pop("ckpt_path", None))
    return run


def batch(rows=range(6)):
    return labelled.collate_faces([people.Faces(0, people.PEOPLE)[row] for row in rows])


def quiet(task):
    task.log_loss = lambda *_: None  # there is no Trainer
    return task


@pytest.mark.parametrize(
    "settings",
    [{"loss": "arcface"}, {"loss": "cosface", "symmetry_weight": 0.5}, {"loss": "triplet", "mining": "hard"}],
)
def test_each_loss_learns_to_tell_unseen_people_apart(tmp_path, settings):
    task = people.task(**settings, margin=0.2)
    before = fit(task, tmp_path, max_steps=0).test(task, datamodule=people.PeopleData(), verbose=False)
    fit(task, tmp_path, max_steps=60)
    found, _ = tiny.trainer(tmp_path).test(task, datamodule=people.PeopleData(), verbose=False)
    entry = task.references["test/accuracy_mean"]
    assert entry["baseline"] == 50
    assert entry["kind"] == "majority"
    assert 0 < entry["low"] <= found["test/accuracy_mean"] - 50 <= entry["high"]
    assert found["test/accuracy_lfw"] == found["test/accuracy_cfp"] == found["test/accuracy_mean"] > 85
    assert found["test/auc_lfw"] > max(95, before[0]["test/auc_lfw"] - 1)
    assert found["test/rank1_lfw"] == found["test/rank1_mean"] > 85
    assert "test/rank1_cfp" not in found
    assert found["test/missing_pairs_lfw"] == 0
    assert {row["trial"] for row in task.tables["per_fold"]} == {"lfw", "cfp"}
    assert [row["k"] for row in task.tables["per_rank"]] == [1, 5, 10]
    assert set(task.findings["roc"]) == {"lfw", "cfp"}


def test_the_loss_by_hand():
    task = quiet(people.task(loss="cosface", margin=0.3, symmetry_weight=0.5))
    task.set_spec(people.SPEC)
    task.eval()  # running statistics, so that two passes are as one
    some = batch()
    embeddings, mirrored = task(some["image"]), task(some["image"].flip(-1))
    known = some["labels"]["identity"] >= 0
    assert int((~known).sum()) == 1
    centres = torch.nn.functional.normalize(task.model.margin.centres.weight, dim=1)
    logits = margin_logits(embeddings @ centres.T, some["labels"]["identity"], "cosface", 0.3, 16.0)
    expected = torch.nn.functional.cross_entropy(logits[known], some["labels"]["identity"][known])
    expected = expected + 0.5 * symmetry_loss(embeddings, mirrored)
    torch.testing.assert_close(task._step(some, 0, "train"), expected)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(6))


def test_triplets_have_no_centres():
    task = quiet(people.task(loss="triplet"))
    task.set_spec(people.SPEC)
    assert task.model.margin is None
    assert task.margin == 0.2
    task.eval()
    expected = triplet_loss(task(batch()["image"]), batch()["labels"]["identity"], 0.2, "semihard")
    torch.testing.assert_close(task._step(batch(), 0, "train"), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "arcfcae"}, "loss 'arcfcae' is not known. Did you mean 'arcface'"),
        ({"mining": "easy"}, "mining 'easy' is not known"),
        ({"symmetry_weight": -1.0}, "symmetry_weight is -1.0; it must be 0"),
        ({"embedding_size": 0}, "FaceEmbedder needs 1 or more outputs; got 0"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(ConfigError, match=message):
        people.task(**settings)


def test_a_margin_that_cannot_work_is_refused_with_the_data():
    with pytest.raises(ConfigError, match="arcface with margin=5"):
        people.task(margin=5.0).set_spec(people.SPEC)


def test_data_that_do_not_fit(tmp_path):
    with pytest.raises(ConfigError, match=r"has no classes 'identty'. Did you mean 'identity'"):
        fit(people.task(column="identty"), tmp_path)
    with pytest.raises(ConfigError, match="the data has no labels 'identity'"):
        fit(people.task(loss="triplet"), tmp_path, labelled.LabelledData(FaceSpec(16)))
    task = people.task()
    with pytest.raises(ConfigError, match="LabelledData has no pairs and no galleries to judge embeddings by"):
        tiny.trainer(tmp_path).test(task, datamodule=labelled.LabelledData(FaceSpec(16)), verbose=False)


def test_published_numbers_stay_beside_the_baseline(tmp_path):
    task = people.task(reference={"accuracy_lfw": PaperResult(99.6, "last epoch", "confirmed")}, tta_flip=True)
    tiny.trainer(tmp_path).test(task, datamodule=people.PeopleData(), verbose=False)
    entry = task.references["test/accuracy_lfw"]
    assert (entry["paper"], entry["baseline"]) == (99.6, 50)
    chance = task.references["test/rank1_lfw"]
    assert chance["kind"] == "chance"
    assert 0 < chance["low"] <= chance["high"] <= 90
    json.dumps(task.references, allow_nan=False)


def test_pictures_that_never_came_are_told(tmp_path):
    task = people.task()
    run = tiny.trainer(tmp_path, limit_test_batches=2)
    found = {k: v for part in run.test(task, datamodule=people.PeopleData(), verbose=False) for k, v in part.items()}
    assert 0 < found["test/missing_pairs_lfw"] < 40


class OneFold(people.PeopleData):
    """Pairs that no threshold can be chosen for."""

    def trials(self, split):
        found = people.trial()
        found.pairs.folds[:] = 0
        return {"lfw": found, "cfp": found}


def test_lists_without_an_answer_are_told_and_leave_no_gap(tmp_path, caplog):
    run = tiny.trainer(tmp_path)
    parts = run.test(people.task(), datamodule=OneFold(), verbose=False)
    found = {name: value for part in parts for name, value in part.items()}
    assert math.isnan(found["test/accuracy_mean"])
    assert "test/accuracy_lfw" not in found
    assert "test: accuracy_cfp is left out: 40 pairs lie in fewer than two folds" in caplog.text
    assert "20 pairs of different people cannot tell a false accept rate of 0.01" in caplog.text


def test_predictions_are_embeddings(tmp_path):
    task = people.task(tta_flip=True)
    with torch.no_grad():
        task.model.norm.running_var.fill_(0.01)
    first, second = tiny.trainer(tmp_path).predict(task, datamodule=people.PeopleData())
    assert [key for part in first for key in part["key"]] == [f"100-{index}" for index in range(40)]
    images = torch.stack([people.Faces(100, 10)[index]["image"] for index in range(7)])
    with torch.no_grad():
        both = task.eval()(images) + task(images.flip(-1))
    torch.testing.assert_close(first[0]["image_features"], both / both.norm(dim=1, keepdim=True))
    assert first[0]["valid"].all()
    assert len(second) == len(first)


@pytest.mark.parametrize("tuning", ["frozen", "linear"])
def test_what_moves(tmp_path, tuning):
    task, watch = people.task(tuning=tuning), faces.OnlyTrained()
    fit(task, tmp_path, max_steps=2, callbacks=[watch])
    assert {name.split(".")[0] for name in watch.moved} == {"head", "margin"}


def test_files_hold_no_names_and_come_back(tmp_path):
    task = people.task()
    fit(task, tmp_path, max_steps=2).save_checkpoint(tmp_path / "x.ckpt")
    saved = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert saved["face_spec"]["label_names"] == {"identity": []}
    assert saved["state_dict"]["model.margin.centres.weight"].shape == (people.PEOPLE, 8)
    held = read_dense(tmp_path / "x.ckpt")
    assert (held.kind, held.num_outputs) == ("verification", 8)
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = task.eval()(images)
        torch.testing.assert_close(FaceEmbedder.from_checkpoint(tmp_path / "x.ckpt")(images), expected)
        again = BaseTask.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True).eval()
        torch.testing.assert_close(again(images), expected)
    torch.testing.assert_close(again.model.margin.centres.weight, task.model.margin.centres.weight)
    other = people.task(seed=1)
    other.set_spec(people.SPEC)
    drawn = other.model.margin.centres.weight.clone()
    other.load(str(tmp_path / "x.ckpt"))
    torch.testing.assert_close(other.eval()(images), expected)
    torch.testing.assert_close(other.model.margin.centres.weight, drawn)


def test_training_goes_on_with_the_same_people_alone(tmp_path):
    fit(people.task(), tmp_path, max_steps=1).save_checkpoint(tmp_path / "x.ckpt")
    names = FaceSpec(16, label_names={"identity": ("one", "two", "three")})
    run = tiny.trainer(tmp_path, max_steps=2, limit_val_batches=0)
    with pytest.raises(CheckpointError, match="has learned 6 people, the data has 3: training cannot go on"):
        run.fit(people.task(), datamodule=people.PeopleData(names), ckpt_path=tmp_path / "x.ckpt", weights_only=True)
    task = people.task()
    for spec in (names, FaceSpec(16)):  # a test needs none of them
        found = tiny.trainer(tmp_path).test(
            task, datamodule=people.PeopleData(spec), ckpt_path=tmp_path / "x.ckpt", weights_only=True, verbose=False
        )
        assert found
        assert task.model.margin.centres.rows == 6


def test_python_and_command_line_save_the_same(tmp_path):
    run = cli(
        "fit",
        "--model=farl_lightning.VerificationTask",
        f"--model.network={NETWORK}",
        "--model.embedding_size=8",
        "--model.loss=cosface",
        "--model.optim={lr: 0.001, schedule: constant, group_lrs: {encoder: 0.0001, margin: 0.01}}",
        "--data=tests.tasks.people.PeopleData",
        "--trainer.max_steps=1",
        "--trainer.limit_val_batches=0",
    )
    run.trainer.save_checkpoint(tmp_path / "cli.ckpt")
    optim = OptimConfig(lr=0.001, schedule="constant", group_lrs={"encoder": 1e-4, "margin": 1e-2})
    task = VerificationTask(people.network(), 8, loss="cosface", optim=optim)
    fit(task, tmp_path, max_steps=1).save_checkpoint(tmp_path / "python.ckpt")
    saved = [torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("cli", "python")]
    assert saved[0]["hyper_parameters"] == saved[1]["hyper_parameters"]
    assert saved[0]["face_spec"] == saved[1]["face_spec"]


def sharded(folder: str, steps: int, ckpt: str | None = None, clip: float | None = 0.05) -> dict[str, torch.Tensor]:
    """Train with centres that are shared out, from fixed statistics, and return what was saved."""
    torch.set_num_threads(1)
    optim = OptimConfig(optimizer="sgd", lr=0.5, momentum=0.9, schedule="constant")  # Adam enlarges rounding
    task = people.task(sharded_head=True, tuning="frozen", optim=optim)
    task.model.norm.eval()
    task.model.norm.train = lambda mode=True: task.model.norm  # a batch of one process has other statistics
    run = rank_trainer(folder, max_steps=steps, limit_val_batches=0, gradient_clip_val=clip)
    data = people.PeopleData(batch_size=people.PEOPLE * people.PICTURES)  # one batch: a plain loader resumes no order
    run.fit(task, datamodule=data, ckpt_path=ckpt, weights_only=True)
    run.save_checkpoint(f"{folder}/{steps}-{run.world_size}.ckpt")
    assert task.model.margin.centres.weight.shape[0] == people.PEOPLE // run.world_size
    own = {name: value.detach() for name, value in task.model.named_parameters() if not name.startswith("margin")}
    return own if rank() else torch.load(f"{folder}/{steps}-{run.world_size}.ckpt", weights_only=True)


def test_centres_of_two_processes_train_clip_save_and_resume_as_those_of_one(tmp_path):
    alone = sharded(str(tmp_path), 4)
    first, _ = run_distributed(sharded, 2, str(tmp_path), 2)
    assert first["state_dict"]["model.margin.centres.weight"].shape == (people.PEOPLE, 8)
    ((place,),) = first["sharded_rows"]
    assert first["optimizer_states"][0]["state"][place]["momentum_buffer"].shape == (people.PEOPLE, 8)
    whole, other = run_distributed(sharded, 2, str(tmp_path), 4, str(tmp_path / "2-2.ckpt"))
    for name, value in alone["state_dict"].items():
        torch.testing.assert_close(whole["state_dict"][name], value, rtol=2e-4, atol=2e-6)
        if name.removeprefix("model.") in other:  # clipping left both processes with the same weights
            torch.testing.assert_close(other[name.removeprefix("model.")], whole["state_dict"][name])
    back = sharded(str(tmp_path), 4, str(tmp_path / "2-2.ckpt"))  # on one process, from a file of two
    torch.testing.assert_close(back["state_dict"], alone["state_dict"], rtol=2e-4, atol=2e-6)


def test_what_sharded_centres_do_not_go_with(tmp_path):
    with pytest.raises(ConfigError, match=r"an average of weights \(EMA\) do not go together"):
        fit(people.task(sharded_head=True), tmp_path, callbacks=[WeightAveraging()])
    task = people.task(sharded_head=True)
    run = tiny.trainer(tmp_path)
    task.trainer = run
    task.set_spec(people.SPEC)
    run._accelerator_connector.strategy = L.pytorch.strategies.ModelParallelStrategy()
    with pytest.raises(ConfigError, match="works on one device and with DDP, not with ModelParallelStrategy"):
        task._check_trainer()


def evaluate() -> dict[str, float]:
    torch.set_num_threads(1)
    task = people.task()
    with tempfile.TemporaryDirectory() as folder:
        found = rank_trainer(folder).test(task, datamodule=people.PeopleData(), verbose=False)
    return {name: value for part in found for name, value in part.items()}


def test_two_processes_give_the_scores_of_one():
    alone = evaluate()
    for found in run_distributed(evaluate, 2):
        assert found == alone
