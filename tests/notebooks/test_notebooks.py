"""The shipped notebooks are what their scripts say, hold pictures, and run in miniature."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("jupytext")
NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SPEC = importlib.util.spec_from_file_location("notebooks_build", NOTEBOOKS / "build.py")
build = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(build)

MINIATURE = {
    "01_quickstart": {"train_count": 128, "steps": 2, "val_count": 64},
    "02_subclassing": {"train_count": 128, "steps": 2, "head_steps": 2},
    "03_parsing_and_alignment": {"train_count": 16, "val_count": 8, "parsing_steps": 2, "alignment_steps": 2},
    "04_zero_shot_and_probes": {
        "train_count": 64,
        "steps": 2,
        "val_count": 24,
        "labelled_count": 48,
        "test_count": 24,
        "budgets": [1, 5],
    },
    "05_your_own_dataset": {"train_count": 48, "test_count": 16, "steps": 2},
}

PICTURES = {"01_quickstart": 4, "03_parsing_and_alignment": 8, "04_zero_shot_and_probes": 1, "05_your_own_dataset": 4}
"""How many pictures a shipped notebook shows at least."""


def test_every_notebook_has_a_miniature() -> None:
    assert build.names() == sorted(MINIATURE)


@pytest.mark.parametrize("name", sorted(MINIATURE))
def test_shipped_file_matches_its_script_and_shows_results(name: str) -> None:
    shipped = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    script = build.load(name)
    assert [cell.source for cell in shipped.cells] == [cell.source for cell in script.cells]
    outputs = [output for cell in shipped.cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs
    assert not any(output.output_type == "error" for output in outputs)
    kinds = [[kind for kind in output.get("data", {}) if kind.startswith("image/")] for output in outputs]
    assert sum(len(found) == 1 for found in kinds) >= PICTURES.get(name, 0)
    assert max(map(len, kinds), default=0) <= 1  # one file of each picture, the smaller one
    assert (NOTEBOOKS / f"{name}.ipynb").stat().st_size < 1 << 20


@pytest.mark.parametrize("name", sorted(MINIATURE))
def test_runs_in_miniature(name: str, tmp_path: Path) -> None:
    notebook = build.load(name)
    build.execute(notebook, tmp_path, MINIATURE[name])
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not any(output.output_type == "error" for output in outputs)
