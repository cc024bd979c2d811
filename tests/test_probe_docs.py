"""The page about features and probes: its commands run, one after the other, and so does its code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from farl_lightning import callbacks
from farl_lightning.cli import main
from farl_lightning.models import FaceCLIP
from farl_lightning.models.checkpoint import save_farl
from farl_lightning.probing.probe import METHODS
from farl_lightning.testing.models import tiny_config
from farl_lightning.types import FaceSpec

PAGE = (Path(__file__).resolve().parents[1] / "docs/probes.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    clip = FaceCLIP(tiny_config())
    clip.face_spec = FaceSpec(image_size=32)
    save_farl("farl.pth", clip)
    Path("photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(10):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(f"photos/{number}.png")
    rows = [f"photos/{number}.png,{20 + number},{'man' if number % 2 else 'woman'}" for number in range(10)]
    Path("people.csv").write_text("\n".join(["file,age,gender", *rows]))
    sizes = {"train_count": 24, "val_count": 1, "test_count": 24, "image_size": 48}
    Path("data.yaml").write_text(
        yaml.safe_dump({"data": {"class_path": "SyntheticGlobalDataModule", "init_args": sizes}})
    )
    return tmp_path


def test_commands_and_code_run_one_after_the_other(folder, capsys):
    lines = [line for block in blocks("shell") for line in block.splitlines()]
    assert len(lines) == 7
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "farl-lightning"
        assert main(words[1:]) == 0, capsys.readouterr().err
    (code,) = blocks("python")
    exec(compile(code, "docs/probes.md", "exec"), {})  # noqa: S102
    printed = capsys.readouterr().out
    assert all(method in printed for method in METHODS)


def test_every_method_is_described():
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == ["linear", "ridge", "sgd", "knn"]
    assert {"linear", "ridge", "sgd", "knn"} == set(METHODS)


def test_the_yaml_is_a_callback():
    (text,) = blocks("yaml")
    (node,) = yaml.safe_load(text)["trainer"]["callbacks"]
    assert isinstance(getattr(callbacks, node["class_path"])(**node["init_args"]), L.Callback)
