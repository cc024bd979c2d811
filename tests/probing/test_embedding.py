from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from farl_lightning.datamodules.embedding import LabelledSource, PhotoSource
from farl_lightning.datamodules.photos import PhotoFolderDataModule
from farl_lightning.datamodules.synthetic_global import SyntheticGlobalDataModule
from farl_lightning.errors import ConfigError, DataError
from farl_lightning.probing import read_features
from farl_lightning.probing.embedding import embed
from farl_lightning.types import Drop, FaceBatch, FaceSpec


class Means:
    """Mean colour of each picture, and its double."""

    spec = FaceSpec(image_size=8)

    def __init__(self, broken_after: int | None = None) -> None:
        self.calls, self.broken_after = 0, broken_after

    def __call__(self, images):
        self.calls += 1
        if self.broken_after is not None and self.calls > self.broken_after:
            raise RuntimeError("the power went off")
        return {"a": images.mean((2, 3)), "b": 2 * images.mean((2, 3))}


class Numbers:
    """Pictures of one grey each; the fourth is bad, the sixth holds two faces, the eighth none."""

    fingerprint = "numbers"
    attributes = ()

    def __init__(self, count: int = 10) -> None:
        self.label_names = {"odd": ("no", "yes")}
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> list[float]:
        return [float("nan")] if index == 3 else [5.0, 5.5] if index == 5 else [] if index == 7 else [float(index)]

    def collate(self, items: Sequence[list[float]]) -> FaceBatch:
        values = torch.tensor([value for item in items for value in item] or [float("nan")])
        dropped = [Drop(key="3", reason="broken", detail="")] if any(np.isnan(sum(item)) for item in items) else []
        return {
            "image": values.nan_to_num().view(-1, 1, 1, 1).expand(-1, 3, 8, 8),
            "key": [f"{value:g}" for value in values.tolist()],
            "labels": {"odd": (values.nan_to_num() % 2 == 1).long()},
            "groups": {"half": ["low" if value < 5 else "high" for value in values.tolist()]},
            "valid": ~values.isnan(),
            "dropped": dropped,
        }


WANTED = [0, 1, 2, 4, 5, 5.5, 6, 8, 9]


@pytest.mark.parametrize("ending", [".parquet", ".npz"])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_every_face_is_there_once_and_in_order(tmp_path, batch_size, ending):
    seen: list[tuple[int, int]] = []
    path = tmp_path / f"faces{ending}"
    report = embed(
        Means(),
        Numbers(),
        path,
        batch_size=batch_size,
        part_seconds=0,
        progress=lambda done, total: seen.append((done, total)),
    )
    table = read_features(path)
    assert table.keys == [f"{value:g}" for value in WANTED]
    np.testing.assert_array_equal(table.features["a"], np.repeat(np.float32(WANTED)[:, None], 3, 1))
    np.testing.assert_array_equal(table.features["b"], 2 * table.features["a"])
    assert table.group("odd") == ["yes" if value % 2 == 1 else "no" for value in WANTED]
    assert table.groups["half"] == ["low" if value < 5 else "high" for value in WANTED]
    assert (report.faces, dict(report.dropped), report.resumed) == (9, {"broken": 1}, 0)
    assert json.loads(report.listing.read_text()) == {"key": "3", "reason": "broken", "detail": ""}
    assert seen[-1] == (10, 10)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["faces.dropped.jsonl", path.name]


def test_an_interrupted_job_goes_on(tmp_path):
    path = tmp_path / "faces.npz"
    with pytest.raises(RuntimeError, match="power"):
        embed(Means(broken_after=3), Numbers(), path, batch_size=2, part_seconds=0)
    assert not path.exists()
    (tmp_path / "faces.npz.parts" / "00002.npz").write_bytes(b"half a part, without its note")
    extractor = Means()
    report = embed(extractor, Numbers(), path, batch_size=3, part_seconds=0)
    assert report.resumed == 4
    assert extractor.calls == 2
    assert report.dropped == {"broken": 1}
    whole = embed(Means(), Numbers(), tmp_path / "whole.npz", batch_size=10)
    one, other = read_features(path), read_features(whole.path)
    assert one.keys == other.keys
    np.testing.assert_array_equal(one.features["b"], other.features["b"])
    assert not (tmp_path / "faces.npz.parts").exists()


def test_a_job_that_failed_while_joining_needs_no_network(tmp_path):
    path = tmp_path / "faces.npz"

    def fail(part):
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        embed(Means(), Numbers(), path, annotate=fail)
    extractor = Means()
    assert embed(extractor, Numbers(), path).faces == 9
    assert extractor.calls == 0


def test_parts_of_another_job_are_not_mixed_in(tmp_path):
    path = tmp_path / "faces.npz"
    with pytest.raises(RuntimeError):
        embed(Means(broken_after=2), Numbers(), path, identity={"weights": "a"}, batch_size=1, part_seconds=0)
    with pytest.raises(ConfigError, match=r"another job \(it differs in: items, weights\)"):
        embed(Means(), Numbers(12), path, identity={"weights": "b"})
    assert embed(Means(), Numbers(12), path, identity={"weights": "b"}, overwrite=True).faces == 11
    with pytest.raises(ConfigError, match="is there already"):
        embed(Means(), Numbers(), path)


def test_settings_without_meaning_are_refused(tmp_path):
    for wish, said in (({"precision": "64"}, "allowed: 32, bf16, 16"), ({"batch_size": 0}, "at least 1")):
        with pytest.raises(ConfigError, match=said):
            embed(Means(), Numbers(), tmp_path / "faces.npz", **wish)
    with pytest.raises(ConfigError, match=r"ends in '.csv'"):
        embed(Means(), Numbers(), tmp_path / "faces.csv")


def test_nothing_to_embed_is_an_error_that_says_why(tmp_path):
    class Bad(Numbers):
        def __getitem__(self, index):
            return [float("nan")]

    with pytest.raises(DataError, match=r"no face at all; left out: broken 1$"):
        embed(Means(), Bad(1), tmp_path / "faces.npz")


def test_features_that_are_not_finite_stop_the_job(tmp_path):
    class Broken(Means):
        def __call__(self, images):
            return {"a": torch.full((len(images), 2), torch.inf)}

    with pytest.raises(DataError, match="'a' of '0' or a face of the same batch is not finite"):
        embed(Broken(), Numbers(), tmp_path / "faces.npz")


def test_the_splits_of_a_datamodule_follow_each_other(tmp_path):
    data = SyntheticGlobalDataModule(train_count=5, val_count=2, test_count=3, image_size=48)
    source = LabelledSource(data, FaceSpec(image_size=16, mean=(0.0,) * 3, std=(1.0,) * 3))
    embed(Means(), source, tmp_path / "faces.parquet", batch_size=4)
    table = read_features(tmp_path / "faces.parquet")
    assert table.groups["split"] == ["train"] * 5 + ["val"] * 2 + ["test"] * 3
    assert table.labels["attributes"].shape == (10, 40)
    assert len(table.label_names["expression"]) == 7
    assert table.label_names["age"] == ()
    assert set(table.groups) == {"split", "gender", "age_group"}
    assert source[6]["image"].shape == (3, 16, 16)
    assert 0 <= table.features["a"].min() <= table.features["a"].max() <= 1
    only = LabelledSource(data, FaceSpec(image_size=16), ["test"])
    assert len(only) == 3
    assert only.fingerprint != source.fingerprint
    assert LabelledSource(data, FaceSpec(image_size=16), ["test"]).fingerprint == only.fingerprint
    tight = FaceSpec(image_size=16, crop="align", template=((-0.9, -0.9), (0.9, -0.9), (0, 0), (-0.9, 0.9), (0.9, 0.9)))
    aligned = LabelledSource(data, tight, ["test"], crop="align")
    assert aligned.fingerprint != LabelledSource(data, tight, ["test"]).fingerprint
    assert aligned[0]["image"].std() != LabelledSource(data, tight, ["test"])[0]["image"].std()
    wanted = aligned.parts[0][1].transform.spec
    assert (wanted.crop, wanted.template) == ("align", tight.template)
    with pytest.raises(ConfigError, match="does not give faces one by one"):
        LabelledSource(object(), FaceSpec())


def test_photographs_are_cut_as_the_network_was_trained(tmp_path):
    from PIL import Image

    for name, colour in (("a.png", 50), ("b.png", 100)):
        Image.new("RGB", (20, 30), (colour,) * 3).save(tmp_path / name)
    (tmp_path / "c.png").write_bytes(b"no picture")
    spec = FaceSpec(image_size=16, mean=(0.0,) * 3, std=(1.0,) * 3)
    source = PhotoSource(PhotoFolderDataModule(str(tmp_path)), spec)
    report = embed(Means(), source, tmp_path / "out" / "faces.npz", batch_size=2)
    assert read_features(report.path).keys == ["a.png", "b.png"]
    assert report.dropped.total() == 1
    listed = PhotoSource(PhotoFolderDataModule(str(tmp_path), files=["b.png", "../a.png", "gone.png"]), spec)
    report = embed(Means(), listed, tmp_path / "out" / "listed.npz")
    assert read_features(report.path).keys == ["b.png"]
    assert report.dropped == {"missing_image": 2}
