"""The page about comparing encoders keeps its word: its file, its commands, its methods."""

from __future__ import annotations

import re
import shlex

import pytest
import yaml

from farl_lightning.benchmark import METHODS, list_cells, read_benchmark
from farl_lightning.cli import main
from farl_lightning.cli.cells import FitWorker
from farl_lightning.cli.shipped import shipped_configs
from tests.test_readme import ROOT

PAGE = (ROOT / "docs" / "comparing_encoders.md").read_text(encoding="utf-8")
COMMANDS = "".join(re.findall(r"```shell\n(.*?)```", PAGE, re.DOTALL)).splitlines()
FILE = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(FILE)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_accepted(command, mine, capsys):
    words = [word for word in shlex.split(command)[1:] if word != "--list"]
    assert main([*words, "--list"]) == 0
    assert "farl, frozen, 10 %, seed 0" in capsys.readouterr().out


def test_there_are_commands():
    assert len(COMMANDS) == 4
    assert all(command.startswith("farl-lightning benchmark ") for command in COMMANDS)


def test_its_file_is_a_benchmark():
    benchmark = read_benchmark(yaml.safe_load(FILE))
    worker, cells = FitWorker(benchmark), list_cells(benchmark)
    assert len(cells) == 2 * 2 * 2 * 2 * 3  # encoders, tasks, two methods each, shares, seeds
    for cell in cells:
        assert worker.describe(cell)


def test_every_method_and_every_shipped_benchmark_is_listed():
    assert tuple(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == METHODS
    for name in shipped_configs():
        if name.startswith("benchmark/"):
            assert f"`{name}.yaml`" in PAGE
