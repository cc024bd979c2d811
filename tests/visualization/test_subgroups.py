"""The picture of subgroups shows every group: worst red, best green, too few grey."""

from __future__ import annotations

import numpy as np
import torch

from farl_lightning.metrics import subgroup_table
from farl_lightning.visualization import subgroup_picture

RED, GREEN, BLUE, GREY = (207, 34, 46), (26, 127, 55), (9, 105, 218), (140, 149, 159)


def rows(names: list[str], shares: list[float], faces: list[int]) -> list[dict]:
    outcomes, groups = [], []
    for name, share, count in zip(names, shares, faces, strict=True):
        right = round(share * count)
        outcomes += [100.0] * right + [0.0] * (count - right)
        groups += [name] * count
    return subgroup_table(torch.tensor(outcomes), groups).rows


def has(picture: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool((np.abs(picture.astype(int) - color).max(axis=-1) <= 2).any())


def test_colors_tell_worst_best_and_too_few():
    table = rows(["a", "b", "c", "d"], [0.5, 0.9, 0.7, 1.0], [20, 20, 20, 3])
    picture = subgroup_picture({"skin": table}, outcome="accuracy")
    assert all(has(picture, color) for color in (RED, GREEN, BLUE, GREY))
    alone = subgroup_picture({"skin": rows(["a"], [0.5], [20])})
    assert has(alone, BLUE)
    assert not has(alone, RED)


def test_every_column_and_group_has_its_place():
    table = rows([f"group {number}" for number in range(12)], [0.5] * 12, [20] * 12)
    short, long = subgroup_picture({"a": table[:3]}), subgroup_picture({"a": table})
    both = subgroup_picture({"a": table[:3], "b": table, "empty": []})
    assert short.shape[0] < long.shape[0] < both.shape[0]
    assert short.shape[1] == both.shape[1]


def test_names_are_no_mathematics_and_nan_ends_nothing():
    row = {"group": "$\\x$", "faces": 1, "mean": 2.0, "low": float("nan"), "high": float("nan"), "difference": 0.0}
    assert subgroup_picture({"$y$": [{**row, "note": "too few"}]}).ndim == 3
