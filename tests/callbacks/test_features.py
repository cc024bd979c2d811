"""features.npz: what is in it, in which order, on one process and on two."""

from __future__ import annotations

import os
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader

from farl_lightning.callbacks import FeatureWriter
from farl_lightning.callbacks.features import _load_part, join, rows
from farl_lightning.datamodules import SyntheticFacesDataModule
from farl_lightning.errors import DataError
from farl_lightning.functional.distributed import rank, world_size
from farl_lightning.testing.distributed import run_distributed
from farl_lightning.transforms.pretrain import PretrainTransformConfig
from tests.tasks import tiny


def prediction(*keys: str, text: bool = True, valid: list[bool] | None = None) -> dict:
    """Features that tell their sample: the number in its key."""
    features = torch.tensor([[float(key[1:]), 0.0] for key in keys]).reshape(-1, 2)
    found = {"key": list(keys), "image_features": features.bfloat16()}
    return found | ({"text_features": -features} if text else {}) | ({"valid": torch.tensor(valid)} if valid else {})


def order(*numbers: int) -> np.ndarray:
    return np.array([[0, number] for number in numbers])


def test_parts_are_put_in_order_and_what_does_not_count_is_left_out():
    first = rows(prediction("k0", "k2", "k4"), order(0, 2, 4))
    second = rows(prediction("k1", "k3", "k0", text=False, valid=[True, True, False]), order(1, 3, 5))
    found = join([second, {"reasons": np.array([])}, first, first])  # a process may have no row, or another's
    assert list(found) == ["key", "image_features", "text_features"]
    assert found["key"].tolist() == ["k0", "k1", "k2", "k3", "k4"]
    assert found["image_features"].dtype == np.float32
    assert found["image_features"][:, 0].tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(found["text_features"][:, 0], [-0.0, np.nan, -2, np.nan, -4], equal_nan=True)


def test_without_captions_there_is_no_empty_array():
    assert list(join([rows(prediction("k1", text=False), order(0))])) == ["key", "image_features"]
    assert join([{"reasons": np.array([])}]) == {}


class Data(tiny.TinyData):
    """Eight pairs; one is broken, and one is a repeat."""

    def predict_dataloader(self):
        pairs = tiny.Pairs(8, False)
        samples = [{**pairs[i], "valid": torch.tensor(i != 2), "dropped": []} for i in range(8)]
        samples[2]["dropped"] = [{"key": "val-2", "reason": "broken_image", "detail": ""}]
        return DataLoader(samples, batch_size=3, collate_fn=tiny.collate_pretrain)


def test_predict_writes_and_tells(tmp_path, capsys):
    task = tiny.task()
    run = tiny.trainer(tmp_path, callbacks=[FeatureWriter()])
    for _ in range(2):  # a second call starts anew
        run.predict(task, datamodule=Data(), return_predictions=False)
    with np.load(tmp_path / "features.npz", allow_pickle=False) as file:
        found = dict(file)
    pairs = tiny.Pairs(8, False)
    rest = [0, 1, 3, 4, 5, 6, 7]
    assert found["key"].tolist() == [f"val-{i}" for i in rest]
    images, texts = task(pairs.images[rest], pairs.text[rest])
    assert np.allclose(found["image_features"], images.detach(), atol=1e-6)
    assert np.allclose(found["text_features"], texts.detach(), atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["features.npz"]
    lines = capsys.readouterr().out.split("\n")[-4:]
    assert lines[0] == f"features  {tmp_path / 'features.npz'}"
    assert lines[1] == "          7 images, 7 with captions; 32 numbers each"
    assert lines[2] == "left out  1 samples: broken_image 1"


def test_a_trial_leaves_no_file(tmp_path, capsys):
    run = tiny.trainer(tmp_path, callbacks=[FeatureWriter()], fast_dev_run=True)
    run.predict(tiny.task(), datamodule=Data(), return_predictions=False)
    assert "features  not kept, this is a trial (fast_dev_run)\n          2 images" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


class Numbers(L.LightningModule):
    """Predicts something else."""

    def predict_step(self, batch):
        return batch["image"].sum()


def test_other_predictions_are_left_alone(tmp_path, capsys):
    tiny.trainer(tmp_path, callbacks=[FeatureWriter()]).predict(Numbers(), datamodule=Data())
    assert "no features were written: Numbers.predict_step returned no 'key' and 'image_features'" in (
        capsys.readouterr().out
    )
    assert not list(tmp_path.iterdir())


def test_a_part_that_cannot_be_seen_is_told(tmp_path):
    with pytest.raises(DataError, match="on a file system that all of them share"):
        _load_part(tmp_path / "features.part-00001.npz")


def _predict(folder: Path) -> None:
    torch.manual_seed(0)
    transform = PretrainTransformConfig(image_size=32, patch_size=8, min_block=2)
    data = SyntheticFacesDataModule(test_count=5, image_size=32, transform=transform, batch_size=2, cache=False)
    changes = {"callbacks": [FeatureWriter()]}
    if world_size() > 1:
        os.environ |= {"LOCAL_RANK": str(rank()), "WORLD_SIZE": str(world_size())}
        strategy = DDPStrategy(process_group_backend="gloo", cluster_environment=LightningEnvironment())
        changes |= {"devices": world_size(), "strategy": strategy}
    try:
        tiny.trainer(folder, **changes).predict(tiny.task(), datamodule=data, return_predictions=False)
    finally:
        os.environ.pop("LOCAL_RANK", None)
        os.environ.pop("WORLD_SIZE", None)


def test_two_processes_write_what_one_writes(tmp_path):
    _predict(tmp_path / "one")
    run_distributed(_predict, 2, tmp_path / "two")
    one, two = (dict(np.load(tmp_path / name / "features.npz", allow_pickle=False)) for name in ("one", "two"))
    assert one["key"].tolist() == two["key"].tolist()
    assert len(set(one["key"])) == 5  # six with the one that pads
    for name in ("image_features", "text_features"):
        assert one[name].shape == (5, 32)
        assert np.allclose(one[name], two[name], atol=1e-6)
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["features.npz"]
