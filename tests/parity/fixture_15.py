"""facer's attribute network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from farl_lightning.models.attributes import FaceAttributes
from farl_lightning.models.config import GlobalConfig
from tests.parity import Deviation, compare, fixture, tensor
from tests.parity.dense import encoder_config, load_state
from tests.parity.towers import file_state


@fixture("15_attribute_head")
@torch.no_grad()
def check(data: Mapping[str, Any]) -> list[Deviation]:
    """Tapped maps, class tokens, logits and probabilities, for any number of taps."""
    cfg = data["cfg"]
    taps = tuple(int(tap) for tap in data["cfg_layers"])
    config = GlobalConfig(encoder_config(cfg, int(cfg[0])), taps)
    network = FaceAttributes(config, int(cfg[5])).eval()
    load_state(network, file_state(data))
    images = tensor(data["in/image_normalized"])
    tokens = torch.stack(network.encoder(images, taps=network.taps, need_feature=False).taps)
    maps = tokens[:, :, 1:].unflatten(2, network.encoder.grid).permute(0, 1, 4, 2, 3)
    logits = network(images)
    return [
        compare("features", maps, data["out/features"]),
        compare("cls_tokens", tokens[:, :, 0], data["out/cls_tokens"]),
        compare("logits", logits, data["out/logits"]),
        compare("probabilities", logits.sigmoid(), data["out/probabilities"]),
    ]
