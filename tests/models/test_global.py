"""Networks that answer once for a face: heads, what is trained, and files."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from farl_lightning.errors import CheckpointError, ConfigError
from farl_lightning.models.attributes import FaceAge, FaceAttributes, FaceClassifier, FaceEmbedder
from farl_lightning.models.config import GlobalConfig
from farl_lightning.models.dense_checkpoint import load_encoder, read_dense
from farl_lightning.models.heads.margin import MarginHead
from farl_lightning.models.heads.pooled import PooledLinearHead, SharedLinear
from farl_lightning.models.opened import open_dense
from tests.models import dense

TINY = GlobalConfig(dense.tiny().image)
LINEAR = dataclasses.replace(TINY, head="linear", taps=(1, -1))


def save(path, network, **hparams):
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    settings = {"network": dataclasses.asdict(dataclasses.replace(network.config, shared=False)), **hparams}
    torch.save({"state_dict": state, "hyper_parameters": settings}, path)
    return path


@pytest.mark.parametrize("pool", ["token", "average"])
def test_the_linear_head_by_hand(pool):
    torch.manual_seed(0)
    head = PooledLinearHead(3, 2, num_taps=2, pool=pool).double().eval()
    head.norm.running_mean.copy_(torch.arange(6.0))
    head.norm.running_var.copy_(torch.arange(1.0, 7.0))
    taps = [torch.randn(4, 5, 3, dtype=torch.float64) for _ in range(2)]
    read = [t[:, 0] if pool == "token" else t[:, 1:].sum(1) / 4 for t in taps]
    scaled = (torch.cat(read, 1) - head.norm.running_mean) / (head.norm.running_var + 1e-5).sqrt()
    torch.testing.assert_close(head(taps), scaled @ head.classify.weight.T + head.classify.bias)


def test_a_last_batch_of_one_ends_no_run():
    assert PooledLinearHead(3, 2).train()([torch.randn(1, 5, 3)]).shape == (1, 2)


def test_shared_weights_differ_in_their_biases_alone():
    layer = SharedLinear(4, 3)
    layer.bias.data = torch.tensor([0.5, 0.0, -2.0])
    out = layer(torch.randn(2, 4))
    torch.testing.assert_close(out - out[:, :1], torch.tensor([[0.0, -0.5, -2.5]]).expand(2, 3))


def test_unknown_names():
    with pytest.raises(ConfigError, match=r"head 'linaer' is not known. Did you mean 'linear'"):
        GlobalConfig(head="linaer")
    with pytest.raises(ConfigError, match=r"head pool 'avrage' is not known. Did you mean 'average'"):
        FaceAttributes(dataclasses.replace(LINEAR, pool="avrage"), 2)


@pytest.mark.parametrize("config", [TINY, LINEAR, dataclasses.replace(TINY, shared=True)])
def test_a_frozen_encoder_stores_nothing_and_stays_in_evaluation_mode(config):
    network = FaceClassifier(config, 3).set_tuning("frozen").train()
    assert network.head.training
    assert not network.encoder.training
    network(torch.randn(2, 3, 64, 64)).sum().backward()
    assert {n.split(".")[0] for n, p in network.named_parameters() if p.grad is not None} == {"head"}


def test_the_probe_takes_the_place_of_the_mixture():
    network = FaceAge(dataclasses.replace(TINY, shared=True), 5).set_tuning("linear")
    assert isinstance(network.head, PooledLinearHead)
    assert isinstance(network.head.classify, SharedLinear)
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, 5)
    with pytest.raises(ConfigError, match="'linear' already"):
        network.set_tuning("finetune")


@pytest.mark.parametrize(
    ("make", "config", "mode", "hparams"),
    [
        (FaceAttributes, TINY, "finetune", {"num_attributes": 5}),
        (FaceAttributes, LINEAR, "frozen", {"num_attributes": None}),
        (FaceClassifier, TINY, "linear", {"column": "expression", "num_classes": 5}),
        (FaceAge, dataclasses.replace(TINY, shared=True), "finetune", {"column": "age", "method": None}),
        (FaceEmbedder, LINEAR, "finetune", {"column": "identity", "embedding_size": 5}),
    ],
)
def test_files_come_back_as_they_were(tmp_path, make, config, mode, hparams):
    torch.manual_seed(0)
    network = make(config, 5).set_tuning(mode).eval()
    path = save(tmp_path / "x.ckpt", network, **hparams)
    held = read_dense(path)
    assert (held.kind, held.num_outputs) == (make.kind, 5)
    again = make.from_checkpoint(path)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(again(images), network(images), rtol=0, atol=0)
    other = FaceAttributes(TINY, 2)
    load_encoder(other, path)
    torch.testing.assert_close(other.encoder.vit.pos_embed, network.encoder.vit.pos_embed, rtol=0, atol=0)


def test_a_file_for_another_purpose(tmp_path):
    path = save(tmp_path / "x.ckpt", FaceClassifier(TINY, 5), column="gender", num_classes=5)
    with pytest.raises(CheckpointError, match="for classification, not for age; load it with FaceClassifier"):
        FaceAge.from_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"does not say how its faces were cropped .classification, 5 outputs"):
        open_dense(path)


def test_lora_merges_exactly():
    pytest.importorskip("peft", reason="the extra 'lora' is not installed")
    network = FaceAttributes(TINY, 3).double().set_tuning("lora", rank=2).eval()
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    before = network(images)
    assert not any("lora" in name for name, _ in network.merge_lora().named_parameters())
    torch.testing.assert_close(network(images), before)


def test_embeddings_have_length_one_and_the_margin_head_scores_the_first_of_them():
    torch.manual_seed(0)
    network = FaceEmbedder(TINY, 6).double().eval()
    images, labels = torch.randn(4, 3, 64, 64, dtype=torch.float64), torch.tensor([1, 0])
    embeddings, loss = network(images, labels)
    assert loss is None
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(4, dtype=torch.float64))
    network.margin = MarginHead(6, 3, "cosface", 0.1, 8.0).double()
    cosine = embeddings[:2] @ torch.nn.functional.normalize(network.margin.centres.weight, dim=1).T
    cosine = cosine - 0.1 * torch.nn.functional.one_hot(labels, 3)
    torch.testing.assert_close(network(images, labels)[1], torch.nn.functional.cross_entropy(8 * cosine, labels))
    torch.testing.assert_close(network(images), embeddings)
