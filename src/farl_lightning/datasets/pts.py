"""iBUG's ``.pts`` files: one landmark per line between braces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from farl_lightning.datasets.bad_sample import BROKEN_ANNOTATION, MISSING_ANNOTATION, BadSample
from farl_lightning.datasets.files import read_bytes


def read_pts(path: Path, count: int) -> npt.NDArray[np.float64]:
    """Read a ``.pts`` file.

    Args:
        path: The file: ``version: 1``, ``n_points: <count>``, then ``{``, a line of x and y per point, and ``}``.
        count: Number of points that must be there.

    Returns:
        (count, 2) float64 as written; iBUG counts pixels from 1.

    Raises:
        BadSample: ``missing_annotation`` or ``broken_annotation``.
    """
    text = read_bytes(path, MISSING_ANNOTATION).decode("ascii", errors="replace")
    _, opening, rest = text.partition("{")
    body, closing, _ = rest.partition("}")
    try:
        if not (opening and closing):
            raise ValueError("no points between braces")
        values = np.array(body.split(), np.float64)
        if values.size != 2 * count:
            raise ValueError(f"{values.size} numbers instead of {2 * count}")
        if not np.isfinite(values).all():
            raise ValueError("a number is not finite")
    except ValueError as error:
        raise BadSample(BROKEN_ANNOTATION, f"{path.name}: {error}") from error
    return values.reshape(count, 2)
