"""Tables of features whose labels are known to be learnable."""

from __future__ import annotations

import numpy as np

from farl_lightning.probing import FeatureTable


def make_table(count: int = 200, width: int = 8, seed: int = 0, noise: float = 0.5) -> FeatureTable:
    """Three classes around three centres, a number and two attributes that are linear in the features."""
    rng = np.random.default_rng(seed)
    centres = 2 * np.random.default_rng(7).normal(size=(3, width))
    classes = rng.integers(0, 3, count)
    features = (centres[classes] + rng.normal(size=(count, width))).astype(np.float32)
    age = 40 + 5 * features[:, 0] - 3 * features[:, 1] + noise * rng.normal(size=count)
    attributes = np.stack([features[:, 2] > 0, features[:, 3] + noise * rng.normal(size=count) > 0.2], 1)
    return FeatureTable(
        keys=[f"{seed}-{row}" for row in range(count)],
        features={"block1.mean": features, "noise": rng.normal(size=(count, 4)).astype(np.float32)},
        labels={"kind": classes, "age": age.astype(np.float32), "attributes": attributes.astype(np.int8)},
        groups={"split": ["train" if row % 2 else "test" for row in range(count)], "light": ["dim"] * count},
        label_names={"kind": ("a", "b", "c"), "age": ()},
        attributes=("smiling", "young"),
    )
