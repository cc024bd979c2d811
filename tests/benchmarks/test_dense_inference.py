"""The benchmark of dense inference in its short form, and that its sides compute the same thing."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import dense_inference as bench
from benchmarks.bars import dense_inference as bars
from benchmarks.registry import Proof
from farl_lightning.functional.resize import resize
from tests.models import dense

_IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def _need(package):
    pytest.importorskip(package, reason=f"{package} is the peer: {bench.INSTALL[package]}")


@torch.no_grad()
def test_features_equal_facers():
    _need("facer")
    parser = bench.our_parser(bench.SHORT)
    peer = bench.facer_features(bench.SHORT, parser)
    assert bench.difference(bench.our_features(parser, _IMAGES), peer(_IMAGES)[0]) < 1e-4
    parser.neck.levels[1].convs[0].bias.data[0] += 1
    assert bench.difference(bench.our_features(parser, _IMAGES), peer(_IMAGES)[0]) > 0.5


@torch.no_grad()
def test_logits_equal_the_peers():
    _need("segmentation_models_pytorch")
    parser = bench.our_parser(bench.SHORT)
    peer = bench.PeerParser(bench.SHORT, parser)
    assert bench.difference([parser.logits(_IMAGES)], [peer.logits(_IMAGES)]) < 1e-4
    assert bench.difference([dense.logits(parser, _IMAGES)], [peer.logits(_IMAGES)]) < 1e-4
    assert peer(_IMAGES).shape == resize(parser.logits(_IMAGES), (64, 64)).shape
    unread = {"encoder.model.norm.weight", "encoder.model.norm.bias"}
    assert set(peer.state_dict()) - set(bench._peer_state(parser)) == unread


def test_the_short_form_writes_every_row(tmp_path):
    _need("facer")
    _need("segmentation_models_pytorch")
    file = tmp_path / "dense_inference.json"
    assert bench.main(["--short", "--repeats", "1", "--json", str(file), "--require"]) == 0
    written = json.loads(file.read_text())
    assert [row["name"] for row in written["verdicts"]] == [
        "same numbers: a. features",
        "a. features, fp32",
        "a. features, bf16",
        "same numbers: b. parser",
        "b. parser, fp32",
    ]
    flops = {name: numbers["flops"] for name, numbers in written["details"].items()}
    assert flops["b. parser: ours fp32"] < flops["b. parser: smp"]
    proof = Proof(tmp_path, short=True)
    proof.once("dense_inference", lambda: written)
    assert bars.same_features(proof)[1]
    assert bars.same_parser(proof)[1]
    assert [bar(proof)[1] for bar in (bars.features_fp32, bars.features_bf16, bars.parser)] == [None] * 3


def test_without_peers_it_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    assert bench.main(["--short", "--json", str(tmp_path / "x.json"), "--require"]) == 0
    output = capsys.readouterr().out
    assert "pip install --no-deps pyfacer" in output
    proof = Proof(tmp_path, short=True)
    proof.once("dense_inference", lambda: json.loads((tmp_path / "x.json").read_text()))
    assert bars.features_fp32(proof)[1] is None
    assert "segmentation_models_pytorch" in bars.same_parser(proof)[0]
