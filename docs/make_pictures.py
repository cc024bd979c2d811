"""Take the pictures of docs/parsing_and_alignment.md from the executed notebook: drawn faces alone, no real ones.

``python docs/make_pictures.py`` after ``python notebooks/build.py 03_parsing_and_alignment``.
"""

from __future__ import annotations

import base64
from pathlib import Path

import nbformat

HERE = Path(__file__).resolve().parent
NOTEBOOK = HERE.parent / "notebooks" / "03_parsing_and_alignment.ipynb"
PICTURES = {"parsing.jpg": "parsing_panel(", "alignment.jpg": "alignment_panel("}
"""For each file the call whose result it shows."""


def shown_by(notebook: nbformat.NotebookNode, call: str) -> bytes:
    """Return the JPEG below the cell that makes a call, the smaller file, which is what the notebook keeps.

    Args:
        notebook: An executed notebook.
        call: Text of the cell.

    Raises:
        LookupError: If no such cell shows a picture.
    """
    for cell in notebook.cells:
        for output in cell.get("outputs", []) if call in cell.source else []:
            if "image/jpeg" in output.get("data", {}):
                return base64.b64decode(output["data"]["image/jpeg"])
    raise LookupError(f"no cell with '{call}' shows a picture: run notebooks/build.py first")


def main() -> None:
    """Write the pictures, byte for byte those of the notebook."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for name, call in PICTURES.items():
        size = (HERE / "images" / name).write_bytes(shown_by(notebook, call))
        print(f"{name}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
