"""Weights in and out, with files whose names are written down by hand."""

from __future__ import annotations

import logging
import pickle

import pytest
import torch
from safetensors.torch import save_file

from farl_lightning.errors import CheckpointError, ConfigError
from farl_lightning.functional.position import resize_positions
from farl_lightning.models.checkpoint import load_masked_image_head, load_weights, read_clip, save_farl
from farl_lightning.models.face_clip import FaceCLIP
from farl_lightning.models.masked_image import MaskedImageHead
from farl_lightning.testing.models import random_clip_state, tiny_config, write_torchscript
from farl_lightning.types import FaceSpec, to_plain


@pytest.fixture
def state():
    return random_clip_state()


@pytest.fixture
def farl_file(tmp_path, state):
    torch.save({"state_dict": state}, tmp_path / "farl.pth")
    return tmp_path / "farl.pth"


def _assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype, name
        assert torch.equal(ours[name], theirs[name]), name


def test_sizes_are_read_off_the_tensors(farl_file):
    config = read_clip(farl_file).config
    image, text = config.image, config.text
    assert (config.embed_dim, image.image_size, image.patch_size, image.width, image.depth, image.heads) == (
        32,
        32,
        8,
        64,
        2,
        1,
    )
    assert (text.context_length, text.vocab_size, text.width, text.depth, text.heads, text.eos_token_id) == (
        12,
        90,
        64,
        2,
        1,
        89,
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"masked_image": (3, 17)},
        {"masked_image": (0, 17)},
        {"masked_image": None},
        {"text": False},
        {"text": False, "masked_image": None, "width": 128, "depth": 3, "patch_size": 4, "grid": 3},
    ],
)
def test_round_trip_is_exact(tmp_path, options):
    state = random_clip_state(**options)
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    clip = FaceCLIP.from_checkpoint(tmp_path / "a.pth")
    head = load_masked_image_head(tmp_path / "a.pth") if options.get("masked_image", 1) else None
    save_farl(tmp_path / "b.pth", clip, head)
    saved = torch.load(tmp_path / "b.pth", weights_only=True)
    assert list(saved) == ["state_dict"], "a network of FaRL's own kind needs nothing else"
    _assert_same(saved["state_dict"], state)


def test_pooled_network_round_trip(tmp_path):
    state = random_clip_state(masked_image=None, text=False)
    state |= {"visual.conv_pool.weight": torch.randn(64, 1, 16), "visual.conv_pool.bias": torch.randn(64)}
    torch.save(state, tmp_path / "a.pth")
    clip = FaceCLIP.from_checkpoint(tmp_path / "a.pth")
    assert (clip.config.image.pool, clip.config.image.pool_patches_only) == ("linear", True)
    save_farl(tmp_path / "b.pth", clip)
    _assert_same(torch.load(tmp_path / "b.pth", weights_only=True)["state_dict"], state)


def test_weights_land_where_they_belong(farl_file, state):
    clip, head = FaceCLIP.from_checkpoint(farl_file), load_masked_image_head(farl_file)
    vit, text = clip.image_encoder.vit, clip.text_encoder.model.text_model
    pairs = {
        "visual.class_embedding": vit.cls_token[0, 0],
        "visual.positional_embedding": vit.pos_embed[0],
        "visual.mask_token": clip.image_encoder.mask_token,
        "visual.transformer.resblocks.1.attn.in_proj_weight": vit.blocks[1].attn.qkv.weight,
        "visual.transformer.resblocks.0.mlp.c_proj.bias": vit.blocks[0].mlp.fc2.bias,
        "visual.ln_pre.bias": vit.norm_pre.bias,
        "visual.lm_transformer.resblocks.0.ln_2.weight": head.blocks[0].norm2.weight,
        "visual.lm_head.weight": head.head.weight,
        "visual.ln_lm.weight": head.norm.weight,
        "positional_embedding": text.embeddings.position_embedding.weight,
        "text_projection": clip.text_encoder.model.text_projection.weight.T,
        "transformer.resblocks.1.ln_1.weight": text.encoder.layers[1].layer_norm1.weight,
    }
    for name, parameter in pairs.items():
        assert torch.equal(parameter, state[name]), name
    packed = state["transformer.resblocks.1.attn.in_proj_bias"]
    assert torch.equal(text.encoder.layers[1].self_attn.k_proj.bias, packed[64:128])
    assert torch.equal(clip.logit_scale, state["logit_scale"].view(1))


def test_openais_torchscript_is_read_without_running_it(tmp_path):
    state = {name: value.half() for name, value in random_clip_state(masked_image=None).items()}
    state |= {
        name: torch.tensor(float(number))
        for name, number in (("input_resolution", 32), ("context_length", 12), ("vocab_size", 90))
    }
    write_torchscript(tmp_path / "ViT.pt", state)
    clip = FaceCLIP.from_checkpoint(tmp_path / "ViT.pt")
    assert clip.image_encoder.mask_token is None
    assert read_clip(tmp_path / "ViT.pt").unknown == ()
    save_farl(tmp_path / "back.pth", clip, dtype=torch.float16)
    back = torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"]
    for name in ("input_resolution", "context_length", "vocab_size"):
        state.pop(name)
    _assert_same(back, state)


def test_other_containers(tmp_path, state):
    expected = FaceCLIP.from_checkpoint(_saved(tmp_path / "plain.pt", state)).state_dict()
    in_ddp = {f"module.{name}": value for name, value in state.items()}
    files = [
        _saved(tmp_path / "open_clip.pt", {"epoch": 3, "state_dict": in_ddp}),
        _saved(tmp_path / "downstream.pth", {f"backbone.{name}": value for name, value in state.items()}),
        _saved(tmp_path / "old.pth", {"state_dict": state}, _use_new_zipfile_serialization=False),
    ]
    save_file(state, tmp_path / "weights.safetensors")
    for file in [*files, tmp_path / "weights.safetensors"]:
        _assert_same(FaceCLIP.from_checkpoint(file).state_dict(), expected)


def _saved(file, content, **options):
    torch.save(content, file, **options)
    return file


def test_extra_names_are_tolerated_and_told(tmp_path, state, caplog):
    file = _saved(tmp_path / "a.pth", {"state_dict": state | {"visual.surprise": torch.zeros(1)}})
    with caplog.at_level(logging.WARNING):
        FaceCLIP.from_checkpoint(file)
    assert "visual.surprise" in caplog.text
    assert load_weights(FaceCLIP.from_checkpoint(file), file).unexpected == ("visual.surprise",)


def test_settings_override_the_file(farl_file, state):
    clip = FaceCLIP.from_checkpoint(farl_file, image={"image_size": 48, "drop_path": 0.2, "heads": 4}, text=None)
    assert clip.text_encoder is None
    assert clip.logit_scale is None
    assert (clip.image_encoder.grid, clip.image_encoder.heads, clip.config.image.drop_path) == ((6, 6), 4, 0.2)
    expected = resize_positions(state["visual.positional_embedding"], (4, 4), (6, 6))
    assert torch.equal(clip.image_encoder.vit.pos_embed[0], expected)
    short = FaceCLIP.from_checkpoint(farl_file, text={"context_length": 7}, mask_token=False)
    assert short.image_encoder.mask_token is None
    text = torch.tensor([[3, 5, 89, 0, 0, 0, 0]])
    whole = FaceCLIP.from_checkpoint(farl_file)
    torch.testing.assert_close(short(text=text).text_features, whole(text=text).text_features)
    with pytest.raises(ConfigError, match=r"ImageEncoderConfig has no 'imagesize'. Did you mean 'image_size'"):
        FaceCLIP.from_checkpoint(farl_file, image={"imagesize": 48})


def test_initialising_an_existing_network(farl_file, tmp_path):
    config = read_clip(farl_file).config
    config.image.image_size = 64
    clip, head = FaceCLIP(config), MaskedImageHead(64, 1, 1, 40)
    report = load_weights(clip, farl_file, head)
    assert report.missing == report.unexpected == ()
    assert report.resized == ("image_encoder.vit.pos_embed",)
    assert "resized (1)" in str(report)
    assert torch.equal(head.head.weight, load_masked_image_head(farl_file).head.weight)
    visual = _saved(tmp_path / "v.pth", random_clip_state(text=False, masked_image=None))
    before = clip.image_encoder.mask_token.clone()
    report = load_weights(clip, visual, head)
    assert "image_encoder.mask_token" in report.missing
    assert "logit_scale" in report.missing
    assert "head.head.weight" in report.missing
    assert torch.equal(clip.image_encoder.mask_token, before)
    assert str(load_weights(FaceCLIP.from_checkpoint(visual), visual)) == "every weight matched"


def test_unusual_heads_and_face_spec_survive_our_own_file(tmp_path):
    config = tiny_config()
    config.text.eos_token_id = 7
    clip, head = FaceCLIP(config), MaskedImageHead(48, 6, 1, 11)
    clip.face_spec = FaceSpec(image_size=32, crop="align", template=((0.0, 1.0),))
    save_farl(tmp_path / "own.pth", clip, head)
    again = FaceCLIP.from_checkpoint(tmp_path / "own.pth")
    assert again.config == config
    assert again.face_spec == clip.face_spec
    assert load_masked_image_head(tmp_path / "own.pth").blocks[0].attn.num_heads == 6
    _assert_same(again.state_dict(), clip.state_dict())


def test_lightning_checkpoints_of_pretraining(tmp_path):
    config = tiny_config()
    clip, head = FaceCLIP(config), MaskedImageHead(48, 3, 2, 11)
    tensors = {f"model.clip.{name}": value for name, value in clip.state_dict().items()}
    tensors |= {f"model.objectives.mim.head.{name}": value for name, value in head.state_dict().items()}
    tensors |= {"model.objectives.mim.target.codebook": torch.zeros(3)}
    content = {
        "state_dict": tensors,
        "epoch": 1,
        "hyper_parameters": {"clip": to_plain(config)},
        "face_spec": FaceSpec(image_size=32).to_dict(),
    }
    file = _saved(tmp_path / "last.ckpt", content)
    again = FaceCLIP.from_checkpoint(file)
    _assert_same(again.state_dict(), clip.state_dict())
    assert again.face_spec == FaceSpec(image_size=32)
    _assert_same(load_masked_image_head(file).state_dict(), head.state_dict())
    file = _saved(tmp_path / "odd.ckpt", {"state_dict": tensors})
    with pytest.raises(CheckpointError, match=r"hyper_parameters have no 'clip'"):
        FaceCLIP.from_checkpoint(file)


def test_what_is_missing_is_named(tmp_path, state):
    del state["visual.transformer.resblocks.1.ln_1.bias"]
    with pytest.raises(CheckpointError, match=r"lacks 1 weights of the network: image_encoder.vit.blocks.1.norm1.bias"):
        FaceCLIP.from_checkpoint(_saved(tmp_path / "a.pth", state))
    with pytest.raises(CheckpointError, match=r"lacks 1 weights of the image tower"):
        load_weights(FaceCLIP(read_clip(tmp_path / "a.pth").config), tmp_path / "a.pth")


def test_sizes_that_do_not_fit_are_named(farl_file):
    with pytest.raises(CheckpointError, match=r"cls_token: file \(1, 1, 64\), network \(1, 1, 48\)"):
        load_weights(FaceCLIP(tiny_config()), farl_file)


def test_files_of_something_else(tmp_path, state):
    cases = {
        "no tensor 'visual.conv1.weight' in this file; it holds conv.bias, conv.weight": {
            "conv.weight": torch.zeros(1),
            "conv.bias": torch.zeros(1),
        },
        "it holds a list, not a dict of tensors": [1, 2],
        "it holds nothing": {},
        "'visual.positional_embedding' holds 15 patches, which is not a square grid": state
        | {"visual.positional_embedding": torch.zeros(16, 64)},
        r"'visual.conv1.weight' has shape \(64,\); 4 dimensions": state | {"visual.conv1.weight": torch.zeros(64)},
    }
    for message, content in cases.items():
        with pytest.raises(CheckpointError, match=message):
            FaceCLIP.from_checkpoint(_saved(tmp_path / "x.pth", content))
    with pytest.raises(CheckpointError, match=r"holds no masked image head"):
        load_masked_image_head(_saved(tmp_path / "x.pth", random_clip_state(masked_image=None)))


def test_broken_files(tmp_path, farl_file):
    whole = farl_file.read_bytes()
    cases = {
        "cut.pth": whole[: len(whole) // 2],
        "text.pth": b"<html>not found</html>",
        "empty.pth": b"",
        "zip.pt": whole[:-200],
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(
            CheckpointError, match=rf"{name}' cannot be read \({len(data)} bytes, .*It may be cut short"
        ):
            FaceCLIP.from_checkpoint(tmp_path / name)
    (tmp_path / "bad.safetensors").write_bytes(b"xx")
    with pytest.raises(CheckpointError, match=r"cannot be read"):
        FaceCLIP.from_checkpoint(tmp_path / "bad.safetensors")


class _Evil:
    def __reduce__(self):
        return (open, ("evil.txt", "w"))


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_file_is_run(tmp_path, monkeypatch, state, zipped):
    monkeypatch.chdir(tmp_path)
    file = _saved(tmp_path / "evil.pth", {"state_dict": state, "x": _Evil()}, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"loading them can run code"):
        FaceCLIP.from_checkpoint(file)
    assert not (tmp_path / "evil.txt").exists()


def test_nothing_in_a_torchscript_archive_is_run(tmp_path, monkeypatch):
    import zipfile

    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as archive:
        archive.writestr("evil/constants.pkl", b"")
        archive.writestr("evil/data.pkl", pickle.dumps(_Evil()))
    with pytest.raises(CheckpointError, match=r"TorchScript archive without any tensor"):
        FaceCLIP.from_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "evil.txt").exists()
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/constants.pkl", b"")
        archive.writestr("bomb/data.pkl", bytes(1000))
    with pytest.raises(CheckpointError, match=r"is compressed, which torch never writes"):
        FaceCLIP.from_checkpoint(tmp_path / "bomb.pt")


def test_huge_files_are_not_opened(tmp_path, monkeypatch):
    with (tmp_path / "huge.pth").open("wb") as file:
        file.truncate(33 * 2**30)  # sparse: it takes no room
    with pytest.raises(CheckpointError, match=r"has 33.0 GiB; files over 32 GiB are not opened"):
        FaceCLIP.from_checkpoint(tmp_path / "huge.pth")


def test_other_architectures_have_no_farl_layout(tmp_path):
    config = tiny_config()
    config.image.name = "eva02_tiny_patch14_224"
    with pytest.raises(CheckpointError, match=r"has no name in FaRL's layout"):
        save_farl(tmp_path / "eva.pth", FaceCLIP(config))
    assert not list(tmp_path.iterdir()), "a failed save leaves nothing behind"
