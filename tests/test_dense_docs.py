"""The page about parsing and alignment keeps its word: commands, flags, folders, published numbers, pictures."""

from __future__ import annotations

import importlib.util
import re
import shlex

import pytest
import yaml

from farl_lightning.cli.verify import BENCHMARKS
from tests.test_readme import MODEL_VERBS, ROOT, accept, commands, folder  # noqa: F401  # a fixture

DOCS = ROOT / "docs"
PAGE = (DOCS / "parsing_and_alignment.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("|") and not line.startswith("|---")
]
RECIPES = [row for row in ROWS if re.match(r"`(parsing|alignment)/", row[0])]
PUBLISHED = {
    "LaPa": "parsing/lapa",
    "CelebAMask-HQ": "parsing/celebamask_hq",
    "300-W": "alignment/ibug300w",
    "WFLW": "alignment/wflw",
    "AFLW-19": "alignment/aflw19",
}
CROPS = {"align": "by five points", "box": "by box", "none": "ready-made crops"}


def recipe(name: str) -> dict:
    return yaml.safe_load((ROOT / "configs" / name.strip("`")).read_text(encoding="utf-8"))


@pytest.mark.parametrize("command", [line for line in commands(PAGE) if line.split()[1] in MODEL_VERBS])
def test_commands_are_accepted(command, folder, capsys):  # noqa: F811
    accept(shlex.split(command)[1:], capsys)


@pytest.mark.parametrize("flag", re.findall(r"`(--(?:model|data)\.[\w.]+ [^`]+)`", PAGE))
def test_flags_are_accepted(flag, folder, capsys):  # noqa: F811
    base = "parsing/celebamask_hq.yaml" if "mask_cache" in flag else "parsing/lapa.yaml"
    accept(["fit", "--config", base, *shlex.split(flag)], capsys)


@pytest.mark.parametrize("row", RECIPES, ids=lambda row: row[0].strip("`"))
def test_recipes_are_what_the_table_says(row):
    config, verify, _, labels = row
    settings = recipe(config)
    dataset, root = verify.strip("`").split()
    assert dataset in BENCHMARKS
    assert settings["data"]["class_path"] == f"{dataset}DataModule"
    data = settings["data"]["init_args"]
    assert data["root"] == root
    assert CROPS[data["transform"]["crop"]] in labels
    assert data["transform"].get("warp_factor", 0) == (0.8 if "tanh warp 0.8" in labels else 0)
    header = (ROOT / "configs" / config.strip("`")).read_text(encoding="utf-8").partition("\n")[0]
    assert re.search(rf"\b{labels.partition(',')[0]} (classes|landmarks)", header)
    assert (ROOT / "configs" / config.strip("`").replace(".yaml", "_frozen.yaml")).is_file()


def test_every_recipe_is_in_the_table():
    folders = [ROOT / "configs" / kind for kind in ("parsing", "alignment")]
    shipped = {f"{path.parent.name}/{path.name}" for place in folders for path in place.iterdir()}
    assert {row[0].strip("`") for row in RECIPES} == {name for name in shipped if "_frozen" not in name}


@pytest.mark.parametrize("row", [row for row in ROWS if len(row) >= 4 and row[0].split(",")[0] in PUBLISHED], ids=str)
def test_published_numbers_are_those_of_the_configs(row):
    benchmark, metric, value, selected = row[:4]
    name = re.findall(r"`(\w+)`", metric)[0]
    entry = recipe(f"{PUBLISHED[benchmark.split(',')[0]]}.yaml")["model"]["init_args"]["reference"][name]
    assert (entry["value"], entry["selection"], entry["mark"]) == (float(value), selected, "confirmed")


def test_all_benchmarks_with_numbers_are_listed():
    listed = {row[0].split(",")[0] for row in ROWS if len(row) >= 4}
    assert listed >= set(PUBLISHED)
    with_numbers = {row[0] for row in RECIPES if "reference" in recipe(row[0])["model"]["init_args"]}
    assert with_numbers == {f"`{name}.yaml`" for name in PUBLISHED.values()}


def test_links_and_pictures_are_there():
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", PAGE):
        assert (DOCS / link).resolve().is_file(), link


def test_pictures_are_those_of_the_notebook(monkeypatch, tmp_path):
    pytest.importorskip("nbformat", reason="the extra 'notebooks' is not installed")
    spec = importlib.util.spec_from_file_location("make_pictures", DOCS / "make_pictures.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "HERE", tmp_path)
    (tmp_path / "images").mkdir()
    script.main()
    assert len(script.PICTURES) == 2
    for name in script.PICTURES:
        shipped = DOCS / "images" / name
        assert shipped.stat().st_size < 300_000
        assert shipped.read_bytes() == (tmp_path / "images" / name).read_bytes(), name
    with pytest.raises(LookupError, match=r"run notebooks/build\.py first"):
        script.shown_by(script.nbformat.from_dict({"cells": []}), "parsing_panel(")
