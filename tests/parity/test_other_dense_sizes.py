"""Dense fixtures of other sizes, patches, taps and odd counts, written by slow code in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from farl_lightning.models.attributes import FaceAttributes
from farl_lightning.models.config import GlobalConfig
from farl_lightning.models.dense import FaceAligner, FaceParser
from farl_lightning.models.layout import to_file
from farl_lightning.models.upernet import UPerHead
from farl_lightning.testing.models import random_dense_state
from tests.models import dense, plain
from tests.parity import fixture_02, fixture_03, fixture_04, fixture_05, fixture_15
from tests.parity.__main__ import run_file
from tests.parity.dense import dense_config, encoder_config, load_state

_MEAN, _STD = torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1).double(), torch.tensor([0.2, 0.3, 0.25]).view(1, 3, 1, 1)


def _passes(tmp_path, name, check, data):
    np.savez(tmp_path / name, **{key: _array(value) for key, value in data.items()})
    result = run_file(tmp_path / name, check)
    assert result.verdict == "pass", result.text


def _array(value):
    array = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _state(kind="parsing", outputs=3, **options):
    state = random_dense_state(kind, outputs=outputs, **options)
    for name in state:
        if name.endswith(("weight", "running_mean")) and ("ln_" in name or ".bn." in name or "fpns.0.1." in name):
            state[name] = state[name] + 1
    state["backbone.image_mean"], state["backbone.image_std"] = _MEAN.float(), _STD.clone()
    return state


def _network(kind, data, outputs, state):
    network = kind(dense_config(data), outputs).double().eval()
    load_state(network, state)
    return network


def _weights(state, prefix="w/"):
    return {f"{prefix}{name}": value for name, value in state.items()}


_SIZES = [
    # patch, grid, depth, taps, output size, pictures
    (8, 5, 3, (0, 1, 1, 2), (37, 52), 1),
    (16, 3, 5, (4, 0, 2, 3), (96, 31), 3),
]


@pytest.mark.parametrize(("patch", "grid", "depth", "taps", "out", "batch"), _SIZES)
def test_parsing(tmp_path, patch, grid, depth, taps, out, batch):
    torch.manual_seed(grid)
    state = _state(outputs=13, patch_size=patch, grid=grid, depth=depth, channels=5)
    data = {"cfg": [32, patch, 64, depth, 4, 8, patch * grid, 5, 13], "cfg_output_indices": taps, "cfg_out_size": out}
    images, labels = torch.rand(batch, 51, 70, 3), torch.randint(13, (batch, *out)).to(torch.uint8)
    parser = _network(FaceParser, data, 13, state)
    normalised = (images.double().permute(0, 3, 1, 2) - _MEAN) / _STD
    logits = dense.up(dense.logits(parser, normalised), out)
    each = -logits.log_softmax(1).gather(1, labels.long().unsqueeze(1)).mean((1, 2, 3))
    results = {"pred_logit_hwc": logits.permute(0, 2, 3, 1), "ce_loss_per_image": each, "loss": each.mean()}
    data |= {"in/image_hwc": images, "in/label": labels} | {f"out/{name}": value for name, value in results.items()}
    _passes(tmp_path, "04_parsing_task.npz", fixture_04.check, data | _weights(state))


@pytest.mark.parametrize(("patch", "grid", "depth", "taps", "shape", "batch"), _SIZES)
def test_alignment(tmp_path, patch, grid, depth, taps, shape, batch):
    torch.manual_seed(grid)
    side, radius, points = 19, 3.5, 7
    state = _state("alignment", outputs=points, patch_size=patch, grid=grid, depth=depth, channels=5)
    data = {"cfg": [32, patch, 64, depth, 4, 8, patch * grid, 5, points, side], "cfg_output_indices": taps}
    images = torch.rand(batch, *shape, 3)
    size = torch.tensor([shape[1], shape[0]]).double()
    landmarks = torch.rand(batch, points, 2) * size.float() * 1.2
    aligner = _network(FaceAligner, data, points, state)
    logits = dense.logits(aligner, (images.double().permute(0, 3, 1, 2) - _MEAN) / _STD)
    found, truth = _centres(logits.sigmoid()), (landmarks.double() + 0.5) / size
    drawn, small = _gaussians(truth, side, radius), dense.up(logits, (side, side))
    each = {
        "coord_l1": (found - truth).square().sum(-1).sqrt().mean(1),
        "heatmap_ce": -(drawn * F.logsigmoid(small) + (1 - drawn) * F.logsigmoid(-small)).mean((1, 2, 3)),
        "heatmap_l1": (dense.up(logits.sigmoid(), (side, side)) - drawn).abs().mean((1, 2, 3)),
        "heatmap_l2": (small - drawn).square().mean((1, 2, 3)),
    }
    weighted = sum(weight * loss for weight, loss in zip((1, 2, 0.5, 0), each.values(), strict=True)).mean()
    results = {f"{name}_loss_per_image": loss for name, loss in each.items()} | {
        "loss_weighted_1_2_0.5_0": weighted,
        "heatmap_logits": logits,
        "pred_landmark_normalized": found,
        "pred_landmark_pixels": found * size - 0.5,
        "gt_heatmap": drawn,
        "pred_heatmap_resized_logits": small,
    }
    data |= {"in/image_hwc": images, "in/landmark_pixels": landmarks, "cfg_radius": radius}
    data |= {f"out/{name}": value for name, value in results.items()}
    _passes(tmp_path, "05_alignment_task.npz", fixture_05.check, data | _weights(state))


def _centres(heatmaps):
    rows, columns = heatmaps.shape[2:]
    y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    total = heatmaps.sum((2, 3))
    return torch.stack([(heatmaps * x).sum((2, 3)) / total / columns, (heatmaps * y).sum((2, 3)) / total / rows], -1)


def _gaussians(points, side, radius):
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    centre = points * side - 0.5
    square = (x - centre[..., 0, None, None]) ** 2 + (y - centre[..., 1, None, None]) ** 2
    return torch.exp(-8 * square / radius**2) * (square.float().sqrt() <= radius)


@pytest.mark.parametrize(("patch", "grid", "pretrained", "taps"), [(8, 7, 4, (2, 0, 1, 1)), (14, 6, 3, (0, 1, 2, 2))])
def test_pyramid(tmp_path, patch, grid, pretrained, taps):
    torch.manual_seed(grid)
    state = _state(patch_size=8 if patch == 8 else 16, grid=pretrained, depth=3)
    state["backbone.visual.conv1.weight"] = 0.1 * torch.randn(64, 3, patch, patch)
    cfg = [pretrained * patch, patch, 64, 3, 4, 32, patch * grid]
    prefixes = {"w_pretrained/": "backbone.visual.", "w_fpns/": "backbone.fpns."}
    data = {"cfg": cfg, "cfg_output_indices": taps, "cfg_mean": _MEAN, "cfg_std": _STD}
    data |= {
        ours + name.removeprefix(theirs): value
        for ours, theirs in prefixes.items()
        for name, value in state.items()
        if name.startswith(theirs)
    }
    cells = state["backbone.visual.positional_embedding"]
    square = cells[1:].double().T.reshape(1, 64, pretrained, pretrained)
    resized = F.interpolate(square, (grid, grid), mode="bicubic", align_corners=False)[0].flatten(1).T
    positions = torch.cat([cells[:1].double(), resized])
    key = f"pe/{pretrained}to{grid}"
    data |= {f"{key}/in": cells, f"{key}/out": positions, "out/resized_positional_embedding": positions}
    images = torch.rand(2, 3, 61, 44)
    network = fixture_02._Features(data | {name: _array(value) for name, value in data.items()}, tmp_path).double()
    with torch.no_grad():
        network.encoder.vit.pos_embed.copy_(positions)
    data |= _levels(network, (images.double() - _MEAN) / _STD, taps, patch)
    _passes(tmp_path, "02_pyramid.npz", fixture_02.check, data | {"in/image": images})


def _levels(network, images, taps, patch):
    """Run encoder and pyramid the slow way, in evaluation and in training."""
    encoder, neck = network.encoder, network.neck.eval()
    tokens = plain.tokens(encoder, dense.up(images, (encoder.image_size, encoder.image_size)))
    maps = dense.tap_maps(encoder, images, taps)
    data = {}
    for index, level in enumerate(dense.pyramid(neck, maps, patch)):
        data |= {f"out/feature{index}": level, f"out/raw_feature{index}": maps[index]}
        data[f"out/cls{index}"] = tokens[taps[index]][:, 0]
    data |= {f"out_train/feature{i}": level for i, level in enumerate(dense.pyramid(neck.train(), maps, patch))}
    norms = neck.levels[0].norms
    if len(norms):
        state = norms[0].state_dict()
        data |= {f"out_train/fpns_state/0.1.{name}": state[name] for name in ("running_mean", "running_var")}
    return data


@pytest.mark.parametrize(
    ("widths", "sides", "outputs"), [([5, 3, 4, 6], [25, 13, 7, 3], 3), ([4, 7, 2, 3], [8, 8, 4, 1], 1)]
)
def test_head(tmp_path, widths, sides, outputs):
    torch.manual_seed(outputs)
    head = UPerHead(outputs, widths, 9, dropout=0.0).double()
    with torch.no_grad():
        for value in [*head.parameters(), *(b for b in head.buffers() if b.ndim)]:
            value.add_(0.2 * torch.rand_like(value))
    data = {f"w/{_theirs(name)}": value.clone() for name, value in head.state_dict().items()}
    maps = [torch.randn(3, w, s, s, dtype=torch.float64) for w, s in zip(widths, sides, strict=True)]
    data |= {f"in/feature{index}": one for index, one in enumerate(maps)}
    with torch.no_grad():
        data["out/logits"] = dense.upernet(head.eval(), maps)
    logits = dense.upernet(head.train(), maps)
    cotangent = torch.randn_like(logits)
    (logits * cotangent).sum().backward()
    data |= {"in/cotangent": cotangent, "out_train_nodropout/logits": logits}
    grads = {name: parameter.grad for name, parameter in head.named_parameters()}
    for name in ("classify.weight", "pooling.branches.0.conv.weight", "laterals.2.norm.weight", "fuse.conv.weight"):
        data[f"out_train_nodropout/grad/{_theirs(name)}"] = grads[name]
    for name in ("fuse.norm.running_mean", "smooth.1.norm.running_var"):
        data[f"out_train_nodropout/{_theirs(name)}"] = head.state_dict()[name]
    _passes(tmp_path, "03_uperhead.npz", fixture_03.check, data)


def _theirs(name):
    """Translate a name of the head into mmsegmentation's."""
    name = name.replace(".norm.", ".bn.").replace("pooling.fuse.", "bottleneck.").replace("classify", "conv_seg")
    name = name.replace("laterals", "lateral_convs").replace("smooth", "fpn_convs")
    if name.startswith("pooling.branches."):
        index, rest = name.removeprefix("pooling.branches.").split(".", 1)
        name = f"psp_modules.{index}.1.{rest}"
    return "head." + (f"fpn_bottleneck{name.removeprefix('fuse')}" if name.startswith("fuse.") else name)


@pytest.mark.parametrize("taps", [(1,), (2, 0), (0, 1, 2)])
def test_attributes(tmp_path, taps):
    torch.manual_seed(len(taps))
    cfg = [40, 8, 24, 3, 2, 5]
    network = FaceAttributes(GlobalConfig(encoder_config(cfg, 40), taps), 5).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    encoder, head = network.encoder, network.head
    images = torch.randn(3, 3, 40, 40, dtype=torch.float64)
    tokens = [plain.tokens(encoder, images)[tap] for tap in taps]
    pooled = [v for t in tokens for v in (t[:, 1:].mean(1), t[:, 1:].max(1).values, t[:, 0])]
    shares = head.weights.flatten().softmax(0)
    mixed = sum(s * norm(v) for s, norm, v in zip(shares, head.norms, pooled, strict=True))
    logits = mixed @ head.classify.weight.T + head.classify.bias
    maps = torch.stack([t[:, 1:].transpose(1, 2).reshape(3, 24, 5, 5) for t in tokens])
    results = {"logits": logits, "probabilities": 1 / (1 + (-logits).exp()), "features": maps}
    results["cls_tokens"] = torch.stack([t[:, 0] for t in tokens])
    data = {"cfg": cfg, "cfg_layers": taps, "in/image_normalized": images}
    data |= {f"out/{name}": value for name, value in results.items()} | _attribute_weights(network)
    _passes(tmp_path, "15_attribute_head.npz", fixture_15.check, data)


def _attribute_weights(network):
    """Name the weights as facer does."""
    state = {f"image_encoder.{name}": value for name, value in network.encoder.state_dict().items()}
    data = {f"w/backbone.{name.removeprefix('visual.')}": value for name, value in to_file(state).items()}
    for name, value in network.head.state_dict().items():
        theirs = name.replace("classify", "final_fc").replace("norms.", "norm_")
        data[f"w/head.{theirs}"] = value
    return data
