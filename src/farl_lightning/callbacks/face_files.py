"""Files that hold what was found of one face: label maps with colours, landmarks as JSON and in iBUG's format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image


def file_stem(key: str) -> Path:
    """Return a relative path without suffix for the files of a face; it never leads out of the folder it is put into.

    Args:
        key: Name of the face, such as ``"holiday/1.jpg#0"``.

    Example:
        >>> file_stem("../holiday/1.jpg#0").as_posix()
        'holiday/1.jpg.face0'
    """
    parts = [part for part in PurePosixPath(key.replace("\\", "/")).parts if part not in ("/", "..", ".")]
    safe = ["".join("_" if letter in '<>:"|?*\0' else letter for letter in part) for part in parts or ["face"]]
    return Path(*safe[:-1], safe[-1].replace("#", ".face"))


def save_labels(labels: npt.NDArray[np.uint8], path: Path, palette: Sequence[Sequence[int]]) -> None:
    """Write a label map as an indexed PNG: pixels are label ids, and viewers show them in colours.

    Args:
        labels: (H, W) uint8.
        path: The file; made with its folder.
        palette: (C, 3) red, green and blue of each label, 0 to 255.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(labels)
    colours = [int(value) for colour in palette for value in colour]
    # a full palette, ignored labels white: with few entries Pillow would pack pixels into fewer bits, and cut labels
    picture.putpalette(colours + [255] * (768 - len(colours)))
    picture.save(path)


def save_json(points: npt.NDArray[Any], confidence: npt.NDArray[Any] | None, key: str, path: Path) -> None:
    """Write landmarks as JSON: ``key``, ``points`` (xy, pixel centres at integers) and ``confidence`` of each.

    Args:
        points: (N, 2) in pixels of the picture.
        confidence: (N,) in [0, 1], or None.
        key: Name of the face.
        path: The file; made with its folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {"key": key, "points": np.round(points.astype(float), 3).tolist()}
    if confidence is not None:
        content["confidence"] = np.round(confidence.astype(float), 4).tolist()
    path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def save_pts(points: npt.NDArray[Any], path: Path) -> None:
    """Write landmarks in the format of iBUG's annotations, which counts pixels from 1.

    Args:
        points: (N, 2) in pixels of the picture, pixel centres at integers from 0.
        path: The file; made with its folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{x + 1:.3f} {y + 1:.3f}" for x, y in points.tolist()]
    text = "\n".join(["version: 1", f"n_points: {len(lines)}", "{", *lines, "}"])
    path.write_text(text + "\n", encoding="ascii")
