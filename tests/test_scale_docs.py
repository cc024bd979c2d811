"""The page about scale says what ``plan`` prints, and names only what there is."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from farl_lightning.cli.shipped import find_config

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


def _maker():
    spec = importlib.util.spec_from_file_location("make_scale", ROOT / "docs" / "make_scale.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_what_plan_prints():
    maker = _maker()
    assert len(maker.BLOCK.findall(PAGE)) == 3
    assert maker.fill(PAGE) == PAGE, "run python docs/make_scale.py"


def test_a_changed_number_is_noticed():
    assert _maker().fill(PAGE.replace("163.0 M", "164.0 M")) == PAGE


def test_files_that_are_named_exist():
    for name in set(re.findall(r"`((?:scripts|tests|docs)/[\w/.]+)`", PAGE)):
        assert (ROOT / name).is_file(), name
    for name in set(re.findall(r"((?:trainer|pretrain)/\w+\.yaml)", PAGE)):
        assert find_config(name).is_file()
