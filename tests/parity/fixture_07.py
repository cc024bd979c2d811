"""Scores of landmarks and label maps, against FaRL's scorers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from farl_lightning.functional.ced import auc_reference, failure_rate_reference, reference_grid
from farl_lightning.functional.landmark_errors import landmark_errors, norm_distance
from farl_lightning.functional.segmentation import confusion_matrix, f1_scores, foreground_mean
from farl_lightning.metrics import CED, LandmarkNME, ParsingF1
from tests.parity import Deviation, compare, fixture, tensor

_RTOL, _ATOL = 0.0, 1e-6  # the reference sums float32 errors
_AUC_NORMALIZER = {"wflw": "inter_ocular", "aflw19": "box"}


@fixture("07_metrics")
def check(data: Mapping[str, Any]) -> list[Deviation]:
    """Every dataset of landmarks, then every set of label maps in the file."""
    groups = sorted({key.split("/")[0] for key in data})
    found = []
    for group in groups:
        if group.startswith("f1_"):
            found += _parsing(data, group)
        else:
            found += _alignment(data, group)
    return found


def _alignment(data: Mapping[str, Any], group: str) -> list[Deviation]:
    pred, target = (tensor(data[f"{group}/{name}"], torch.float64) for name in ("pred", "landmarks"))
    box = tensor(data[f"{group}/box_y1x1y2x2"], torch.float64)[:, [1, 0, 3, 2]]
    names = [key.removeprefix(f"{group}/nme_") for key in data if key.startswith(f"{group}/nme_")]
    found = []
    for name in sorted(name for name in names if not name.endswith("_per_sample_float64")):
        errors = landmark_errors(pred, target, norm_distance(target, name, box=box))
        metric = LandmarkNME(name)
        metric.update(pred, target, box=box)
        reference = data[f"{group}/nme_{name}"]
        found += [
            compare(f"{group} nme_{name}", errors.mean(), reference, rtol=_RTOL, atol=_ATOL),
            compare(f"{group} nme_{name}, metric", metric.compute()["nme"] / 100, reference, rtol=_RTOL, atol=_ATOL),
            compare(
                f"{group} nme_{name} per sample", errors, data[f"{group}/nme_{name}_per_sample_float64"], atol=1e-9
            ),
        ]
    return found + (_curve(data, group, pred, target, box) if f"{group}/auc" in data else [])


def _curve(
    data: Mapping[str, Any], group: str, pred: torch.Tensor, target: torch.Tensor, box: torch.Tensor
) -> list[Deviation]:
    """Area and failure rate, with the grid that rounding makes of the threshold."""
    name, threshold = _AUC_NORMALIZER.get(group, "inter_ocular"), float(data[f"{group}/auc_threshold"])
    errors = landmark_errors(pred, target, norm_distance(target, name, box=box))
    grid = reference_grid(threshold)
    metric = CED(threshold, name, grid="reference")
    metric.update(pred, target, box=box)
    values = metric.compute()
    results = {
        "auc": auc_reference(errors, threshold),
        "auc_legacy_scipy_even_avg": auc_reference(errors, threshold, rule="average"),
        "fr": failure_rate_reference(errors, threshold),
        "auc_n_points": len(grid),
        "auc_last_x": grid[-1],
    }
    found = [
        compare(f"{group} {key}", value, data[f"{group}/{key}"], rtol=0.0, atol=1e-9) for key, value in results.items()
    ]
    return found + [
        compare(f"{group} {key}, metric", values[key] / 100, data[f"{group}/{key}"], rtol=0.0, atol=1e-9)
        for key in ("auc", "fr")
    ]


def _parsing(data: Mapping[str, Any], group: str) -> list[Deviation]:
    """F1 per class; a foreground class that is absent makes the reference's mean NaN, never that of the metric."""
    reference = np.asarray(data[f"{group}/f1_per_class"])
    classes = len(reference)
    pred, target = _labels(data, group, reference)
    scores = f1_scores(confusion_matrix(pred, target, classes))
    found = [
        compare(f"{group} per class", scores, reference, rtol=0.0, atol=1e-9),
        compare(f"{group} mean", foreground_mean(scores, absent="nan"), data[f"{group}/fg_mean"], rtol=0.0, atol=1e-9),
    ]
    metric = ParsingF1(classes)
    metric.update(pred, target)
    values = metric.compute()
    missing = tuple(str(index) for index in np.flatnonzero(np.isnan(reference)))
    absent = [float(metric.absent_classes != missing), *(f"f1_{name}" in values for name in missing)]
    found.append(compare(f"{group} absent classes, metric", np.array(absent, dtype=float), np.zeros(len(absent))))
    present = [float(values[f"f1_{i}"]) / 100 for i in range(classes) if str(i) not in missing]
    found.append(compare(f"{group} metric", present, reference[~np.isnan(reference)], rtol=0.0, atol=1e-9))
    return found


def _labels(data: Mapping[str, Any], group: str, reference: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Read the label maps; the file of absent classes has none, only scores of 1 for what is there."""
    if f"{group}/label" in data:
        return tensor(data[f"{group}/pred"]), tensor(data[f"{group}/label"])
    perfect = torch.from_numpy(np.flatnonzero(~np.isnan(reference)))
    return perfect, perfect
