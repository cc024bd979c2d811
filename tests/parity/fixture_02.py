"""Taps, position embeddings for another picture size, and FaRL's feature pyramid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from farl_lightning.functional.position import resize_positions
from farl_lightning.functional.resize import resize
from farl_lightning.models import dense_layout
from farl_lightning.models.dense_checkpoint import load_encoder
from farl_lightning.models.image_encoder import ImageEncoder
from farl_lightning.models.pyramid import FeaturePyramid
from tests.parity import Deviation, compare, fixture, tensor
from tests.parity.dense import encoder_config
from tests.parity.towers import file_state

_FEATURE_ATOL = 1e-4  # the reference itself is this far from double precision
"""Absolute tolerance of the features."""


class _Features(nn.Module):
    """Encoder and neck alone."""

    def __init__(self, data: Mapping[str, Any], folder: Any) -> None:
        super().__init__()
        self.face_spec = None
        self.encoder = ImageEncoder(encoder_config(data["cfg"], int(data["cfg"][6])), None, mask_token=False)
        self.neck = FeaturePyramid(self.encoder.width, self.encoder.patch_size)
        file = folder / "pretrained.pth"
        torch.save({"state_dict": file_state(data, "w_pretrained/", "visual.")}, file)
        load_encoder(self, file)
        self.neck.load_state_dict(_neck_state(file_state(data, "w_fpns/", "fpns.")))


def _neck_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = dense_layout.to_ours(state)
    if renamed.unknown:
        raise ValueError(f"unknown names: {renamed.unknown}")
    return {name.removeprefix("neck."): value for name, value in renamed.state.items()}


@fixture("02_pyramid")
def check(data: Mapping[str, Any]) -> list[Deviation]:
    """Taps, pyramid in both modes, running statistics, position embeddings."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        network = _Features(data, Path(folder))
    found = [_positions(data, name) for name in data if name.startswith("pe/") and name.endswith("/in")]
    found.append(compare("positions", network.encoder.vit.pos_embed[0], data["out/resized_positional_embedding"]))
    return found + _eval(data, network.eval()) + _train(data, network.train())


def _positions(data: Mapping[str, Any], name: str) -> Deviation:
    key = name.removesuffix("/in")
    old, new = ((int(size), int(size)) for size in key.removeprefix("pe/").split("to"))
    return compare(key, resize_positions(tensor(data[name]), old, new), data[f"{key}/out"])


def _taps(data: Mapping[str, Any], network: _Features) -> tuple[Tensor, ...]:
    images = (tensor(data["in/image"]) - tensor(data["cfg_mean"])) / tensor(data["cfg_std"])
    size = (network.encoder.image_size, network.encoder.image_size)
    taps = tuple(int(tap) for tap in data["cfg_output_indices"])
    return network.encoder(resize(images, size), taps=taps, need_feature=False).taps


def _maps(taps: tuple[Tensor, ...], grid: tuple[int, int]) -> list[Tensor]:
    return [tokens[:, 1:].unflatten(1, grid).permute(0, 3, 1, 2) for tokens in taps]


@torch.no_grad()
def _eval(data: Mapping[str, Any], network: _Features) -> list[Deviation]:
    taps = _taps(data, network)
    maps = _maps(taps, network.encoder.grid)
    found = []
    for index, (tokens, raw, level) in enumerate(zip(taps, maps, network.neck(maps), strict=True)):
        found += [
            compare(f"cls{index}", tokens[:, 0], data[f"out/cls{index}"]),
            compare(f"raw_feature{index}", raw, data[f"out/raw_feature{index}"]),
            compare(f"feature{index}", level, data[f"out/feature{index}"], atol=_FEATURE_ATOL),
        ]
    return found


def _train(data: Mapping[str, Any], network: _Features) -> list[Deviation]:
    levels = network.neck(_maps(_taps(data, network), network.encoder.grid))
    found = [
        compare(f"train feature{index}", level, data[f"out_train/feature{index}"], atol=_FEATURE_ATOL)
        for index, level in enumerate(levels)
    ]
    prefix = "out_train/fpns_state/"
    expected = _neck_state({f"fpns.{name[len(prefix) :]}": tensor(data[name]) for name in data if prefix in name})
    own = network.neck.state_dict()
    return found + [compare(f"train {name}", own[name], value.numpy()) for name, value in expected.items()]
