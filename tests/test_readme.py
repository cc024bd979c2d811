"""The README keeps its word: paths, configs, commands, flags and code in it are real."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import itertools
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from farl_lightning.cli import main
from farl_lightning.cli.arguments import read_settings
from farl_lightning.cli.preflight import prepare
from farl_lightning.cli.shipped import find_config
from farl_lightning.datamodules import LaPaDataModule, SyntheticFacesDataModule
from farl_lightning.inference import predictor
from farl_lightning.objectives import Contrastive
from farl_lightning.tasks import ParsingTask
from farl_lightning.testing.benchmarks import write_lapa
from farl_lightning.types import FaceSpec
from tests.inference.networks import PARSING, TINY
from tests.inference.test_docs import FakeDetector
from tests.tasks import tiny

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PROSE = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
INLINE = re.findall(r"`([^`]+)`", PROSE)
DENSE_SETTINGS = ("tuning", "tta_flip", "train_fraction")
MODEL_VERBS = ("fit", "validate", "test", "predict", "check", "preview")
# what keeps a command of the README short in a test, or away from a detector's download
SHORTER = {
    "embed": ["--data.train_count=24", "--data.val_count=4", "--data.test_count=12", "--device=cpu"],
    "search": ["--cropped", "--device=cpu"],
    "benchmark": ["--list"],
    "data index-detections": ["--help"],  # named in passing
}


def commands(page: str = README) -> list[str]:
    """Every command of the program, from blocks and from the text."""
    blocks = re.sub(r"\\\n\s*", "", "\n".join(re.findall(r"```bash\n(.*?)```", page, re.DOTALL))).splitlines()
    inline = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL))
    lines = [line.split("#")[0].strip() for line in [*blocks, *inline]]
    return list(dict.fromkeys(line for line in lines if line.startswith("farl-lightning ")))


def flags() -> list[str]:
    """Every flag that the text names, with its value."""
    return list(dict.fromkeys(text for text in INLINE if re.match(r"--\w", text)))


def braces(text: str) -> list[str]:
    """Expand ``a/{b,c}.yaml``."""
    parts = re.split(r"\{([^}]*)\}", text)
    choices = [part.split(",") if index % 2 else [part] for index, part in enumerate(parts)]
    return ["".join(choice) for choice in itertools.product(*choices)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What the README's reader has by then: pictures, captions, shards, a module, a checkpoint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [name for name in sys.modules if name == "mymodule"]:
        monkeypatch.delitem(sys.modules, name)
    Path("photos").mkdir()
    rows = ["file\tcaption"]
    for number in range(3):
        Image.fromarray(np.full((48, 48, 3), 80 * number, np.uint8)).save(f"photos/{number}.jpg")
        rows.append(f"{number}.jpg\ta face, number {number}")
    Path("photos/faces.csv").write_text("file,mood\n0.jpg,glad\n1.jpg,sad\n2.jpg,glad\n")
    Path("captions.tsv").write_text("\n".join(rows))
    Path("mymodule.py").write_text(next(code for code in PYTHON if "class UniformFeatures" in code))
    pretrained = tiny.task({"contrastive": Contrastive()})
    content = {"state_dict": pretrained.state_dict(), "face_spec": FaceSpec(image_size=32).to_dict()}
    for path in ("last.ckpt", "runs/pretrain/version_0/checkpoints/last.ckpt"):
        save(path, pretrained, SyntheticFacesDataModule(), **content)
    write_lapa(Path("data/LaPa"), count=1, size=32)
    save("runs/parsing_lapa/version_0/checkpoints/last.ckpt", ParsingTask(TINY), LaPaDataModule(root="data/LaPa"))
    spec = dataclasses.replace(PARSING, classes=("background", "skin", "hair"))
    parser = ParsingTask(TINY, num_classes=3)
    save("parsing.ckpt", parser, state_dict=parser.state_dict(), face_spec=spec.to_dict())
    adapted = ParsingTask(TINY, num_classes=3, tuning="lora")
    save("lora.ckpt", adapted, state_dict=adapted.state_dict(), face_spec=spec.to_dict())
    return tmp_path


def save(path: str, task, data=None, **content) -> None:
    """Write a checkpoint as a run does, as far as it is read."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    content |= {"pytorch-lightning_version": "2.6.0", "hyper_parameters": dict(task.hparams)}
    torch.save(content | ({"datamodule_hyper_parameters": dict(data.hparams)} if data else {}), path)


def accept(words: list[str], capsys) -> None:
    """Check a command with a model as a run would, then let the parser proper read it."""
    prepare(read_settings(words[0], words[1:]))
    if "--ckpt_path" not in words:  # --print_config does not open checkpoints, which hold model and data
        assert main([*words, "--print_config"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("command", [line for line in commands() if line.split()[1] in MODEL_VERBS])
def test_commands_with_a_model_are_accepted(command, folder, capsys):
    accept(shlex.split(command)[1:], capsys)


def test_commands_without_a_model_run_one_after_another(folder, capsys):
    lines = [line for line in commands() if line.split()[1] not in MODEL_VERBS]
    verbs = {" ".join(line.split()[1:3]) for line in lines}
    assert verbs >= {"configs", "init myproject", "data write-shards", "data verify", "export --ckpt_path"}
    for line in lines:
        words = shlex.split(line)[1:]
        words += SHORTER.get(words[0], []) + SHORTER.get(" ".join(words[:2]), [])
        # found: the fake has fewer faces than LaPa, and a run that is not sharded needs no consolidation
        lacking = words[:2] == ["data", "verify"] or words[0] == "consolidate"
        assert main(words) == int(lacking), capsys.readouterr().err
    assert Path("parsing.onnx").is_file()
    assert list(Path("shards").rglob("*.tar"))
    assert Path("myproject/config.yaml").is_file()


@pytest.mark.parametrize("flag", flags())
def test_flags_of_the_text_are_accepted(flag, folder, capsys):
    words = shlex.split(flag.replace("FILE", "runs/pretrain/version_0/checkpoints/last.ckpt"))
    if len(words) == 1:
        capsys.readouterr()
        assert main(["fit", "--help"]) == 0
        assert f"  {words[0]} " in capsys.readouterr().out
        return
    base = "parsing.yaml" if words[0].partition(".")[2] in DENSE_SETTINGS else "pretrain.yaml"
    accept(["fit", *([] if words[0] == "--config" else ["--config", base]), *words], capsys)


def test_configs_exist():
    names = {name for text in re.findall(r"[\w./{},-]+\.yaml", README) for name in braces(text)}
    assert {"pretrain.yaml", "trainer/multinode.yaml"} <= names
    for name in names:
        find_config(name)


def test_every_config_is_in_the_table():
    table = {name for text in INLINE if text.endswith(".yaml") for name in braces(text)}
    assert {path.relative_to(ROOT / "configs").as_posix() for path in (ROOT / "configs").rglob("*.yaml")} <= table


def test_paths_of_the_map_exist():
    rows = re.findall(r"^\| (`.*?) \|", README.partition("## Map")[2].partition("##")[0], re.MULTILINE)
    assert len(rows) >= 10
    for row in rows:
        first, *others = re.findall(r"`([^`]+)`", row)
        assert (ROOT / first).is_dir(), first
        for other in others:  # named without the folder that they share
            assert (ROOT / first).with_name(other).is_dir(), other
    for path in re.findall(r"`((?:notebooks|tests|src|docs)/[\w/]+)`", PROSE):
        assert (ROOT / path).exists(), path


def test_links_lead_somewhere():
    links = [link for link in re.findall(r"[^!]\[[^\]]*\]\(([^)]+)\)", README) if not link.startswith("https://")]
    assert links
    for link in links:
        source = (ROOT / "notebooks/src" / Path(link).name).with_suffix(".py")  # notebooks are generated
        assert (source if link.endswith(".ipynb") else ROOT / link).is_file(), link


def test_make_knows_its_targets():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE))
    assert {"quickstart", "test", "prove"} <= named <= targets


def test_every_extra_is_in_the_table():
    table = re.findall(r"^\| `(\w+)` \|", README.partition("| extra |")[2].partition("\n\n")[0], re.MULTILINE)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = project.partition("[project.optional-dependencies]")[2].partition("[project.scripts]")[0]
    assert set(table) == set(re.findall(r"^(\w+) = \[", extras, re.MULTILINE)) - {"test", "dev"}
    assert set(",".join(re.findall(r"pip install '\.\[([\w,]+)\]'", README)).split(",")) <= set(table)


def test_pictures_exist_and_are_small():
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert len(pictures) >= 2
    assert all((ROOT / picture).stat().st_size < 300_000 for picture in pictures)


def test_faces_of_a_photograph_in_six_lines(folder, monkeypatch):
    monkeypatch.setattr(predictor, "default_detector", FakeDetector)
    Image.fromarray(np.full((240, 240, 3), 120, np.uint8)).save("photo.jpg")
    names: dict[str, object] = {}
    code = next(code for code in PYTHON if "FacePredictor" in code)
    exec(compile(code, "README.md", "exec"), names)  # noqa: S102
    assert len([line for line in code.splitlines() if line]) == 5
    assert names["hair"].shape == (240, 240)
    assert names["hair"].dtype == bool
    assert Path("look.png").is_file()


@pytest.mark.parametrize("code", PYTHON)
def test_code_compiles_and_its_imports_exist(code):
    compile(code, "README.md", "exec")
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            assert all(importlib.import_module(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


def test_the_objective_of_the_readme_trains(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    kind = importlib.import_module("mymodule").UniformFeatures
    task = tiny.task({"uniform": kind(weight=0.5)})
    run = tiny.trainer(folder)
    run.fit(task, datamodule=tiny.TinyData())
    assert run.global_step == 2
    assert run.callback_metrics["train/loss"] == 0.5 * run.callback_metrics["train/loss_uniform"]
    loss = task.model({"image": tiny.Pairs(4, True).images}).loss
    loss.backward()
    assert task.model.clip.image_encoder.proj.grad.abs().sum() > 0
