"""PretrainTask end to end at toy size: fit, validate, save, resume, test, on every route."""

from __future__ import annotations

import copy
import warnings

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from farl_lightning.callbacks import EMA
from farl_lightning.errors import ConfigError
from farl_lightning.functional.patches import patchify
from farl_lightning.models.checkpoint import save_farl
from farl_lightning.models.face_clip import FaceCLIP
from farl_lightning.models.image_tokenizer import KMeansTokens, PixelTarget
from farl_lightning.objectives import Contrastive, MaskedImage, Objective, ObjectiveResult
from farl_lightning.tasks import OptimConfig, PretrainTask
from tests.tasks import tiny
from tests.tasks.test_base import StopAfter, cli

MODEL = [
    "--model=PretrainTask",
    "--model.clip.embed_dim=32",
    "--model.clip.image={image_size: 32, patch_size: 8, width: 24, depth: 1, heads: 2}",
    "--model.clip.text={width: 24, depth: 1, heads: 2}",
]


class Losses(L.Callback):
    """Keep the loss of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, *_) -> None:
        self.values.append(outputs["loss"].item())


class Spread(Objective):
    """A user's own objective."""

    needs = frozenset({"image"})

    def __init__(self, weight: float = 1.0, power: int = 2) -> None:
        super().__init__(weight)
        self.power = power

    def forward(self, outputs, batch) -> ObjectiveResult:
        return ObjectiveResult(outputs.image_features.pow(self.power).mean(), {})


def fit(task: PretrainTask, folder, **changes) -> L.Trainer:
    run = tiny.trainer(folder, **changes)
    run.fit(task, datamodule=tiny.TinyData())
    return run


def state(task: PretrainTask) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in task.state_dict().items()}


def test_default_is_farl():
    task = PretrainTask(tiny.config())
    assert {name: type(part) for name, part in task.model.objectives.items()} == {
        "contrastive": Contrastive,
        "masked_image": MaskedImage,
    }
    assert all(name.startswith("model.") for name, _ in task.named_parameters())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_fit_trains_and_reports(tmp_path, precision):
    task = tiny.task()
    before = state(task)
    run = fit(task, tmp_path, precision=precision, gradient_clip_val=1.0)
    still = {name for name, value in state(task).items() if torch.equal(value, before[name].to(value))}
    if precision != "bf16-true":  # there a step of 1e-3 vanishes beside weights of 1
        assert not {name for name in still if "mask_token" not in name and "position_embedding" not in name}
    assert not still & {"model.clip.image_encoder.proj", "model.objectives.masked_image.head.head.weight"}
    expected = {"train/loss", "train/loss_contrastive", "train/loss_masked_image", "train/masked_image_accuracy"}
    expected |= {"val/loss", "val/image_to_text_r1", "val/text_to_image_r10", "val/mim_accuracy", "val/mim_majority"}
    expected |= {"val/zero_shot_Smiling", "val/zero_shot_Eyeglasses_majority"}
    assert expected <= set(run.callback_metrics)
    assert "val/zero_shot_Odd" not in run.callback_metrics  # a label without prompts
    sum_of_losses = run.callback_metrics["train/loss_contrastive"] + run.callback_metrics["train/loss_masked_image"]
    torch.testing.assert_close(run.callback_metrics["train/loss"], sum_of_losses, rtol=1e-2, atol=1e-2)


def test_references_say_chance_and_majority(tmp_path):
    task = tiny.task()
    run = fit(task, tmp_path)
    assert task.references["val/image_to_text_r1"] == {"baseline": 1 / 8, "kind": "chance"}
    assert task.references["val/text_to_image_r5"]["baseline"] == pytest.approx(5 / 8)
    assert task.references["val/image_to_text_r10"]["baseline"] == 1.0
    assert task.references["val/mim_accuracy"]["baseline"] == pytest.approx(
        run.callback_metrics["val/mim_majority"].item()
    )
    smiling = task.references["val/zero_shot_Smiling"]
    assert smiling["baseline"] == 0.5
    assert smiling["low"] <= run.callback_metrics["val/zero_shot_Smiling"] - 0.5 <= smiling["high"]


def test_padding_does_not_count(tmp_path):
    class Padded(tiny.TinyData):
        def val_dataloader(self):
            pairs = tiny.Pairs(8, False)
            plain = [pairs[i] for i in range(8)]
            extra = [{**pairs[0], "valid": torch.tensor(False)}] * 4
            return torch.utils.data.DataLoader(plain + extra, batch_size=4, collate_fn=tiny.collate_pretrain)

    task = tiny.task()
    run = fit(task, tmp_path)
    exact = dict(run.validate(task, datamodule=tiny.TinyData(), verbose=False)[0])
    padded = dict(run.validate(task, datamodule=Padded(), verbose=False)[0])
    assert padded == exact


def test_resume_continues_exactly(tmp_path):
    whole = Losses()
    task = tiny.task(seed=4)
    start = state(task)
    fit(task, tmp_path, max_steps=6, val_check_interval=4, callbacks=[whole, EMA(0.5)])

    first, path = Losses(), tmp_path / "middle.ckpt"
    again = tiny.task(seed=4)
    again.load_state_dict(start)
    stop = [first, EMA(0.5), StopAfter(3, path)]
    fit(again, tmp_path, max_steps=6, val_check_interval=4, callbacks=stop)

    rest, data = Losses(), tiny.TinyData()
    resumed = tiny.task(seed=4, weights="no/such/file.pth")  # not read: the run goes on from a checkpoint
    run = tiny.trainer(tmp_path, max_steps=6, val_check_interval=4, callbacks=[rest, EMA(0.5)])
    run.fit(resumed, datamodule=data, ckpt_path=path, weights_only=True)
    assert first.values + rest.values == whole.values
    assert data.fitted == 0  # the codebook came with the checkpoint
    for name, value in task.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value)


def test_checkpoint_on_every_route(tmp_path):
    task = tiny.task({"contrastive": Contrastive(form="siglip"), "spread": Spread(0.1, power=4)}, zero_shot=["Male"])
    run = fit(task, tmp_path, max_steps=1)
    path = tmp_path / "task.ckpt"
    run.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["face_spec"] == tiny.TinyData().spec.to_dict()
    assert checkpoint["hyper_parameters"]["objectives"]["spread"] == {
        "class_path": "tests.tasks.test_pretrain.Spread",
        "init_args": {"weight": 0.1, "power": 4},
    }
    for kind in (PretrainTask, L.LightningModule):
        loaded = kind.load_from_checkpoint(path, weights_only=True)
        assert isinstance(loaded, PretrainTask)
        assert loaded.model.objectives["spread"].power == 4
        assert loaded.zero_shot == ["Male"]
        assert loaded.spec == tiny.TinyData().spec
        assert all(torch.equal(loaded.state_dict()[name], value) for name, value in task.state_dict().items())
    clip = FaceCLIP.from_checkpoint(path)
    assert torch.equal(clip.image_encoder.proj, task.model.clip.image_encoder.proj)
    assert clip.face_spec == tiny.TinyData().spec


def test_command_line_fits_and_tests_the_same_task(tmp_path):
    target = "{class_path: KMeansTokens, init_args: {vocab_size: 8}}"
    objectives = [
        "--model.objectives={contrastive: {class_path: Contrastive}, masked_image: {class_path: MaskedImage, "
        f"init_args: {{target: {target}}}}}}}",
        "--model.objectives.contrastive.init_args.weight=0.5",
    ]
    trainer = [
        "--trainer.max_steps=1",
        f"--trainer.default_root_dir={tmp_path}",
        "--trainer.enable_checkpointing=false",
    ]
    data = ["--data=tests.tasks.tiny.TinyData"]
    fitted = cli("fit", *MODEL, *objectives, "--model.fit_images=8", "--model.optim.lr=0.01", *trainer, *data)
    path = str(tmp_path / "cli.ckpt")
    fitted.trainer.save_checkpoint(path)
    written = torch.load(path, weights_only=True)["hyper_parameters"]
    python = PretrainTask(
        tiny.config(),
        {"contrastive": Contrastive(weight=0.5), "masked_image": MaskedImage(target=KMeansTokens(8))},
        OptimConfig(lr=0.01),
        fit_images=8,
    )
    assert written == dict(python.hparams)
    tested = cli("test", "--model=PretrainTask", "--model.clip.embed_dim=32", *data, f"--ckpt_path={path}")
    assert tested.model.hparams == fitted.model.hparams
    assert tested.trainer.callback_metrics["test/mim_accuracy"] >= 0


def test_weights_initialise_and_do_not_resume(tmp_path):
    source = tiny.task()
    path = tmp_path / "farl.pth"
    head = source.model.objectives["masked_image"].head
    save_farl(path, source.model.clip, head)
    torch.manual_seed(1)
    task = PretrainTask(tiny.config(), tiny.farl(), OptimConfig(lr=1e-12, schedule="constant"), weights=str(path))
    assert not torch.equal(task.model.clip.image_encoder.proj, source.model.clip.image_encoder.proj)
    run = fit(task, tmp_path, max_steps=1, limit_val_batches=0)
    assert run.global_step == 1
    torch.testing.assert_close(task.model.clip.image_encoder.proj, source.model.clip.image_encoder.proj)
    torch.testing.assert_close(task.model.objectives["masked_image"].head.head.weight, head.head.weight)
    with torch.no_grad():
        task.model.clip.image_encoder.proj.fill_(1.0)
    run = tiny.trainer(tmp_path)
    run.test(PretrainTask(tiny.config(), {"c": Contrastive()}, weights=str(path)), datamodule=tiny.TinyData())
    run.test(task, datamodule=tiny.TinyData())  # loaded once: what training made of it stays
    assert (task.model.clip.image_encoder.proj == 1).all()


def test_target_is_fitted_once_and_needs_a_datamodule(tmp_path):
    task, data = tiny.task(), tiny.TinyData()
    run = tiny.trainer(tmp_path)
    run.fit(task, datamodule=data)
    assert data.fitted == 1
    codebook = task.model.objectives["masked_image"].target.codebook.clone()
    assert codebook.abs().sum() > 0
    run.test(task, datamodule=data)  # a second setup keeps the codebook
    assert torch.equal(task.model.objectives["masked_image"].target.codebook, codebook)
    loader = data.train_dataloader()
    with pytest.raises(ConfigError, match=r"needs a datamodule with fit_images\(count\)"):
        tiny.trainer(tmp_path, limit_val_batches=0).fit(tiny.task(), loader)


def test_wrong_image_size_names_both_settings(tmp_path):
    run = tiny.trainer(tmp_path)
    expected = r"64 x 64 pixels \(data.transform.image_size\).*takes 32 x 32 \(model.clip.image.image_size\)"
    with pytest.raises(ConfigError, match=expected):
        run.fit(tiny.task({"c": Contrastive()}), datamodule=tiny.TinyData(image_size=64))


def test_wrong_settings():
    with pytest.raises(ConfigError, match=r"'Smilling' has no prompts. Did you mean 'Smiling'"):
        tiny.task(zero_shot=["Smilling"])
    with pytest.raises(ConfigError, match="fit_images is 0"):
        tiny.task(fit_images=0)


def test_labels_that_the_data_lacks_are_told(tmp_path):
    with pytest.warns(UserWarning, match="zero-shot leaves out Male: the data has no such labels"):
        fit(tiny.task(zero_shot=["Male", "Smiling"]), tmp_path, max_steps=1)


def test_without_captions_only_masked_tokens_are_evaluated(tmp_path):
    config = tiny.config()
    config.text = None
    task = PretrainTask(config, {"masked_image": MaskedImage(target=KMeansTokens(8))}, fit_images=8)
    run = fit(task, tmp_path)
    names = {name.removeprefix("val/") for name in run.callback_metrics if name.startswith("val/")}
    assert names == {"loss", "loss_masked_image", "mim_accuracy", "mim_majority", "mim_majority_share"}


def test_grad_checkpointing_gives_the_same_gradients():
    batch = tiny.collate_pretrain([tiny.Pairs(4, True)[i] for i in range(4)])
    gradients = []
    for enabled in (False, True):
        task = tiny.task(tiny.farl(PixelTarget()), grad_checkpointing=enabled)
        assert task.model.clip.image_encoder.grad_checkpointing is enabled
        assert task.model.objectives["masked_image"].head.grad_checkpointing is enabled
        task.model(batch).loss.backward()
        gradients.append([p.grad for p in task.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_compile_keeps_names_and_compiles_once(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **kwargs: calls.append(type(self)))
    task = tiny.task(compile=True)
    names = set(task.state_dict())
    fit(task, tmp_path, max_steps=1, limit_val_batches=0)
    fit(task, tmp_path, max_steps=1, limit_val_batches=0)
    assert calls == [FaceCLIP]
    assert set(task.state_dict()) == names


def test_compiled_network_is_used_and_stays_plain(monkeypatch):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    task = tiny.task({"contrastive": Contrastive()})
    batch = tiny.collate_pretrain([tiny.Pairs(4, False)[i] for i in range(4)])
    plain = task.model(batch).loss
    task.model.clip.compile(backend=backend)
    torch.testing.assert_close(task.model(batch).loss, plain)
    assert graphs
    assert not [name for name in task.state_dict() if "_orig_mod" in name]
    copy.deepcopy(task)


def test_logs_settings_and_metrics_to_both_loggers(tmp_path):
    loggers = [TensorBoardLogger(tmp_path, name="tb"), CSVLogger(tmp_path, name="csv")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(tiny.task(seed=7), tmp_path, logger=loggers)
    assert "embed_dim: 32" in (tmp_path / "csv" / "version_0" / "hparams.yaml").read_text()
    assert "val/image_to_text_r1" in (tmp_path / "csv" / "version_0" / "metrics.csv").read_text()
    assert "seed: 7" in (tmp_path / "tb" / "version_0" / "hparams.yaml").read_text()


def test_reconstruction_changes_masked_patches_only():
    for target, kind in ((KMeansTokens(8), "k-means"), (PixelTarget(), "pixels")):
        task = tiny.task(tiny.farl(target)).eval()
        batch = tiny.collate_pretrain([tiny.Pairs(4, False)[i] for i in range(4)])
        task.model.fit(batch["image"])
        with torch.no_grad():
            filled = task.reconstruct(batch)
        before, after = patchify(batch["image"], 8), patchify(filled, 8)
        same = (before == after).all(-1)
        assert torch.equal(same, ~batch["patch_mask"]), kind
    assert tiny.task({"c": Contrastive()}).reconstruct(batch) is None


def test_caption_similarity_is_the_cosine():
    task = tiny.task({"c": Contrastive()}).eval()
    batch = tiny.collate_pretrain([tiny.Pairs(4, False)[i] for i in range(4)])
    similarity = task.caption_similarity(batch)
    outputs = task.model.clip(batch["image"], batch["text"])
    expected = torch.cosine_similarity(outputs.image_features[2], outputs.text_features[1], dim=0)
    torch.testing.assert_close(similarity[2, 1], expected)
    assert task.caption_similarity({"image": batch["image"]}) is None


def test_features_have_length_one_and_texts_where_there_are_any():
    task = tiny.task().eval()
    pairs = tiny.Pairs(4, False)
    batch = tiny.collate_pretrain([pairs[i] for i in range(4)])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = task.predict_step(batch)
    assert found["key"] == batch["key"]
    assert found["valid"].all()
    for name in ("image_features", "text_features"):
        assert found[name].dtype == torch.float32
        assert torch.allclose(found[name].norm(dim=1), torch.ones(4), atol=1e-6)
    outputs = task.model.clip(batch["image"], batch["text"])
    images, texts = task(batch["image"], batch["text"])
    assert torch.allclose(images * outputs.image_features.norm(dim=1, keepdim=True), outputs.image_features, atol=1e-6)
    assert torch.allclose(texts * outputs.text_features.norm(dim=1, keepdim=True), outputs.text_features, atol=1e-6)
    assert task(batch["image"])[1] is None
    assert set(task.predict_step({"image": batch["image"], "key": batch["key"]})) == {"key", "image_features"}
    config = tiny.config()
    config.text = None
    alone = PretrainTask(config, {"masked_image": MaskedImage(target=PixelTarget())})
    assert "text_features" not in alone.predict_step(batch)


def test_predict_initialises_from_weights_and_checks_the_geometry(tmp_path):
    class Faces(tiny.TinyData):
        predict_dataloader = tiny.TinyData.val_dataloader

    source = tiny.task()
    save_farl(tmp_path / "farl.pth", source.model.clip)
    torch.manual_seed(1)
    task = PretrainTask(tiny.config(), tiny.farl(), weights=str(tmp_path / "farl.pth"))
    batches = tiny.trainer(tmp_path).predict(task, datamodule=Faces())
    expected = source(tiny.Pairs(8, False).images)[0]
    assert torch.allclose(torch.cat([batch["image_features"] for batch in batches]), expected, atol=1e-6)
    with pytest.raises(ConfigError, match="the data makes images of 40 x 40"):
        tiny.trainer(tmp_path).predict(tiny.task(), datamodule=Faces(image_size=40))
