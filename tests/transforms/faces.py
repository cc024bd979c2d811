"""Drawn faces as records, and where features of a mask lie."""

from __future__ import annotations

import numpy as np
import torch

from farl_lightning.datasets.synthetic import SyntheticFaces
from farl_lightning.types import FaceRecord

EYES = {"lapa": (4, 5), "celebamask": (9, 8)}
"""Labels of the eye on the image's left and of the one on its right."""


def records(count=1, size=128, mask="lapa", landmarks=68, start=0):
    """Return drawn faces whose eyes are not behind glasses or closed to a line."""
    found, index = [], start
    while len(found) < count:
        face = SyntheticFaces(1, image_size=size, start=index)[0]
        labels = getattr(face, f"mask_{mask}")
        if min((labels == eye).sum() for eye in EYES[mask]) >= size * size / 1000:
            points = face.landmarks(landmarks)
            found.append(FaceRecord(face.key, face.image, labels, points, None, face.five_points, face.box))
        index += 1
    return found


def centroid(mask, label):
    """Return the (x, y) mean of a label's pixels, or None if there are none."""
    rows, columns = np.nonzero(np.asarray(mask) == label)
    return torch.tensor([columns.mean(), rows.mean()]) if len(rows) else None


def area_centroid(polygon):
    """Return the centre of gravity of the area inside (N, 2) points."""
    x, y = polygon.double().unbind(-1)
    cross = x * y.roll(-1) - x.roll(-1) * y
    return torch.stack([((x + x.roll(-1)) * cross).sum(), ((y + y.roll(-1)) * cross).sum()]) / (3 * cross.sum())
