"""The check of the scores reads every size from its fixture: one of other sizes, written by slow code."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.parity import fixture_07
from tests.parity.__main__ import run_file
from tests.shared import SHARED, needs_shared

_EYES = {"inter_ocular": ([6], [11]), "inter_pupil": ([7], [10])}


def _distance(face, box, name):
    if name in _EYES:
        ends = [[np.mean([face[i][axis] for i in group]) for axis in (0, 1)] for group in _EYES[name]]
        return math.dist(*ends)
    height, width = box[2] - box[0], box[3] - box[1]
    return math.sqrt(width * height) if name == "box" else math.hypot(width, height)


def _simpson(values, step):
    """Integrate by parabolas, one pair of intervals at a time; the last one by the parabola before it."""
    even = len(values) % 2 == 0
    pairs = range(0, len(values) - 2 - even, 2)
    total = sum((values[i] + 4 * values[i + 1] + values[i + 2]) * step / 3 for i in pairs)
    return total + (5 * values[-1] + 8 * values[-2] - values[-3]) * step / 12 if even else total


def _legacy(values, step):
    if len(values) % 2:
        return _simpson(values, step)
    first = _simpson(values[:-1], step) + (values[-1] + values[-2]) * step / 2
    return (first + _simpson(values[1:], step) + (values[0] + values[1]) * step / 2) / 2


def _alignment(data, rng, count):
    target = rng.uniform(0, 200, (count, 19, 2)).astype(np.float32)
    pred = target + rng.normal(0, 1, target.shape).astype(np.float32) * rng.uniform(0.1, 9, (count, 1, 1)).astype("f4")
    box = np.concatenate([target.min(1)[:, ::-1], target.max(1)[:, ::-1]], axis=1).astype(np.float32)
    data |= {"aflw19/landmarks": target, "aflw19/pred": pred, "aflw19/box_y1x1y2x2": box}
    for name in ("inter_ocular", "inter_pupil", "box", "diag"):
        errors = [
            np.mean([math.dist(p, t) for p, t in zip(own.tolist(), true.tolist(), strict=True)])
            / _distance(true.tolist(), [float(b) for b in around], name)
            for own, true, around in zip(pred, target, box, strict=True)
        ]
        data[f"aflw19/nme_{name}_per_sample_float64"] = np.array(errors)
        data[f"aflw19/nme_{name}"] = np.array(np.mean(errors))
    grid = np.arange(0, 0.07 + 1e-4, 1e-4)
    kept = data["aflw19/nme_box_per_sample_float64"].astype(np.float32).astype(np.float64)
    curve = [float(np.mean([error <= x for error in kept])) for x in grid]
    data |= {
        "aflw19/auc": np.array(_simpson(curve, 1e-4) / 0.07),
        "aflw19/auc_legacy_scipy_even_avg": np.array(_legacy(curve, 1e-4) / 0.07),
        "aflw19/fr": np.array(1 - curve[-1]),
        "aflw19/auc_threshold": np.array(0.07),
        "aflw19/auc_n_points": np.array(len(grid)),
        "aflw19/auc_last_x": np.array(grid[-1]),
    }


def _parsing(data, rng, classes, shape):
    label = rng.integers(0, classes, shape).astype(np.uint8)
    pred = np.where(rng.uniform(size=shape) < 0.4, rng.integers(0, classes, shape), label).astype(np.uint8)
    scores = []
    for c in range(classes):
        own, true = pred == c, label == c
        scores.append(2 * int((own & true).sum()) / (int(own.sum()) + int(true.sum())))
    data |= {"f1_other/label": label, "f1_other/pred": pred, "f1_other/f1_per_class": np.array(scores)}
    data["f1_other/fg_mean"] = np.array(np.mean(scores[1:]))


def _write(file, **changes):
    data, rng = {}, np.random.default_rng(5)
    _alignment(data, rng, 23)
    _parsing(data, rng, 7, (3, 11, 5))
    data |= {
        "f1_absent/f1_per_class": np.array([1.0, np.nan, 1.0, np.nan, np.nan]),
        "f1_absent/fg_mean": np.array(np.nan),
    }
    data |= {key.replace("__", "/"): value for key, value in changes.items()}
    np.savez(file, **data)
    return file


def test_other_sizes_pass(tmp_path):
    result = run_file(_write(tmp_path / "07_metrics.npz"), fixture_07.check)
    assert result.verdict == "pass", result.text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("f1_absent__fg_mean", np.array(1.0)),
        ("f1_absent__f1_per_class", np.array([1.0, np.nan, 0.9])),
        ("aflw19__auc_n_points", np.array(701)),
    ],
)
def test_wrong_numbers_are_noticed(tmp_path, key, value):
    assert run_file(_write(tmp_path / "07_metrics.npz", **{key: value}), fixture_07.check).verdict == "FAIL"


@needs_shared
def test_every_reference_result_is_compared(tmp_path):
    with np.load(SHARED / "parity" / "07_metrics.npz") as file:
        arrays = {key: file[key] for key in file.files}
    inputs = ("landmarks", "pred", "box_y1x1y2x2", "label", "auc_threshold")
    for key in arrays:
        if key.split("/")[1] not in inputs:
            changed = arrays | {key: arrays[key] + 0.01 if not np.isnan(arrays[key]).all() else np.zeros(())}
            np.savez(tmp_path / "07_metrics.npz", **changed)
            assert run_file(tmp_path / "07_metrics.npz", fixture_07.check).verdict == "FAIL", key
