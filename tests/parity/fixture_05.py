"""Face alignment: the whole network, drawn heatmaps and losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from farl_lightning.functional.heatmaps import denormalize_points, normalize_points, points_to_heatmap
from farl_lightning.functional.resize import resize
from farl_lightning.losses.alignment import heatmap_bce, heatmap_l1, heatmap_l2, point_loss
from farl_lightning.models.dense import AlignmentOutput, FaceAligner
from tests.parity import Deviation, compare, fixture, tensor
from tests.parity.dense import dense_config, load_state, normalize
from tests.parity.towers import file_state


@fixture("05_alignment_task")
@torch.no_grad()
def check(data: Mapping[str, Any]) -> list[Deviation]:
    """Heatmaps, points and all four losses."""
    state = file_state(data)
    *_, landmarks, side = (int(value) for value in data["cfg"])
    aligner = FaceAligner(dense_config(data), landmarks).eval()
    load_state(aligner, state)
    images = tensor(data["in/image_hwc"])
    output = aligner(normalize(images, state))
    size = (images.shape[2], images.shape[1])
    truth = normalize_points(tensor(data["in/landmark_pixels"]), size)
    drawn = points_to_heatmap(truth, side, float(data["cfg_radius"]))
    found = [
        compare("heatmap_logits", output.logits, data["out/heatmap_logits"]),
        compare("pred_landmark_normalized", output.points, data["out/pred_landmark_normalized"]),
        compare("pred_landmark_pixels", denormalize_points(output.points, size), data["out/pred_landmark_pixels"]),
        compare("gt_heatmap", drawn, data["out/gt_heatmap"]),
        compare(
            "pred_heatmap_resized_logits", resize(output.logits, (side, side)), data["out/pred_heatmap_resized_logits"]
        ),
    ]
    return found + _losses(data, output, truth, drawn)


def _losses(data: Mapping[str, Any], output: AlignmentOutput, truth: Tensor, drawn: Tensor) -> list[Deviation]:
    each = {
        "coord_l1": point_loss(output.points, truth),
        "heatmap_ce": heatmap_bce(output.logits, drawn),
        "heatmap_l1": heatmap_l1(output.logits, drawn),
        "heatmap_l2": heatmap_l2(output.logits, drawn),
    }
    found = [compare(name, loss, data[f"out/{name}_loss_per_image"]) for name, loss in each.items()]
    return [*found, *_weighted(data, each)]


def _weighted(data: Mapping[str, Any], each: dict[str, Tensor]) -> list[Deviation]:
    """Compare the weighted sum, whose weights stand in its name."""
    prefix = "out/loss_weighted_"
    found = []
    for name in (name for name in data if name.startswith(prefix)):
        weights = [float(weight) for weight in name.removeprefix(prefix).split("_")]
        total = sum(weight * loss for weight, loss in zip(weights, each.values(), strict=True))
        found.append(compare(name, torch.as_tensor(total).mean(), data[name]))
    return found
