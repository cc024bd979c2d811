"""Fine-tuning, frozen encoders, linear probes, low-rank adapters."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from farl_lightning.errors import ConfigError, MissingDependencyError
from farl_lightning.models.dense import FaceAligner, FaceParser
from farl_lightning.models.tuning import has_lora, merge_lora_state
from tests.models import dense
from tests.models.conftest import shake

_IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def _network(mode: str, rank: int = 2, kind=FaceParser):
    torch.manual_seed(0)
    network = shake(kind(dense.tiny(), 5))
    if mode == "lora":
        pytest.importorskip("peft", reason="LoRA needs peft")
    return network.set_tuning(mode, rank)


def _step(network) -> None:
    """Train one step."""
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network.train()
    output = network(_IMAGES)
    (output if isinstance(output, torch.Tensor) else output.points).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("kind", [FaceParser, FaceAligner])
@pytest.mark.parametrize("mode", ["finetune", "frozen", "linear", "lora"])
def test_a_step_changes_what_it_should(mode, kind):
    network = _network(mode, kind=kind)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    _step(network)
    unused = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert unused == []
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    encoder = {name for name in before if name.startswith("encoder.")}
    expected = {"finetune": encoder, "lora": {n for n in encoder if "lora_B" in n}}.get(mode, set())
    assert changed & encoder == expected
    assert {name for name in before if name.startswith("head.") and "num_batches" not in name} <= changed


def test_a_frozen_encoder_stores_nothing_and_stays_in_evaluation_mode():
    network = _network("frozen").train()
    assert network.training
    assert network.head.training
    assert not any(module.training for module in network.encoder.modules())
    assert not any(one.requires_grad for one in network.tap_maps(_IMAGES))
    assert network.eval().train() is network
    network.set_tuning("finetune")
    assert network.encoder.training
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_linear_probe_is_linear_and_small():
    network = _network("linear").eval()
    assert {name for name, p in network.named_parameters() if p.requires_grad} == {
        "head.classify.weight",
        "head.classify.bias",
    }
    assert network.head.classify.weight.shape == (5, 4 * 24, 1, 1)
    maps = torch.cat(network.tap_maps(_IMAGES), 1)
    scaled = maps / (1 + 1e-5) ** 0.5  # fresh running statistics
    logits = nn.functional.conv2d(scaled, network.head.classify.weight, network.head.classify.bias)
    torch.testing.assert_close(network.logits(_IMAGES), dense.up(logits, (32, 32)))


def test_adapters_start_as_nothing_and_merge_into_the_same_network():
    network = _network("lora", rank=3).eval()
    plain = _network("finetune").eval()
    torch.testing.assert_close(network(_IMAGES), plain(_IMAGES))
    adapters = {name: p for name, p in network.encoder.named_parameters() if p.requires_grad}
    assert len(adapters) == 2 * 4 * 4, "two matrices for each of four layers of four blocks"
    assert {p.shape[0] for name, p in adapters.items() if "lora_A" in name} == {3}
    _step(network)
    adapted = network.eval()(_IMAGES)
    assert not torch.allclose(adapted, plain(_IMAGES), atol=1e-3)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    network.merge_lora()
    assert network.tuning == "finetune"
    assert network.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(network(_IMAGES), adapted, rtol=1e-4, atol=1e-5)
    plain.load_state_dict(merge_lora_state(state))
    torch.testing.assert_close(plain(_IMAGES), adapted, rtol=1e-4, atol=1e-5)
    assert has_lora(state)
    assert not has_lora(plain.state_dict())


def test_merging_in_a_state_dict_by_hand():
    state = {
        "a.base_layer.weight": torch.eye(2),
        "a.base_layer.bias": torch.zeros(2),
        "a.lora_A.default.weight": torch.tensor([[1.0, 2.0]]),
        "a.lora_B.default.weight": torch.tensor([[3.0], [4.0]]),
        "b.weight": torch.ones(1),
    }
    merged = merge_lora_state(state)
    assert merged["a.weight"].tolist() == [[4.0, 6.0], [4.0, 9.0]]
    assert merged.keys() == {"a.weight", "a.bias", "b.weight"}
    assert torch.equal(state["a.base_layer.weight"], torch.eye(2))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("finetune", "frosen", "tuning 'frosen' is not known. Did you mean 'frozen'"),
        ("linear", "finetune", "tuning is 'linear' already and cannot become 'finetune'"),
        ("lora", "frozen", "tuning is 'lora' already"),
    ],
)
def test_what_cannot_be(before, after, message):
    network = _network(before)
    with pytest.raises(ConfigError, match=message):
        network.set_tuning(after)


def test_ranks_and_missing_peft(monkeypatch):
    network = FaceParser(dense.tiny(), 2)
    with pytest.raises(ConfigError, match="LoRA rank is 0"):
        network.set_tuning("lora", 0)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingDependencyError, match=r"farl-lightning\[lora\]"):
        network.set_tuning("lora")
    assert network.tuning == "finetune"
    assert all(parameter.requires_grad for parameter in network.parameters())
