"""The page about inference keeps its word: its code runs, its commands and flags exist."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from farl_lightning.cli import main
from farl_lightning.cli.arguments import read_settings
from farl_lightning.cli.preflight import prepare
from farl_lightning.datasets.sidecar import read_sidecar
from farl_lightning.inference import predictor
from farl_lightning.models.dense import FaceParser
from farl_lightning.transforms.detectors import detections
from tests.inference.networks import PARSING, TINY
from tests.inference.test_predictor import _save

PAGE = (Path(__file__).resolve().parents[2] / "docs/inference.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
PREDICT, EXPORT, MERGE = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
SIDECAR = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[0]
POINTS = np.float32(json.loads(SIDECAR)["photo.jpg"][1]["points"])


class FakeDetector:
    def detect(self, image):
        return detections([[60, 40, 180, 190]], [0.9], [POINTS])


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """What the page's reader has: a checkpoint, two photographs, a detector."""
    monkeypatch.chdir(tmp_path)
    spec = dataclasses.replace(PARSING, classes=("background", "skin", "hair"))
    _save(tmp_path / "parsing.ckpt", FaceParser(TINY, 3), spec, num_classes=3)
    for name in ("photo.jpg", "group.jpg", "crop.png"):
        Image.fromarray(np.full((240, 240, 3), 120, np.uint8)).save(name)
    monkeypatch.setattr(predictor, "default_detector", FakeDetector)
    return tmp_path


def test_the_code_runs(reader, capsys):
    names: dict[str, object] = {}
    for block in PYTHON[:-1]:  # the last one needs an exported file: tests/export runs it
        exec(compile(block, "docs/inference.md", "exec"), names)  # noqa: S102
    assert (reader / "look.png").is_file()
    assert len(re.findall(r"^1 \[0\.(?:9|89)", capsys.readouterr().out, re.MULTILINE)) == 2
    assert names["predictor"].spec.crop == "quad"


def test_the_calls_in_the_table_work(reader):
    calls = re.findall(r"\| `(predictor\(.*?\))`", PAGE)
    assert len(calls) == 4
    loaded = predictor.FacePredictor.load("parsing.ckpt", device="cpu")
    for call in calls:
        (face,) = eval(call, {"predictor": loaded, "points": POINTS})  # noqa: S307
        assert face.labels.shape == (240, 240)


def test_the_command_and_its_flags_are_understood(reader):
    words = shlex.split(PREDICT)[2:]
    (reader / "photos").mkdir()
    for flags in (" ".join(match) for match in re.findall(r"`(--data\.(?!root)\S+ [^`]+)`()", PAGE)):
        prepare(read_settings("predict", [*_without_checkpoint(words), "--model", "ParsingTask", *shlex.split(flags)]))


def _without_checkpoint(words):
    """The checkpoint of the fixture was not written by a run, so it cannot be given to the command line."""
    at = words.index("--ckpt_path")
    return words[:at] + words[at + 2 :]


def test_the_sidecar_is_read(tmp_path):
    (tmp_path / "faces.json").write_text(SIDECAR)
    first, second = read_sidecar(tmp_path / "faces.json")["photo.jpg"]
    assert first.box == (60, 40, 180, 190)
    np.testing.assert_array_equal(second.points, POINTS)


def test_the_export_command_is_the_one_that_is_tested():
    assert shlex.split(EXPORT) == ["farl-lightning", "export", "--ckpt_path", "parsing.ckpt", "--format", "onnx"]


def test_the_merge_command_does_what_the_page_says(tmp_path, monkeypatch, capsys):
    pytest.importorskip("peft", reason="the extra 'lora' is not installed")
    monkeypatch.chdir(tmp_path)
    network = FaceParser(TINY, 3).set_tuning("lora", rank=2)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(parameter)
    path = _save(tmp_path / "lora.ckpt", network, PARSING, num_classes=3, tuning="lora")
    torch.save({**torch.load(path, weights_only=True), "pytorch-lightning_version": "2.6"}, path)
    assert main(shlex.split(MERGE)[1:]) == 0
    assert "wrote merged.ckpt" in capsys.readouterr().out
    images = torch.randn(1, 3, 32, 32)
    wanted, found = (FaceParser.from_checkpoint(tmp_path / name)(images) for name in ("lora.ckpt", "merged.ckpt"))
    torch.testing.assert_close(found, wanted)
    saved = torch.load(tmp_path / "merged.ckpt", weights_only=True)
    assert not any("lora" in name for name in saved["state_dict"])
    assert saved["hyper_parameters"]["tuning"] == "finetune"
