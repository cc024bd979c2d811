"""Attributes, classes and ages: built for their data, trained on known labels, judged once per face, saved as data."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from farl_lightning import losses
from farl_lightning.errors import ConfigError
from farl_lightning.functional.distributed import rank, world_size
from farl_lightning.models.heads.pooled import PooledLinearHead, SharedLinear
from farl_lightning.tasks import AgeTask, AttributeTask, BaseTask, ClassificationTask, OptimConfig, PaperResult
from farl_lightning.testing.distributed import run_distributed
from farl_lightning.types import FaceSpec
from tests.tasks import faces, labelled, tiny
from tests.tasks.test_base import cli
from tests.tasks.test_dense_ranks import trainer as rank_trainer

NETWORK = "{image: {image_size: 16, patch_size: 8, width: 24, depth: 2, heads: 2}}"
METHODS = ["AgeExpectation", "AgeMeanVariance", "AgeDistribution", "AgeOrdinal", "AgeRegression"]


def fit(task, folder, **changes):
    settings = {"max_steps": 40, "val_check_interval": 3, "limit_val_batches": 0, **changes}
    run = tiny.trainer(folder, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.fit(task, datamodule=labelled.LabelledData())
    return run


def test_the_network_is_built_for_the_data():
    task = labelled.task("attributes")
    assert not task.is_built
    task.set_spec(labelled.SPEC)
    assert task.metric.names == ("Red", "Green")
    assert task(torch.zeros(2, 3, 16, 16)).shape == (2, 2)
    task = labelled.task("classification")
    task.set_spec(labelled.SPEC)
    assert task.metric.names == ("calm", "glad", "sad")
    assert task(torch.zeros(2, 3, 16, 16)).sum(1).tolist() == pytest.approx([1, 1])
    assert labelled.task("age")(torch.zeros(2, 3, 16, 16)).shape == (2,)


def test_data_that_do_not_fit():
    with pytest.raises(ConfigError, match=r"no labels 'moood'. Did you mean 'mood'"):
        labelled.task("classification", column="moood").set_spec(labelled.SPEC)
    with pytest.raises(ConfigError, match=r"labels 'mood' are classes \(calm, glad, sad\), not years"):
        labelled.task("age", column="mood").set_spec(labelled.SPEC)
    with pytest.raises(ConfigError, match=r"has 4 classes, the data 3: remove model.num_classes"):
        labelled.task("classification", num_classes=4).set_spec(labelled.SPEC)
    task = labelled.task("age", column="height")
    with pytest.raises(ConfigError, match="the data has no labels 'height'"):
        task.labels({"labels": {"age": torch.zeros(1)}})


def test_data_without_labels_stop_a_task_that_is_not_built(tmp_path):
    with pytest.raises(ConfigError, match="AttributeTask does not know its number of attributes"):
        tiny.trainer(tmp_path).fit(labelled.task("attributes"), datamodule=labelled.LabelledData(FaceSpec(16)))


@pytest.mark.parametrize("kind", labelled.KINDS)
def test_each_learns_and_is_judged_beside_its_baseline(tmp_path, kind):
    task = labelled.task(kind, reference={"unmeasured": PaperResult(1.0)})
    run = fit(task, tmp_path)
    (found,) = run.test(task, datamodule=labelled.LabelledData(), verbose=False)
    key = f"test/{task.judged_by}"
    entry = task.references[key]
    if kind == "age":
        assert found[key] < 5 < entry["baseline"]
        assert found["test/epsilon_error"] < 1
        assert sum(row["faces"] for row in task.tables["per_decade"]) == 8
    else:
        assert found[key] > 90 > entry["baseline"]
    assert entry["low"] <= entry["high"]
    assert task.references["test/unmeasured"]["paper"] == 1.0
    assert found["test/unknown_labels"] == 2  # of faces 4 and 9; the eleventh face is a repeat
    assert found["test/loss"] > 0


def test_published_numbers_stay_beside_the_baseline(tmp_path):
    task = labelled.task("attributes", reference={"accuracy_mean": PaperResult(91.39, "frozen", "recalled")})
    run = tiny.trainer(tmp_path)
    run.test(task, datamodule=labelled.LabelledData(), verbose=False)
    entry = task.references["test/accuracy_mean"]
    assert entry["paper"] == 91.39
    assert entry["kind"] == "majority"


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_age_learns(tmp_path, method):
    task = labelled.task("age", method=getattr(losses, method)(0, 60))
    run = fit(task, tmp_path, max_steps=60)
    (found,) = run.test(task, datamodule=labelled.LabelledData(), verbose=False)
    assert found["test/mae"] < 0.6 * task.references["test/mae"]["baseline"]
    assert isinstance(task.model.head.classify, SharedLinear) == (method == "AgeOrdinal")


@pytest.mark.parametrize("kind", labelled.KINDS)
@pytest.mark.parametrize("tuning", ["frozen", "linear"])
def test_what_moves(tmp_path, kind, tuning):
    task, watch = labelled.task(kind, tuning=tuning), faces.OnlyTrained()
    fit(task, tmp_path, max_steps=2, callbacks=[watch])
    assert {name.split(".")[0] for name in watch.moved} == {"head"}
    assert isinstance(task.model.head, PooledLinearHead) == (tuning == "linear")


def test_lora_moves_adapters_alone_in_the_encoder(tmp_path):
    pytest.importorskip("peft", reason="the extra 'lora' is not installed")
    task, watch = labelled.task("attributes", tuning="lora", lora_rank=2), faces.OnlyTrained()
    fit(task, tmp_path, max_steps=2, callbacks=[watch])
    in_encoder = {name for name in watch.moved if name.startswith("encoder.")}
    assert in_encoder
    assert all(".lora_" in name for name in in_encoder)
    assert any(name.startswith("head.") for name in watch.moved)


def test_a_head_is_taken_over_where_it_fits(tmp_path):
    first = labelled.task("attributes")
    fit(first, tmp_path, max_steps=1).save_checkpoint(tmp_path / "x.ckpt")
    same = labelled.task("attributes", num_attributes=2, seed=1)
    same.load(str(tmp_path / "x.ckpt"))
    torch.testing.assert_close(same.model.state_dict(), first.model.state_dict())
    other = labelled.task("attributes", labelled.network(head="linear"), num_attributes=2)
    before = other.model.head.classify.weight.clone()
    other.load(str(tmp_path / "x.ckpt"))
    torch.testing.assert_close(other.model.head.classify.weight, before)
    torch.testing.assert_close(other.model.encoder.state_dict(), first.model.encoder.state_dict())


@pytest.mark.parametrize(
    ("kind", "options", "build"),
    [
        (
            "AttributeTask",
            ["--model.loss=farl_lightning.losses.AttributeLoss"],
            lambda s: AttributeTask(loss=losses.AttributeLoss(), **s),
        ),
        ("ClassificationTask", ["--model.column=mood"], lambda s: ClassificationTask("mood", **s)),
        (
            "AgeTask",
            ["--model.method=farl_lightning.losses.AgeOrdinal", "--model.method.max_age=60"],
            lambda s: AgeTask(losses.AgeOrdinal(0, 60), **s),
        ),
    ],
)
def test_python_and_command_line_save_the_same_and_load_without_a_model_section(tmp_path, kind, options, build):
    run = cli(
        "fit",
        f"--model=farl_lightning.{kind}",
        *options,
        f"--model.network={NETWORK}",
        "--model.optim={lr: 0.001, schedule: constant, group_lrs: {encoder: 0.0001}}",
        "--data=tests.tasks.labelled.LabelledData",
        "--trainer.max_steps=1",
        "--trainer.limit_val_batches=0",
    )
    run.trainer.save_checkpoint(tmp_path / "cli.ckpt")
    optim = OptimConfig(lr=0.001, schedule="constant", group_lrs={"encoder": 1e-4})
    task = build({"network": labelled.network(), "optim": optim})
    trainer = tiny.trainer(tmp_path, max_steps=1, limit_val_batches=0)
    trainer.fit(task, datamodule=labelled.LabelledData())
    trainer.save_checkpoint(tmp_path / "python.ckpt")
    saved = [torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("cli", "python")]
    assert saved[0]["hyper_parameters"] == saved[1]["hyper_parameters"]
    assert saved[0]["face_spec"] == saved[1]["face_spec"]
    again = BaseTask.load_from_checkpoint(tmp_path / "python.ckpt", weights_only=True).eval()
    assert type(again).__name__ == kind
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(again(images), task.eval()(images))


@pytest.mark.parametrize("kind", labelled.KINDS)
def test_predictions_have_names(tmp_path, kind):
    task = labelled.task(kind, tta_flip=True)
    batches = tiny.trainer(tmp_path).predict(task, datamodule=labelled.LabelledData())
    assert [key for batch in batches for key in batch["key"]] == [f"crop-{index}" for index in range(11)]
    names = {"attributes": ["Red", "Green"], "classification": ["mood_calm", "mood_glad", "mood_sad"], "age": ["age"]}
    assert list(batches[0]["answers"]) == names[kind]
    assert all(values.shape == (4,) for values in batches[0]["answers"].values())
    crops = torch.stack([labelled.Crops(4)[index]["image"] for index in range(4)])
    with torch.no_grad():
        expected = (task.eval()(crops) + task(crops.flip(-1))) / 2
    torch.testing.assert_close(torch.stack(list(batches[0]["answers"].values()), -1), expected.view(4, -1))


def evaluate(kind: str) -> dict[str, float]:
    """Test in this process group, through a real Trainer."""
    import tempfile

    torch.set_num_threads(1)
    task = labelled.task(kind)
    with tempfile.TemporaryDirectory() as folder:
        (found,) = rank_trainer(folder).test(task, datamodule=labelled.LabelledData(), verbose=False)
    return found | {f"reference/{name}": value for name, value in task.references[f"test/{task.judged_by}"].items()}


def gradient(kind: str) -> list[torch.Tensor]:
    """Return the gradient of one step on ten crops with unevenly many unknown labels, averaged over processes."""
    task = labelled.task(kind)
    task.set_spec(labelled.SPEC)
    task.log_loss = lambda *_: None  # there is no Trainer
    rows = range(10) if world_size() == 1 else (range(4, 10) if rank() else range(4))
    batch = labelled.collate_faces([labelled.Crops(10)[index] for index in rows])
    task._step(batch, 0, "train").backward()
    found = [p.grad for p in task.model.parameters() if p.grad is not None]
    if world_size() > 1:
        for grad in found:
            torch.distributed.all_reduce(grad)
            grad /= world_size()
    return found


@pytest.mark.parametrize("kind", labelled.KINDS)
def test_two_processes_give_the_metrics_and_the_gradients_of_one(kind):
    alone = evaluate(kind)
    for found in run_distributed(evaluate, 2, kind):
        assert found.pop("test/loss") == pytest.approx(alone["test/loss"], rel=1e-6)
        assert found == {name: value for name, value in alone.items() if name != "test/loss"}
    one = gradient(kind)
    for grads in run_distributed(gradient, 2, kind):
        torch.testing.assert_close(grads, one, rtol=1e-4, atol=1e-6)


def test_a_batch_without_any_label_ends_no_run():
    task = labelled.task("age")
    task.log_loss = lambda *_: None
    batch = labelled.collate_faces([labelled.Crops(10)[4], labelled.Crops(10)[9]])
    assert batch["labels"]["age"].isnan().all()
    loss = task._step(batch, 0, "train")
    loss.backward()
    assert loss == 0
    assert all(math.isfinite(p.grad.sum()) for p in task.model.parameters() if p.grad is not None)
