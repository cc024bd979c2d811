"""Face parsing: the whole network and its loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from farl_lightning.losses.parsing import parsing_loss
from farl_lightning.models.dense import FaceParser
from tests.parity import Deviation, compare, fixture, tensor
from tests.parity.dense import dense_config, load_state, normalize
from tests.parity.towers import file_state


@fixture("04_parsing_task")
@torch.no_grad()
def check(data: Mapping[str, Any]) -> list[Deviation]:
    """Logits at the size of the labels, cross entropy per picture and in all."""
    state = file_state(data)
    parser = FaceParser(dense_config(data), int(data["cfg"][8])).eval()
    load_state(parser, state)
    height, width = (int(side) for side in data["cfg_out_size"])
    logits = parser(normalize(tensor(data["in/image_hwc"]), state), (height, width))
    labels = tensor(data["in/label"]).long()
    each = F.cross_entropy(logits, labels, reduction="none").flatten(1).mean(1)
    return [
        compare("pred_logit_hwc", logits.permute(0, 2, 3, 1), data["out/pred_logit_hwc"]),
        compare("ce_loss_per_image", each, data["out/ce_loss_per_image"]),
        compare("loss", parsing_loss(logits, labels), data["out/loss"]),
    ]
