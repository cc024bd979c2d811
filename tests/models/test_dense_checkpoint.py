"""Downstream files of every layout, whose names are written down by hand."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest
import torch

from farl_lightning.errors import CheckpointError
from farl_lightning.functional.position import resize_positions
from farl_lightning.models.attributes import FaceAttributes
from farl_lightning.models.checkpoint import save_farl
from farl_lightning.models.config import DenseConfig, ImageEncoderConfig
from farl_lightning.models.dense import FaceAligner, FaceParser
from farl_lightning.models.dense_checkpoint import load_encoder, read_dense, read_encoder
from farl_lightning.models.face_clip import FaceCLIP
from farl_lightning.testing.models import random_clip_state, random_dense_state, tiny_config, write_torchscript
from farl_lightning.types import FaceSpec, to_plain
from tests.models import dense
from tests.models.conftest import shake

_IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def _training_state(tmp_path, kind="parsing", **options):
    """Write what FaRL's trainer writes, optimiser and all; the average differs from the network."""
    networks = {name: random_dense_state(kind, seed=seed, **options) for name, seed in (("main", 1), ("main_ema", 2))}
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))])
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [200])
    content = {"epoch": 3, "global_step": 30, "losses": {"loss": 0.5}, "networks": networks}
    torch.save(content | {"optimizer": (optimizer.state_dict(), schedule.state_dict())}, tmp_path / "30_3.pth")
    return tmp_path / "30_3.pth", networks


@pytest.mark.parametrize("patch_size", [8, 16])
@pytest.mark.parametrize("ema", [True, False])
def test_training_state_of_farl(tmp_path, patch_size, ema, caplog):
    file, networks = _training_state(tmp_path, patch_size=patch_size)
    with caplog.at_level(logging.WARNING):
        parser = FaceParser.from_checkpoint(file, ema=ema)
    assert caplog.text == "", "what no dense network reads is not worth a warning"
    state, config = networks["main_ema" if ema else "main"], parser.config
    assert (config.image.image_size, config.image.patch_size, config.image.depth) == (8 * patch_size, patch_size, 4)
    assert (config.image.width, config.image.heads, config.channels, parser.num_outputs) == (64, 1, 8, 11)
    own = parser.state_dict()
    pairs = {
        "encoder.vit.blocks.2.attn.qkv.weight": "backbone.visual.transformer.resblocks.2.attn.in_proj_weight",
        "encoder.vit.patch_embed.proj.weight": "backbone.visual.conv1.weight",
        "neck.levels.0.convs.0.weight": "backbone.fpns.0.0.weight",
        "head.pooling.branches.3.norm.running_var": "head.head.psp_modules.3.1.bn.running_var",
        "head.pooling.fuse.conv.weight": "head.head.bottleneck.conv.weight",
        "head.laterals.1.norm.bias": "head.head.lateral_convs.1.bn.bias",
        "head.smooth.2.conv.weight": "head.head.fpn_convs.2.conv.weight",
        "head.fuse.norm.num_batches_tracked": "head.head.fpn_bottleneck.bn.num_batches_tracked",
        "head.classify.bias": "head.head.conv_seg.bias",
    }
    if patch_size == 16:
        pairs["neck.levels.0.norms.0.running_mean"] = "backbone.fpns.0.1.running_mean"
        pairs["neck.levels.0.convs.1.bias"] = "backbone.fpns.0.3.bias"
        pairs["neck.levels.1.convs.0.weight"] = "backbone.fpns.1.weight"
    for ours, theirs in pairs.items():
        assert torch.equal(own[ours], state[theirs]), ours
    assert len(own) == len(state) - 5, "all but the projection, both weights of the final norm, and the statistics"
    assert not parser.training
    assert parser.face_spec.classes[-1] == "hair"
    assert parser.face_spec.mean == FaceSpec().mean, "CLIP's numbers are not moved by single precision"


def test_without_an_average_and_other_statistics(tmp_path):
    state = random_dense_state("alignment", outputs=68)
    state["backbone.image_mean"] = torch.full((1, 3, 1, 1), 0.5)
    torch.save({"networks": {"main": {f"module.{name}": value for name, value in state.items()}}}, tmp_path / "a.pth")
    aligner = FaceAligner.from_checkpoint(tmp_path / "a.pth")
    assert aligner.num_outputs == 68
    assert (aligner.face_spec.num_landmarks, aligner.face_spec.mean) == (68, (0.5, 0.5, 0.5))
    assert aligner.face_spec.std == FaceSpec().std


def test_other_networks_in_a_training_state(tmp_path):
    torch.save({"networks": {"generator": {}}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="its networks are generator; 'main' or 'main_ema' was expected"):
        FaceParser.from_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("root", ["", "net.", "main_network."])
def test_parser_of_facer_is_read_and_not_run(tmp_path, root, monkeypatch):
    state = random_dense_state(outputs=19)
    write_torchscript(tmp_path / "parser.pt", {f"{root}{name}": value for name, value in state.items()})
    monkeypatch.setattr(torch.jit, "load", None)  # nobody may call it
    parser = FaceParser.from_checkpoint(tmp_path / "parser.pt")
    assert torch.equal(parser.head.classify.weight, state["head.head.conv_seg.weight"])
    assert torch.equal(parser.encoder.vit.norm_pre.bias, state["backbone.visual.ln_pre.bias"])
    assert (parser.face_spec.crop, parser.face_spec.image_size) == ("quad", 64)
    torch.save({"networks": {"main": state}}, tmp_path / "same.pth")
    assert torch.equal(parser(_IMAGES), FaceParser.from_checkpoint(tmp_path / "same.pth")(_IMAGES))


def _facer_alignment(path, outputs=98):
    """The head as TorchScript; pyramid and encoder beside it in the archive."""
    state = random_dense_state("alignment", outputs=outputs)
    head = {name.removeprefix("heatmap_"): value for name, value in state.items() if "heatmap_head" in name}
    rest = {name.removeprefix("backbone."): value for name, value in state.items() if "backbone." in name}
    write_torchscript(path, {name.removeprefix("head."): value for name, value in head.items()}, {"backbone": rest})
    return state


def test_aligner_of_facer(tmp_path):
    state = _facer_alignment(tmp_path / "aligner.pt")
    aligner = FaceAligner.from_checkpoint(tmp_path / "aligner.pt")
    torch.save({"networks": {"main_ema": state}}, tmp_path / "same.pth")
    other = FaceAligner.from_checkpoint(tmp_path / "same.pth")
    assert all(torch.equal(a, b) for a, b in zip(aligner(_IMAGES), other(_IMAGES), strict=True))
    assert aligner.face_spec == FaceSpec(64, crop="align", template=aligner.face_spec.template, num_landmarks=98)


def test_python_objects_inside_an_archive_are_refused(tmp_path):
    write_torchscript(tmp_path / "a.pt", {"head.conv_seg.weight": torch.ones(1, 1, 1, 1)}, {"backbone": Path("x")})
    with pytest.raises(CheckpointError, match=r"cannot be read"):
        FaceAligner.from_checkpoint(tmp_path / "a.pt")


def test_attributes_of_facer(tmp_path):
    state = random_dense_state("attributes", outputs=40)
    torch.save(state, tmp_path / "attributes.pt")
    network = FaceAttributes.from_checkpoint(tmp_path / "attributes.pt")
    assert network.taps == (3,)
    assert torch.equal(network.head.norms[2].weight, state["head.norm_2.weight"])
    assert torch.equal(network.head.classify.weight, state["head.final_fc.weight"])
    assert torch.equal(network.encoder.vit.cls_token.flatten(), state["backbone.class_embedding"])
    assert network.face_spec.attributes[-1] == "Young"
    with pytest.raises(CheckpointError, match=r"for attributes, not for parsing; load it with FaceAttributes"):
        FaceParser.from_checkpoint(tmp_path / "attributes.pt")


def _task_file(tmp_path, network, name="num_classes", **extra):
    """Write what Lightning writes of one of our tasks."""
    file = tmp_path / "task.ckpt"
    content = {
        "state_dict": {f"model.{key}": value for key, value in network.state_dict().items()},
        "hyper_parameters": {"network": to_plain(network.config), name: None, "weights": None},
        "face_spec": FaceSpec(crop="box", classes=("a", "b")).to_dict(),
    }
    torch.save(content | extra, file)
    return file


@pytest.mark.parametrize("mode", ["finetune", "linear", "lora"])
def test_our_own_checkpoints(tmp_path, mode):
    if mode == "lora":
        pytest.importorskip("peft", reason="LoRA needs peft")
    torch.manual_seed(0)
    network = shake(FaceParser(dense.tiny(taps=(0, 1, 2, 2)), 5).set_tuning(mode)).eval()
    found = FaceParser.from_checkpoint(_task_file(tmp_path, network))
    assert found.taps == (0, 1, 2, 2)
    assert found.config == network.config
    assert found.face_spec == FaceSpec(crop="box", classes=("a", "b"))
    torch.testing.assert_close(found(_IMAGES), network(_IMAGES), rtol=1e-4, atol=1e-5)
    if mode != "lora":
        same = zip(found.state_dict().items(), network.state_dict().items(), strict=True)
        assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in same)


def test_our_own_average(tmp_path):
    torch.manual_seed(0)
    average, current = (shake(FaceAligner(dense.tiny(), 5)).eval() for _ in range(2))
    state = {f"model.{key}": value for key, value in current.state_dict().items()}
    file = _task_file(tmp_path, average, "num_landmarks", current_model_state=state)
    for network, ema in ((average, True), (current, False)):
        assert torch.equal(FaceAligner.from_checkpoint(file, ema=ema)(_IMAGES).points, network(_IMAGES).points)
    with pytest.raises(CheckpointError, match=r"for alignment, not for parsing; load it with FaceAligner"):
        FaceParser.from_checkpoint(file)


def test_another_picture_size_and_taps(tmp_path):
    file, networks = _training_state(tmp_path)
    parser = FaceParser.from_checkpoint(file, image={"image_size": 96, "heads": 4}, taps=[0, 1, 2, 3])
    held = networks["main_ema"]["backbone.visual.positional_embedding"]
    assert torch.equal(parser.encoder.vit.pos_embed[0], resize_positions(held, (8, 8), (12, 12)))
    assert parser.encoder.heads == 4
    assert parser(_IMAGES).shape == (2, 11, 64, 64)


def test_what_is_missing_and_what_is_left_over(tmp_path, caplog):
    _, networks = _training_state(tmp_path)
    state = networks["main"]
    lost = state.pop("head.head.fpn_convs.0.conv.weight")
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"lacks 1 weights of the network: head.smooth.0.conv.weight"):
        FaceParser.from_checkpoint(tmp_path / "a.pth")
    torch.save(state | {"head.head.fpn_convs.0.conv.weight": lost, "auxiliary.weight": lost}, tmp_path / "a.pth")
    with caplog.at_level(logging.WARNING):
        FaceParser.from_checkpoint(tmp_path / "a.pth")
    assert "names that were not used: auxiliary.weight" in caplog.text
    torch.save(state | {"head.head.fpn_convs.0.conv.weight": lost[:, :2]}, tmp_path / "a.pth")
    with pytest.raises(
        CheckpointError, match=r"head.smooth.0.conv.weight: file \(8, 2, 3, 3\), network \(8, 8, 3, 3\)"
    ):
        FaceParser.from_checkpoint(tmp_path / "a.pth")


def test_files_of_something_else(tmp_path):
    cases = {"no classifier was found": random_clip_state(), "it holds a list": [1]}
    for message, content in cases.items():
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(CheckpointError, match=message):
            read_dense(tmp_path / "a.pth")
    (tmp_path / "a.pth").write_bytes(pickle.dumps(Path("x"), protocol=2))
    with pytest.raises(CheckpointError, match="cannot be read"):
        FaceParser.from_checkpoint(tmp_path / "a.pth")


def _pretrained(tmp_path, layout):
    """Write one network in a layout of pretraining; return the file and its image tower."""
    torch.manual_seed(0)
    config = tiny_config(width=64, depth=4, heads=1)
    config.text = None
    clip, file = shake(FaceCLIP(config)), tmp_path / f"{layout}.pth"
    if layout == "lightning":
        state = {f"model.clip.{name}": value for name, value in clip.state_dict().items()}
        content = {"state_dict": state, "hyper_parameters": {"clip": to_plain(config)}}
        torch.save(content | {"face_spec": FaceSpec(crop="align").to_dict()}, file)
    else:
        save_farl(file, clip)
    if layout == "torchscript":
        write_torchscript(file, torch.load(file, weights_only=True)["state_dict"])
    return file, clip.image_encoder


@pytest.mark.parametrize("layout", ["farl", "torchscript", "lightning"])
@pytest.mark.parametrize("mode", ["finetune", "lora"])
def test_encoders_from_pretraining(tmp_path, layout, mode):
    if mode == "lora":
        pytest.importorskip("peft", reason="LoRA needs peft")
    file, tower = _pretrained(tmp_path, layout)
    image = ImageEncoderConfig(image_size=64, patch_size=8, width=64, depth=4, heads=1)
    network = FaceParser(DenseConfig(image, taps=(0, 1, 1, 2), channels=4), 3).set_tuning(mode).eval()
    report = load_encoder(network, file)
    assert report.missing == ()
    assert {"encoder.proj", "encoder.mask_token", "encoder.vit.blocks.3.norm1.bias"} <= set(report.unexpected)
    assert report.resized == ("encoder.vit.pos_embed",)
    small = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        network.encoder.vit.pos_embed = tower.vit.pos_embed  # compare at the size of pretraining
        network.encoder.vit.patch_embed = tower.vit.patch_embed
        network.encoder.image_size = 32
        taps = network.encoder(small, taps=(0, 2), need_feature=False).taps
        expected = tower.eval()(small, taps=(0, 2), need_feature=False).taps
    torch.testing.assert_close(taps, expected)
    assert (network.face_spec is None) == (layout != "lightning")
    assert read_encoder(file).config.width == 64


def test_encoder_from_a_downstream_file(tmp_path):
    file, networks = _training_state(tmp_path, "alignment", outputs=68)
    image = ImageEncoderConfig(image_size=64, patch_size=8, width=64, depth=4, heads=1)
    parser = FaceParser(DenseConfig(image, channels=4), 3)
    head = parser.head.classify.weight.clone()
    report = load_encoder(parser, file)
    held = networks["main_ema"]["backbone.visual.conv1.weight"]
    assert torch.equal(parser.encoder.vit.patch_embed.proj.weight, held)
    assert torch.equal(parser.head.classify.weight, head)
    assert "neck.levels.0.convs.0.weight" in report.unexpected
    assert read_encoder(file, ema=False).state["encoder.vit.patch_embed.proj.weight"].ne(held).any()


def test_encoders_that_do_not_fit(tmp_path):
    file, _ = _pretrained(tmp_path, "lightning")
    image = ImageEncoderConfig(image_size=64, patch_size=8, width=64, depth=4, heads=2)
    with pytest.raises(CheckpointError, match=r"trained with 1 attention heads, this encoder has 2: set image.heads"):
        load_encoder(FaceParser(DenseConfig(image, channels=4), 3), file)
    image.heads, image.depth = 1, 6
    with pytest.raises(CheckpointError, match=r"lacks 24 weights of the image tower: encoder.vit.blocks.4"):
        load_encoder(FaceParser(DenseConfig(image, channels=4), 3), file)
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="does not hold a CLIP or FaRL network"):
        load_encoder(FaceParser(dense.tiny(), 3), tmp_path / "a.pth")
