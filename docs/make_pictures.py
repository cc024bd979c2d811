"""Take the pictures of docs/parsing_and_alignment.md from the executed notebook: drawn faces alone, no real ones.

``python docs/make_pictures.py`` after ``python notebooks/build.py 03_parsing_and_alignment``.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import nbformat
from PIL import Image

HERE = Path(__file__).resolve().parent
NOTEBOOK = HERE.parent / "notebooks" / "03_parsing_and_alignment.ipynb"
PICTURES = {"parsing.png": "parsing_panel(", "alignment.png": "alignment_panel("}
"""For each file the call whose result it shows."""


def shown_by(notebook: nbformat.NotebookNode, call: str) -> bytes:
    """Return the picture below the cell that makes a call.

    Args:
        notebook: An executed notebook.
        call: Text of the cell.

    Raises:
        LookupError: If no such cell shows a picture.
    """
    for cell in notebook.cells:
        for output in cell.get("outputs", []) if call in cell.source else []:
            if "image/png" in output.get("data", {}):
                return base64.b64decode(output["data"]["image/png"])
    raise LookupError(f"no cell with '{call}' shows a picture: run notebooks/build.py first")


def main() -> None:
    """Write the pictures, losslessly: a palette would merge the colours of left and right."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for name, call in PICTURES.items():
        picture = Image.open(io.BytesIO(shown_by(notebook, call))).convert("RGB")
        path = HERE / "images" / name
        picture.save(path, optimize=True)
        print(f"{path.name}: {picture.width} x {picture.height}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
