"""Build the notebooks from their scripts and run them, so that the shipped files hold real pictures and numbers.

Each tutorial is a Python script in jupytext's percent form under ``notebooks/src``; ``python notebooks/build.py``
runs all of them, ``python notebooks/build.py 01_quickstart`` runs one. A cell tagged ``parameters`` holds the
sizes, and :func:`execute` can put other values behind it: the tests run every notebook in miniature that way.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "src"


def names() -> list[str]:
    """Return the names of all tutorials, in order."""
    return sorted(path.stem for path in SOURCES.glob("[0-9]*.py"))


def load(name: str) -> nbformat.NotebookNode:
    """Read a script as a notebook that has not run yet, with cell ids that stay the same from build to build."""
    notebook = jupytext.read(SOURCES / f"{name}.py")
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


def execute(notebook: nbformat.NotebookNode, folder: Path, overrides: dict[str, Any] | None = None) -> None:
    """Run a notebook in place.

    Args:
        notebook: From :func:`load`.
        folder: The working folder of the run; what the notebook writes lands there.
        overrides: Values that replace those of the cell tagged ``parameters``.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails.
    """
    if overrides:
        place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
        source = "\n".join(f"{key} = {value!r}" for key, value in overrides.items())
        notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(source))
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}}).execute()


def strip_volatile(notebook: nbformat.NotebookNode) -> None:
    """Drop what changes from run to run and tells a reader nothing: execution times and progress on stderr."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]


def keep_one_picture(notebook: nbformat.NotebookNode) -> None:
    """Keep the smaller file of each picture: Pillow shows every image as PNG and as JPEG."""
    for cell in notebook.cells:
        for out in cell.get("outputs", []):
            kinds = [kind for kind in out.get("data", {}) if kind.startswith("image/")]
            kinds.sort(key=lambda kind: len(out.data[kind]))
            for kind in kinds[1:]:
                del out.data[kind]


def main() -> None:
    """Build the notebooks named on the command line, or all of them."""
    for name in sys.argv[1:] or names():
        notebook = load(name)
        work = HERE.parent / "runs" / "notebooks" / name
        shutil.rmtree(work, ignore_errors=True)  # the first run of a reader is version_0, too
        work.mkdir(parents=True)
        execute(notebook, work)
        strip_volatile(notebook)
        keep_one_picture(notebook)
        nbformat.write(notebook, HERE / f"{name}.ipynb")
        print(f"{name}.ipynb: {len(notebook.cells)} cells")


if __name__ == "__main__":
    main()
