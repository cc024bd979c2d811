from __future__ import annotations

import json

import numpy as np
import pytest
import torch

pytest.importorskip("cv2", reason="the augmentation benchmark compares with OpenCV: pip install opencv-python-headless")

from benchmarks import augmentation, common
from farl_lightning.datasets.synthetic import SyntheticFaces
from farl_lightning.functional.random import keyed_rng
from farl_lightning.transforms.dense import DenseTransform


@pytest.mark.parametrize(("name", "rounded"), [("parsing", False), ("alignment", False), ("parsing", True)])
def test_both_sides_compute_the_same(name, rounded):
    """Equal draws give equal samples; on uint8, OpenCV rounds positions to 1/32 pixel and pixels to grey levels."""
    record = augmentation.draw_records(1, 96)[0]
    config = augmentation.RECIPES[name](size=80, noise=0.0, blur=0.06)
    transform = DenseTransform(config, SyntheticFaces.spec(80))
    for epoch in range(4):
        ours = transform(record, epoch)
        with keyed_rng(0, "augment", epoch, record.key):
            transform._augment_matrix(torch.eye(3, dtype=torch.float64))
            steps = transform.photometric.draw(ours["image"])
        draws = {key: value for step in steps for key, value in step.items()}
        theirs = augmentation.OpenCVChain(config, rounded=rounded).sample(
            record, ours["matrix"].double().numpy(), draws
        )
        difference = (ours["image"] - theirs["image"]).abs()
        assert difference.mean() < (0.03 if rounded else 0.005)  # in standard deviations of a colour
        assert (ours["mask"] == theirs["mask"]).float().mean() > 0.99
        torch.testing.assert_close(ours["landmarks"], theirs["landmarks"], atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", ["parsing", "alignment"])
def test_both_sides_draw_from_the_same_distribution(name):
    record = augmentation.draw_records(1, 48)[0]
    config = augmentation.RECIPES[name](size=32)
    chain, transform = augmentation.OpenCVChain(config), DenseTransform(config, SyntheticFaces.spec(32))
    fitted = torch.from_numpy(chain._crop_matrix(record))
    zoom = torch.linalg.det(fitted[:2, :2]).sqrt()
    scales = [np.sqrt(np.linalg.det((chain._turn() @ fitted.numpy())[:2, :2])) / zoom for _ in range(300)]
    ours = [torch.linalg.det(transform(record, i)["matrix"][:2, :2].double()).sqrt() / zoom for i in range(300)]
    assert np.mean(scales) == pytest.approx(np.mean(ours), abs=0.03)
    assert np.std(scales) == pytest.approx(np.std(ours), rel=0.25)


def test_short_run_prints_the_tables_and_writes_json(tmp_path, capsys):
    target = tmp_path / "out.json"
    assert augmentation.main(["--short", "--repeats", "1", "--json", str(target), "--require"]) == 0
    printed = capsys.readouterr().out
    for line in ("OpenCV, parsing", "ours, alignment", "warp the picture", "change the colours"):
        assert line in printed
    result = json.loads(target.read_text())
    assert [verdict["holds"] for verdict in result["verdicts"]] == [None, None]


def test_the_goal_is_judged_by_the_ratio():
    def timings(ours):
        values = {"OpenCV, parsing": 1.0, "ours, parsing": ours, "OpenCV on uint8, parsing": 0.5}
        return {name: common.Timing(name, (value,) * 3, (value,) * 3) for name, value in values.items()}

    assert augmentation._verdict("parsing", timings(1.4), judged=True).holds is True
    assert augmentation._verdict("parsing", timings(1.5), judged=True).holds is False
    assert augmentation._verdict("parsing", timings(1.5), judged=False).holds is None
