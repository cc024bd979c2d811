"""The page about verification keeps its word: commands, flags, losses, published numbers."""

from __future__ import annotations

import re
import shlex
from typing import get_args

import pytest
import yaml

from farl_lightning.datamodules import SyntheticIdentitiesDataModule, VerificationDataModule
from farl_lightning.tasks import VerificationTask
from farl_lightning.tasks.verification import MARGINS, IdentityLoss
from tests.tasks.people import network
from tests.test_readme import MODEL_VERBS, ROOT, accept, commands, save

PAGE = (ROOT / "docs" / "verification.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if re.match(r"\| `\w", line)
]
LISTS = ("lfw", "cfp_fp", "agedb_30", "calfw", "cplfw")


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """What the page's reader has by then: a run of each of two recipes."""
    monkeypatch.chdir(tmp_path)
    task = VerificationTask(network(), 8)
    save("runs/verification/version_0/checkpoints/last.ckpt", task, SyntheticIdentitiesDataModule())
    lists = {"lfw": "data/pairs/lfw.bin"}
    save("runs/verification_cosface/version_0/checkpoints/last.ckpt", task, VerificationDataModule(pairs=lists))


@pytest.mark.parametrize("command", [line for line in commands(PAGE) if line.split()[1] in MODEL_VERBS])
def test_commands_are_accepted(command, runs, capsys):
    accept(shlex.split(command)[1:], capsys)


@pytest.mark.parametrize("flag", re.findall(r"`(--(?:model|data)\.[\w.]+ [^`]+)`", PAGE))
def test_flags_are_accepted(flag, runs, capsys):
    accept(["fit", "--config", "verification.yaml", *shlex.split(flag)], capsys)


def test_every_loss_has_its_paper_s_margin():
    losses = {row[0].strip("`"): row[1] for row in ROWS if row[0].strip("`") in get_args(IdentityLoss)}
    assert set(losses) == set(get_args(IdentityLoss)) == set(MARGINS)
    for name, text in losses.items():
        assert f"({MARGINS[name]})" in text


def test_every_recipe_is_listed_with_the_numbers_of_its_config():
    listed = {row[0].strip("`"): row[1:] for row in ROWS if "verification/" in row[0]}
    shipped = {f"verification/{path.name}" for path in (ROOT / "configs" / "verification").iterdir()}
    assert set(listed) == shipped
    for name, numbers in listed.items():
        settings = yaml.safe_load((ROOT / "configs" / name).read_text(encoding="utf-8"))["model"]["init_args"]
        rows = settings.get("reference", {})
        expected = [f"{rows[f'accuracy_{key}']['value']:.2f}" for key in (*LISTS, "mean")] if rows else []
        assert [number for number in numbers if number not in ("", "not published")] == expected
