from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from farl_lightning.errors import ConfigError, MissingDependencyError
from farl_lightning.export import export_checkpoint, photo_network
from farl_lightning.export.check import Difference, compare, probes
from farl_lightning.export.network import METADATA, UNSTATED, load_onnx, load_torch, stated_license
from farl_lightning.export.pipeline import crop_matrix, invert_affine
from farl_lightning.functional.geometry import FARL_TEMPLATE
from farl_lightning.inference import FacePredictor
from farl_lightning.models.dense import FaceAligner, FaceParser
from farl_lightning.models.opened import OpenedNetwork, open_dense
from farl_lightning.transforms.face_matrix import face_matrix
from farl_lightning.types import FaceSpec
from tests.inference.networks import ALIGNMENT, PARSING, TINY, ColourParser

FACES = dataclasses.replace(PARSING, image_size=32, warp_factor=0.8)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A parser and an aligner as tasks save them."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    made = (
        ("parsing", FaceParser(TINY, 3), FACES, {"num_classes": 3, "weights": "farl-b16-ep16"}),
        ("alignment", FaceAligner(TINY, 1), dataclasses.replace(ALIGNMENT, zoom=0.8), {"num_landmarks": 1}),
    )
    for name, network, spec, hparams in made:
        plain = dataclasses.asdict(TINY)
        state = {f"model.{key}": value for key, value in network.state_dict().items()}
        saved = {"state_dict": state, "hyper_parameters": {"network": plain, **hparams}, "face_spec": spec.to_dict()}
        torch.save(saved, folder / f"{name}.ckpt")
    return folder


@pytest.mark.parametrize("crop", ["align", "quad", "box", "none"])
@pytest.mark.parametrize("zoom", [1.0, 0.8])
def test_crops_are_those_of_training(crop, zoom):
    spec = FaceSpec(image_size=48, crop=crop, template=FARL_TEMPLATE, zoom=zoom)
    for image, *place in probes(spec):
        found = crop_matrix(spec, image.double(), place[0].double() if place else None)
        for row in range(len(image)):
            given = {("box" if crop == "box" else "points"): place[0][row].tolist()} if place else {}
            wanted = face_matrix(spec, tuple(image.shape[2:]), **given)
            torch.testing.assert_close(found[row], wanted, atol=1e-5, rtol=1e-5)


def test_the_inverse_undoes_the_matrix():
    matrix = torch.tensor([[[2.0, 0.5, -30], [-0.3, 1.5, 12], [0, 0, 1]], [[0.1, 0, 5], [0, 0.2, 6], [0, 0, 1]]])
    product = invert_affine(matrix.double()) @ matrix.double()
    torch.testing.assert_close(product, torch.eye(3, dtype=torch.float64).expand(2, 3, 3))


@pytest.mark.parametrize("crop", ["align", "quad", "box", "none"])
@pytest.mark.parametrize("kind", ["parsing", "alignment"])
def test_the_pipeline_agrees_with_evaluation(kind, crop):
    torch.manual_seed(1)
    network = (FaceParser(TINY, 5) if kind == "parsing" else FaceAligner(TINY, 4)).eval()
    spec = FaceSpec(image_size=32, crop=crop, template=FARL_TEMPLATE, warp_factor=0.5, zoom=0.9)
    difference = compare(photo_network(network, spec), OpenedNetwork(network, spec))
    assert difference.ok, str(difference)
    assert (difference.labels is None) == (kind == "alignment")


def test_the_pipeline_agrees_with_the_predictor():
    network = ColourParser(FACES).eval()
    image, points = next(probes(FACES))
    labels, *_ = photo_network(network, FACES)(image, points)
    picture = (image * 255).round().to(torch.uint8)
    predictor = FacePredictor(network, FACES, device="cpu", antialias=False)
    for row in range(len(image)):
        (face,) = predictor(picture[row], points=points[row])
        assert (face.labels == labels[row].numpy()).mean() > 0.99
        assert len(np.unique(face.labels)) == 3


def test_onnx_from_the_command_line(checkpoints, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra 'export')")
    onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra 'export')")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra 'export')")
    from farl_lightning.cli import main

    monkeypatch.chdir(tmp_path)
    assert main(["export", "--ckpt_path", str(checkpoints / "parsing.ckpt"), "--license", "CC0"]) == 0
    printed = capsys.readouterr().out
    assert "wrote parsing.onnx" in printed
    assert "license: CC0" in printed
    assert "checked against the checkpoint: outputs differ by" in printed
    model = onnx.load(tmp_path / "parsing.onnx")
    described = {entry.key: entry.value for entry in model.metadata_props}
    assert described["license"] == "CC0"
    metadata = json.loads(described["farl_lightning"])
    assert FaceSpec.from_dict(metadata["face_spec"]) == FACES
    assert list(metadata["inputs"]) == [entry.name for entry in model.graph.input] == ["image", "points"]
    assert [entry.name for entry in model.graph.output] == ["labels", "logits", "matrix"]
    axes = [axis.dim_param or axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim]
    assert axes == ["batch", 3, "height", "width"]
    # a size that the check does not use
    image = torch.rand(4, 3, 70, 55)
    points = next(probes(FACES))[1][:1].expand(4, 5, 2) * 0.5
    labels, logits, matrix = load_onnx(tmp_path / "parsing.onnx")(image, points)
    opened = open_dense(checkpoints / "parsing.ckpt")
    wanted = photo_network(opened.network, opened.spec)(image, points)
    assert labels.shape == (4, 70, 55)
    assert labels.dtype == torch.uint8
    torch.testing.assert_close(logits, wanted[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(matrix, wanted[2])
    assert (labels == wanted[0]).float().mean() > 0.999
    _run_the_example_of_the_docs()
    assert main(["export", "--ckpt_path", str(checkpoints / "parsing.ckpt")]) == 2
    assert "'parsing.onnx' exists already" in capsys.readouterr().err


def _run_the_example_of_the_docs():
    """Run what docs/inference.md shows, in a folder with ``parsing.onnx``."""
    page = Path(__file__).resolve().parents[2] / "docs/inference.md"
    example = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)[-1]
    Image.fromarray(np.full((200, 240, 3), 90, np.uint8)).save("photo.jpg")
    names: dict[str, Any] = {}
    exec(compile(example, str(page), "exec"), names)  # noqa: S102
    assert names["labels"].shape == (1, 200, 240)
    assert tuple(names["names"]) == FACES.classes


def test_a_program_of_torch_export(checkpoints, tmp_path):
    report = export_checkpoint(checkpoints / "alignment.ckpt", tmp_path / "sub/a.pt2", "torch")
    assert report.difference.ok, str(report.difference)
    assert report.difference.pixels < 0.01
    extra = {METADATA: ""}
    torch.export.load(report.path, extra_files=extra)
    metadata = json.loads(extra[METADATA])
    assert metadata == report.metadata
    assert (metadata["network"], metadata["license"]) == ("FaceAligner", UNSTATED)
    assert list(metadata["inputs"]) == ["image", "box"]
    landmarks, confidence, matrix = load_torch(report.path)(
        torch.rand(5, 3, 40, 80), torch.tensor([[5.0, 5, 70, 35]] * 5)
    )
    assert (landmarks.shape, confidence.shape, matrix.shape) == ((5, 1, 2), (5, 1), (5, 3, 3))


def test_terms_come_from_known_weights(checkpoints):
    assert stated_license("facer-parsing-lapa") == "MIT"
    assert stated_license(checkpoints / "parsing.ckpt") == f"{UNSTATED} (initial weights: farl-b16-ep16, MIT)"
    assert stated_license(checkpoints / "alignment.ckpt") == UNSTATED


def test_a_wrong_file_is_noticed():
    torch.manual_seed(2)
    network, other = FaceParser(TINY, 3).eval(), FaceParser(TINY, 3).eval()
    difference = compare(photo_network(other, FACES), OpenedNetwork(network, FACES))
    assert not difference.ok
    assert difference.labels > 0.01
    shifted = photo_network(network, dataclasses.replace(FACES, zoom=1.1))
    assert not compare(shifted, OpenedNetwork(network, FACES)).ok
    assert not Difference(0.0, pixels=0.1).ok
    assert not Difference(0.0, labels=0.01).ok


def test_mistakes_are_named(checkpoints, tmp_path, monkeypatch):
    path = checkpoints / "parsing.ckpt"
    with pytest.raises(ConfigError, match=r"format 'onx' is unknown\. Did you mean 'onnx'.*TorchScript is not written"):
        export_checkpoint(path, tmp_path / "x", "onx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingDependencyError, match=r"'onnxscript' is not installed; run: .*farl-lightning\[export\]"):
        export_checkpoint(path, tmp_path / "x.onnx")
    with pytest.raises(ConfigError, match="crop 'aling' is unknown"):
        photo_network(FaceParser(TINY, 3), dataclasses.replace(FACES, crop="aling"))
    with pytest.raises(ConfigError, match="a Linear cannot be exported"):
        photo_network(torch.nn.Linear(1, 1), FACES)
