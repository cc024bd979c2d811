"""Networks that answer once for a whole face: from a checkpoint to a photograph, to one file, and merged."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from farl_lightning.errors import CheckpointError, ConfigError
from farl_lightning.export import export_checkpoint, photo_network
from farl_lightning.export.check import Difference, compare
from farl_lightning.export.network import load_torch
from farl_lightning.functional.geometry import FARL_TEMPLATE
from farl_lightning.inference import FacePredictor
from farl_lightning.losses import AgeOrdinal
from farl_lightning.models.attributes import FaceAge, FaceAttributes, FaceClassifier, FaceEmbedder
from farl_lightning.models.config import GlobalConfig
from farl_lightning.models.opened import OpenedNetwork, open_dense
from farl_lightning.types import FaceSpec
from tests.inference.networks import TINY
from tests.inference.test_predictor import POINTS, stripes

MOODS = ("calm", "glad", "sad")
SPEC = FaceSpec(
    image_size=32,
    crop="align",
    template=FARL_TEMPLATE,
    attributes=("Smiling", "Young"),
    label_names={"mood": MOODS, "age": ()},
)
CONFIG = GlobalConfig(TINY.image, dropout=0.5)  # which must be off
ORDINAL = {"class_path": "farl_lightning.losses.AgeOrdinal", "init_args": {"min_age": 10, "max_age": 40, "soft": True}}


def save(path, network, spec=SPEC, **hparams):
    """Write a checkpoint as a task does."""
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    plain = dataclasses.asdict(dataclasses.replace(network.config, shared=False))
    content = {"state_dict": state, "hyper_parameters": {"network": plain, **hparams}, "face_spec": spec.to_dict()}
    torch.save(content, path)
    return path


def classifier(outputs=3):
    torch.manual_seed(0)
    return FaceClassifier(CONFIG, outputs).eval()


def ages(outputs=30):
    torch.manual_seed(1)
    network = FaceAge(dataclasses.replace(CONFIG, shared=True), outputs).eval()
    network.head.classify.bias.data = torch.linspace(3, -3, outputs)
    return network


def looked_at(network):
    """Return the outputs of a network for the face of the stripes, cropped as evaluation does."""
    seen = []
    hook = network.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs))
    (face,) = FacePredictor(network, SPEC, device="cpu", **_told(network))(stripes()[0], points=POINTS)
    hook.remove()
    return face, seen[0]


def _told(network):
    return {"age_method": AgeOrdinal(10, 40, soft=True)} if isinstance(network, FaceAge) else {}


def test_a_classifier_answers_with_the_names_of_its_label(tmp_path):
    network = classifier()
    _, outputs = looked_at(network)
    predictor = FacePredictor.load(save(tmp_path / "x.ckpt", network, column="mood", num_classes=None), device="cpu")
    (face,) = predictor(stripes()[0], points=POINTS)
    assert tuple(face.probabilities) == MOODS
    shares = outputs[0].exp() / outputs[0].exp().sum()
    assert list(face.probabilities.values()) == pytest.approx(shares.tolist(), abs=1e-6)
    assert face.label == MOODS[int(outputs.argmax())]
    plain = json.loads(json.dumps(face.to_dict()))
    assert (plain["label"], plain["probabilities"]) == (face.label, face.probabilities)
    assert (face.age, face.attributes, face.labels) == (None, None, None)
    assert face.draw().shape == (240, 320, 3)


def test_ages_are_read_off_by_the_method_of_the_checkpoint(tmp_path):
    network = ages()
    _, outputs = looked_at(network)
    predictor = FacePredictor.load(save(tmp_path / "x.ckpt", network, column="age", method=ORDINAL), device="cpu")
    (face,) = predictor(stripes()[0], points=POINTS)
    assert face.age == pytest.approx(10 + outputs[0].sigmoid().sum().item(), abs=1e-4)
    assert face.label is None
    assert json.loads(json.dumps(face.to_dict()))["age"] == face.age


def embedder():
    torch.manual_seed(2)
    network = FaceEmbedder(CONFIG, 6).eval()
    network.norm.running_mean.uniform_(-0.5, 0.5)
    return network


def test_a_network_for_verification_gives_embeddings(tmp_path):
    network = embedder()
    _, outputs = looked_at(network)
    predictor = FacePredictor.load(save(tmp_path / "x.ckpt", network, embedding_size=6, loss="arcface"), device="cpu")
    (face,) = predictor(stripes()[0], points=POINTS)
    np.testing.assert_allclose(face.embedding, outputs[0].numpy(), atol=1e-6)
    assert (face.embedding.dtype, face.embedding.shape) == (np.float32, (6,))
    assert np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-6)
    assert json.loads(json.dumps(face.to_dict()))["embedding"] == face.embedding.tolist()
    difference = compare(photo_network(network, SPEC), OpenedNetwork(network, SPEC))
    assert difference.ok, str(difference)
    other = embedder()
    torch.nn.init.normal_(other.head.classify.weight)
    assert not compare(photo_network(other, SPEC), OpenedNetwork(network, SPEC)).ok
    report = export_checkpoint(tmp_path / "x.ckpt", tmp_path / "x.pt2", "torch")
    assert report.difference.ok, str(report.difference)
    assert report.metadata["outputs"] == ["embedding", "matrix"]


def test_what_a_checkpoint_does_not_say_is_given():
    bare = FaceSpec(image_size=32, crop="none")
    (face,) = FacePredictor(classifier(), bare, device="cpu")(stripes()[0])
    assert list(face.probabilities) == ["class_0", "class_1", "class_2"]
    (face,) = FacePredictor(classifier(), SPEC, device="cpu", column="mood")(stripes()[0], points=POINTS)
    assert tuple(face.probabilities) == MOODS
    with pytest.raises(ConfigError, match=r"there are no classes of 'moods'. Did you mean 'mood'"):
        FacePredictor(classifier(), SPEC, device="cpu", column="moods")
    with pytest.raises(ConfigError, match="label 'mood' has 3 classes, the network 4 outputs"):
        FacePredictor(classifier(4), SPEC, device="cpu", column="mood")
    with pytest.raises(ConfigError, match="takes 101 outputs, the network has 30; pass age_method"):
        FacePredictor(ages(), SPEC, device="cpu")


def test_a_file_that_contradicts_itself(tmp_path):
    path = save(tmp_path / "x.ckpt", classifier(4), column="mood", num_classes=4)
    with pytest.raises(CheckpointError, match="has 4 outputs for classification, but its FaceSpec describes 3"):
        open_dense(path)


def networks():
    attributes = FaceAttributes(CONFIG, 2).eval()
    aged = ages()
    aged.task_settings = {"column": "age", "method": ORDINAL}
    return {"attributes": attributes, "probabilities": classifier(), "age": aged}


@pytest.mark.parametrize("kind", ["attributes", "probabilities", "age"])
def test_the_exported_pipeline_agrees_with_evaluation(kind):
    network = networks()[kind]
    photo = photo_network(network, SPEC)
    assert photo.outputs == (kind, "logits", "matrix")
    difference = compare(photo, OpenedNetwork(network, SPEC))
    assert difference.ok, str(difference)
    assert difference.answer is not None
    other = classifier() if kind == "probabilities" else networks()[kind]
    torch.nn.init.normal_(other.head.classify.weight)
    assert not compare(photo_network(other, SPEC), OpenedNetwork(network, SPEC)).ok
    assert not Difference(0.0, answer=0.02).ok


def test_an_age_as_a_program(tmp_path):
    path = save(tmp_path / "x.ckpt", ages(), column="age", method=ORDINAL)
    report = export_checkpoint(path, tmp_path / "age.pt2", "torch")
    assert report.difference.ok, str(report.difference)
    assert "ages by" in str(report.difference)
    assert (report.metadata["network"], report.metadata["column"]) == ("FaceAge", "age")
    image = torch.from_numpy(stripes()[0]).permute(2, 0, 1)[None].float() / 255
    age, logits, _ = load_torch(report.path)(image.expand(5, -1, -1, -1), torch.from_numpy(POINTS).expand(5, 5, 2))
    predictor = FacePredictor.load(path, device="cpu", antialias=False)
    (face,) = predictor(stripes()[0], points=POINTS)
    np.testing.assert_allclose(age.numpy(), face.age, atol=0.05)
    assert logits.shape == (5, 30)


def test_a_classifier_as_onnx(tmp_path, capsys):
    for module in ("onnxruntime", "onnx", "onnxscript"):
        pytest.importorskip(module, reason=f"{module} is not installed (extra 'export')")
    from farl_lightning.cli import main
    from farl_lightning.export.network import load_onnx

    path = save(tmp_path / "x.ckpt", classifier(), column="mood", num_classes=3)
    assert main(["export", "--ckpt_path", str(path), "--output", str(tmp_path / "mood.onnx")]) == 0
    assert "gives probabilities, logits, matrix" in capsys.readouterr().out
    image = torch.from_numpy(stripes()[0]).permute(2, 0, 1)[None].float() / 255
    shares, *_ = load_onnx(tmp_path / "mood.onnx")(image, torch.from_numpy(POINTS)[None])
    (face,) = FacePredictor.load(path, device="cpu", antialias=False)(stripes()[0], points=POINTS)
    np.testing.assert_allclose(shares[0].numpy(), list(face.probabilities.values()), atol=1e-3)
