"""The checks read every size from the fixture: fixtures of other sizes, written by slow reference code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from farl_lightning.models.face_clip import FaceCLIP
from farl_lightning.models.layout import HEAD, to_file
from farl_lightning.models.masked_image import MaskedImageHead
from tests.models import plain
from tests.models.conftest import shake
from tests.parity import fixture_01
from tests.parity.__main__ import run_file
from tests.parity.towers import file_grads


def _write(file, cfg, mask, seed):
    """Write what the released code would give, computed the slow way in double precision."""
    torch.manual_seed(seed)
    size, _, width, _, heads, out, depth, vocabulary = cfg
    data = {"cfg": np.array(cfg)}
    clip = shake(FaceCLIP(fixture_01._config(data))).double()
    head = shake(MaskedImageHead(width, heads, depth, vocabulary)).double()
    images, target = torch.randn(len(mask), 3, size, size).double(), torch.randint(vocabulary, (int(mask.sum()),))
    cotangent = torch.randn(len(mask), out).double()
    encoder = clip.image_encoder
    feature, masked = plain.feature(encoder, images), plain.tokens(encoder, images, mask)[-1]
    every = plain.logits(head, masked)
    entropy = F.cross_entropy(every[mask], target)
    loss = entropy + (feature * cotangent).sum()
    loss.backward()
    results = {
        "feature": feature,
        "mim_feature": feature,
        "mim_all_tokens_logits": every,
        "mim_ce": entropy,
        "loss": loss,
    }
    results |= {"mim_logits": every[mask], "mim_disable_vlc_logits": every[mask]}
    results["block_tokens"] = torch.stack(plain.tokens(encoder, images))
    inputs = {"image": images, "bool_masked_pos": mask, "mim_target": target, "feature_cotangent": cotangent}
    state = {**clip.state_dict(), **{f"{HEAD}{name}": value for name, value in head.state_dict().items()}}
    data |= {f"w/{name.removeprefix('visual.')}": value for name, value in to_file(state).items()}
    data |= {f"grad/{name.removeprefix('visual.')}": value for name, value in file_grads(clip, head).items()}
    data |= {f"in/{name}": value for name, value in inputs.items()} | {f"out/{name}": v for name, v in results.items()}
    data |= _pools(encoder, plain.tokens(encoder, images)[-1])
    np.savez(file, **{name: _array(value) for name, value in data.items()})


def _pools(encoder, tokens):
    data = {}
    for skip in (0, 1):
        read = tokens[:, skip:]
        weight, bias = torch.randn(encoder.width, 1, read.shape[1]), torch.randn(encoder.width)
        linear = (read * weight[:, 0].T).sum(1) + bias
        for pool, pooled in (("average", read.mean(1)), ("linear", linear)):
            data[f"pool_{pool}_skip{skip}/feature"] = (encoder.vit.norm(pooled) @ encoder.proj).squeeze()
        data |= {f"pool_linear_skip{skip}/conv_pool.weight": weight, f"pool_linear_skip{skip}/conv_pool.bias": bias}
    return data


def _array(value):
    array = value.detach().numpy() if isinstance(value, torch.Tensor) else value
    return array.astype(np.float32) if array.dtype == np.float64 else array


@pytest.mark.parametrize(
    ("cfg", "masked"),
    [
        ([40, 8, 24, 2, 3, 7, 0, 11], [3, 0, 25]),  # no block in the head, one picture unmasked, one masked in full
        ([21, 7, 40, 1, 5, 12, 3, 5], [4]),  # a single picture, a single block
        ([32, 16, 16, 4, 1, 32, 2, 200], [1, 2, 3, 4, 0]),
    ],
)
def test_encoder_fixture_of_other_sizes(tmp_path, cfg, masked):
    patches = (cfg[0] // cfg[1]) ** 2
    order = torch.rand(len(masked), patches, generator=torch.Generator().manual_seed(0)).argsort(1)
    mask = order < torch.tensor(masked).unsqueeze(1)
    _write(tmp_path / "01_vit_mim.npz", cfg, mask, seed=len(masked))
    result = run_file(tmp_path / "01_vit_mim.npz", fixture_01.check)
    assert result.verdict == "pass", result.text
