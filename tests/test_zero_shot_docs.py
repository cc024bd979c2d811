"""The page about prompts, search and subgroups keeps its word: its commands run, its code and config work."""

from __future__ import annotations

import csv
import json
import re
import shlex

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from farl_lightning.callbacks import SubgroupResults
from farl_lightning.cli import main
from farl_lightning.cli.shipped import find_config
from farl_lightning.objectives import Contrastive
from farl_lightning.tasks import PretrainTask
from farl_lightning.testing.benchmarks import write_celeba
from farl_lightning.testing.models import tiny_config
from farl_lightning.types import FaceSpec
from tests.configs.test_zero_shot_configs import TINY
from tests.test_readme import ROOT, accept, commands

PAGE = (ROOT / "docs" / "zero_shot_and_fairness.md").read_text(encoding="utf-8")
COMMANDS = commands(PAGE)
PRETRAINED = "runs/pretrain/version_0/checkpoints/last.ckpt"
SMALL = ["--data.test_count=4", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A pretrained checkpoint, photographs that are faces, a folder of CelebA."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    task = PretrainTask(tiny_config(width=24, depth=1, heads=2, image_size=64), {"contrastive": Contrastive()})
    task.set_spec(FaceSpec(image_size=64))
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.strategy.connect(task)
    for path in ("last.ckpt", PRETRAINED):
        trainer.save_checkpoint(tmp_path / path)
    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.fromarray(np.full((64, 64, 3), 80 * number, np.uint8)).save(tmp_path / "photos" / f"{number}.png")
    write_celeba(tmp_path / "data" / "CelebA", count=2)
    return tmp_path


def run(line: str, *more: str) -> None:
    assert main([*shlex.split(line)[1:], *more]) == 0


def line(*parts: str) -> str:
    """Return the one command that has all parts."""
    (found,) = [command for command in COMMANDS if all(part in command for part in parts)]
    return found


def test_labels_are_told_as_the_page_says(folder, capsys):
    run(line("SyntheticGlobalDataModule"), *SMALL)
    (path,) = folder.rglob("results.json")
    metrics = json.loads(path.read_text())["test"]["metrics"]
    for name in ("mean", "gender", "gender_balanced", "expression_f1", "age", "Smiling_balanced"):
        entry = metrics[f"test/zero_shot_{name}"]
        assert 0 <= entry["value"] <= 1
        assert entry["low"] <= entry["difference"] <= entry["high"]
    run(line("zero_shot/celeba.yaml"), *(f"--{key}={value}" for key, value in TINY.items()))


def test_faces_are_searched_as_the_page_says(folder):
    for command in [command for command in COMMANDS if command.split()[1] in ("search", "embed")]:
        run(command, "--cropped", "--device", "cpu")
    with (folder / "grid.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 3
    assert (folder / "grid.png").is_file()


def test_the_code_of_the_page_runs(folder):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {"images": torch.zeros(2, 3, 64, 64)}
    exec(compile(code, "page", "exec"), names)  # noqa: S102
    assert names["probabilities"].shape == (2, 8)
    torch.testing.assert_close(names["probabilities"].sum(1), torch.ones(2))


def test_own_prompts_are_accepted(folder, capsys):
    (flag,) = re.findall(r"`(--model\.prompts [^`]+)`", PAGE)
    accept(["test", "--config", "zero_shot/celeba.yaml", *shlex.split(flag)], capsys)


def test_configs_and_settings_of_the_page_exist():
    for name in re.findall(r"[\w/]+\.yaml", PAGE):
        find_config(name)
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (node,) = yaml.safe_load(text)["trainer"]["callbacks+"]
    assert node["class_path"] == "SubgroupResults"
    assert SubgroupResults(**node["init_args"]).min_faces == 20
    assert SubgroupResults().min_faces == int(re.findall(r"`min_faces` \((\d+)\)", PAGE)[0])
    assert line("trainer/subgroups.yaml")  # run in tests/configs/test_zero_shot_configs.py
