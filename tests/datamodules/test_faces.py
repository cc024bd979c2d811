"""Datamodules of faces: splits, shares, what is written, and registration from file to crop and back."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

from farl_lightning.datamodules import (
    CelebAMaskHQDataModule,
    FaceSyntheticsDataModule,
    IBugMaskDataModule,
    LaPaDataModule,
)
from farl_lightning.datasets import FaceSynthetics
from farl_lightning.datasets import bad_sample as reasons
from farl_lightning.errors import ConfigError, DatasetNotFoundError
from farl_lightning.functional.warp import points_to_source
from farl_lightning.testing.benchmarks import (
    write_celebamask_hq,
    write_face_synthetics,
    write_ibugmask,
    write_lapa,
)
from farl_lightning.testing.benchmarks.face_synthetics import face_synthetics_mask
from farl_lightning.testing.benchmarks.lapa import lapa_landmarks
from farl_lightning.transforms.dense import DenseTransform
from farl_lightning.transforms.dense_config import DenseTransformConfig, alignment_recipe, parsing_recipe
from farl_lightning.types import from_config

SMALL = DenseTransformConfig(size=32, crop="none")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One fake folder per dataset, and its drawn faces (those of training)."""
    made = {}
    for name, write in (("lapa", write_lapa), ("celeba", write_celebamask_hq), ("ibugmask", write_ibugmask)):
        root = tmp_path_factory.mktemp(name)
        made[name] = root, write(root, count=4)["train"]
    root = tmp_path_factory.mktemp("renders")
    made["renders"] = root, write_face_synthetics(root, count=60, size=64)
    return made


class Nothing(L.LightningModule):
    """Trains nothing, and keeps the keys it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.keys: list[str] = []

    def training_step(self, batch, index):
        self.keys += batch["key"]
        return self.weight * batch["image"].mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(data, folder, epochs: int = 1) -> Nothing:
    task = Nothing()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = L.Trainer(accelerator="cpu", max_epochs=epochs, logger=False, default_root_dir=folder, **quiet)
    trainer.fit(task, datamodule=data)
    return task


def test_official_splits_are_used_as_they_are(folders):
    for kind, name in ((LaPaDataModule, "lapa"), (CelebAMaskHQDataModule, "celeba")):
        data = kind(str(folders[name][0]), transform=SMALL)
        sets = [set(data.faces(split).keys) for split in ("train", "val", "test")]
        assert [len(keys) for keys in sets] == [4, 4, 4]
        assert data.drawn() == {}
    with pytest.raises(ConfigError, match="has an official validation split"):
        LaPaDataModule("x", val_fraction=0.1)
    with pytest.raises(ConfigError, match="no split 'vall'"):
        data.faces("vall")


def test_missing_splits_are_held_out_by_the_split_seed(folders):
    root = str(folders["renders"][0])
    data = FaceSyntheticsDataModule(root, val_fraction=0.1, test_fraction=0.2, transform=SMALL)
    sets = [set(data.faces(split).keys) for split in ("train", "val", "test")]
    assert [len(keys) for keys in sets] == [42, 6, 12]
    assert len(set.union(*sets)) == 60
    other = FaceSyntheticsDataModule(root, val_fraction=0.0, test_fraction=0.2, seed=9, transform=SMALL)
    assert set(other.faces("test").keys) == sets[2]
    assert len(other.faces("train")) == 48
    assert other.faces("val") is None
    assert other.val_dataloader() == []
    shuffled = FaceSyntheticsDataModule(root, split_seed=1, test_fraction=0.2, transform=SMALL)
    assert set(shuffled.faces("test").keys) != sets[2]
    ibug = IBugMaskDataModule(str(folders["ibugmask"][0]), val_fraction=0.25, transform=SMALL)
    assert [len(ibug.faces(split)) for split in ("train", "val", "test")] == [2, 2, 4]  # both versions of a picture


def test_a_share_of_training_is_exact_drawn_once_and_written(folders, tmp_path):
    root = str(folders["renders"][0])
    settings = {"val_fraction": 0.1, "test_fraction": 0.2, "transform": SMALL, "batch_size": 6}
    data = FaceSyntheticsDataModule(root, train_fraction=0.1, seed=3, **settings)
    task = fit(data, tmp_path, epochs=2)
    written = json.loads((tmp_path / "data_split.json").read_text())
    assert written["train"]["count"] == math.floor(0.1 * 42) == 4
    assert (written["train"]["fraction"], written["train"]["seed"]) == (0.1, 3)
    assert set(task.keys) == set(written["train"]["keys"])
    assert len(task.keys) == 2 * 42  # an epoch stays as long as before
    assert [(name, written[name]["count"]) for name in ("test", "val")] == [("test", 12), ("val", 6)]
    assert not set(written["test"]["keys"]) & set(task.keys)
    short = FaceSyntheticsDataModule(root, train_fraction=0.3, seed=3, keep_epoch_length=False, **settings)
    assert set(short.faces("train").keys) > set(data.faces("train").keys)
    assert len(short.train_set) == 12
    del settings["transform"]
    saved = FaceSyntheticsDataModule(root, train_fraction=0.3, seed=3, **settings).to_config()
    assert from_config(saved, FaceSyntheticsDataModule).faces("train").keys == short.faces("train").keys


def test_nothing_is_written_where_nothing_was_drawn(folders, tmp_path):
    fit(LaPaDataModule(str(folders["lapa"][0]), transform=SMALL, batch_size=4), tmp_path)
    assert not (tmp_path / "data_split.json").exists()


def test_impossible_settings_are_refused_before_any_data():
    for settings, match in (
        ({"train_fraction": 0.0}, "train_fraction is a share"),
        ({"val_fraction": 1.0}, "val_fraction is a share"),
        ({"task": "parsng"}, "Did you mean 'parsing'"),
    ):
        with pytest.raises(ConfigError, match=match):
            FaceSyntheticsDataModule("nowhere", **settings)
    with pytest.raises(ConfigError, match="nothing to cut crop 'align' by"):
        CelebAMaskHQDataModule("nowhere", transform=DenseTransformConfig(crop="align"))


@pytest.mark.parametrize("kind", [LaPaDataModule, CelebAMaskHQDataModule, FaceSyntheticsDataModule, IBugMaskDataModule])
def test_a_missing_folder_is_told_by_setup(kind, tmp_path):
    data = kind(str(tmp_path / "none"))
    for stage in ("fit", "test"):
        with pytest.raises(DatasetNotFoundError, match=r"'.*none' does not exist"):
            data.setup(stage)


def test_specs_join_labels_and_crop():
    lapa = LaPaDataModule("x")
    assert (lapa.spec.crop, lapa.spec.warp_factor, lapa.spec.image_size) == ("align", 0.8, 512)
    assert len(lapa.spec.classes) == 11
    assert len(lapa.spec.template) == 5
    celeba = CelebAMaskHQDataModule("x")
    assert (celeba.spec.crop, celeba.spec.warp_factor, len(celeba.spec.classes)) == ("none", 0.0, 19)
    alignment = FaceSyntheticsDataModule("x", task="alignment")
    assert (alignment.spec.crop, alignment.spec.num_landmarks) == ("box", 68)
    assert FaceSyntheticsDataModule("x").spec.class_flips == ((3, 4), (5, 6), (7, 8))


def test_batches_hold_what_the_task_asks_for(folders):
    root = str(folders["renders"][0])
    small = {"batch_size": 4, "eval_batch_size": 3}
    parsing = FaceSyntheticsDataModule(root, transform=SMALL, **small)
    batch = next(iter(parsing.test_dataloader()))
    assert batch["mask"].shape == (3, 32, 32)
    assert [mask.shape for mask in batch["source_mask"]] == [(64, 64)] * 3
    transform = DenseTransformConfig(size=32, crop="box")
    alignment = FaceSyntheticsDataModule(root, task="alignment", transform=transform, **small)
    alignment.setup("fit")
    batch = next(iter(alignment.train_dataloader()))
    assert "mask" not in batch
    assert batch["landmarks"].shape == (4, 68, 2)
    assert alignment.fit_images(5).shape == (5, 3, 32, 32)


def test_work_left_to_the_device_is_done_after_the_transfer(folders):
    root = str(folders["renders"][0])
    plain, late = (
        FaceSyntheticsDataModule(root, transform=parsing_recipe(size=32, crop="none", on_device=late), batch_size=4)
        for late in (False, True)
    )
    one, other = (next(iter(data.train_dataloader())) for data in (plain, late))
    assert other["image"].dtype == torch.uint8
    other = late.on_after_batch_transfer(other, 0)
    assert other["key"] == one["key"]
    assert (other["image"] - one["image"]).abs().mean() < 0.02  # rounded to 8 bits on the way
    assert plain.on_after_batch_transfer(one, 0) is one
    torch.testing.assert_close(late.fit_images(3), plain.fit_images(3))


CASES = {
    "lapa": (LaPaDataModule, lambda face: face.mask_lapa, lapa_landmarks),
    "celeba": (CelebAMaskHQDataModule, lambda face: face.mask_celebamask, None),
    "renders": (FaceSyntheticsDataModule, face_synthetics_mask, lambda face: face.landmarks(68)),
    "ibugmask": (IBugMaskDataModule, lambda face: face.mask_lapa, lambda face: face.landmarks(68)),
}


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("name", CASES)
def test_labels_land_on_what_was_drawn_after_load_crop_and_augment_and_come_back(name, flip, folders):
    """Everything of the dataset's own recipe; the colours apart, which move nothing."""
    kind, true_mask, true_points = CASES[name]
    root, faces = folders[name]
    config = dataclasses.replace(kind("x").transform, size=200)
    config.horizontal_flip, config.gamma, config.gray, config.blur = flip, False, 0.0, 0.0
    data = kind(str(root), transform=config)
    dataset = data.open_split("train")
    transform = DenseTransform(data.transform, data.spec, seed=1, train=True)
    for index, epoch in ((0, 0), (1, 5)):
        face, sample = faces[index], transform(dataset[index], epoch)
        place = (sample["matrix"].double(), data.spec.image_size, data.spec.warp_factor)
        if true_points is not None:
            back = points_to_source(sample["landmarks"].double(), *place).numpy()
            truth = true_points(face)
            assert np.abs(back[order(data.spec.landmark_flips, len(truth), flip)] - truth).max() < 0.5
        assert agreement(sample["mask"].numpy(), true_mask(face), place, data.spec.class_flips if flip else ()) > 0.999
        assert likeness(sample["image"], face.image, place, data.spec) < 3


def order(pairs, count: int, flip: float) -> np.ndarray:
    numbers = np.arange(count)
    for one, other in pairs if flip else ():
        numbers[[one, other]] = other, one
    return numbers


def source_positions(place) -> np.ndarray:
    """Return where each crop pixel lies in the source, (S * S, 2)."""
    matrix, size, factor = place
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return points_to_source(torch.stack([x, y], -1).reshape(-1, 2).double(), matrix, size, factor).numpy()


def inside(positions: np.ndarray, shape, edge: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pick crop pixels whose source pixel is beyond doubt: in the picture, and not halfway between two."""
    near = np.round(positions)
    clear = (np.abs(positions - near).max(1) < edge) & (near >= 0).all(1) & (near < [shape[1], shape[0]]).all(1)
    columns, rows = near[clear].astype(int).T
    return clear, rows, columns


def agreement(mask: np.ndarray, truth: np.ndarray, place, pairs) -> float:
    """Return the share of crop pixels that show the label of the source pixel they lie on."""
    clear, rows, columns = inside(source_positions(place), truth.shape, 0.49)
    table = np.arange(256)
    for one, other in pairs:
        table[[one, other]] = other, one
    assert clear.sum() > 2000
    return float((mask.ravel()[clear] == table[truth[rows, columns]]).mean())


def likeness(image: torch.Tensor, truth: np.ndarray, place, spec) -> float:
    """Return the median difference in grey levels between crop pixels and the source pixels they lie on."""
    clear, rows, columns = inside(source_positions(place), truth.shape[:2], 0.1)
    scale = torch.tensor(spec.std).view(3, 1, 1), torch.tensor(spec.mean).view(3, 1, 1)
    pixels = ((image * scale[0] + scale[1]) * 255).reshape(3, -1).T.numpy()[clear]
    return float(np.median(np.abs(pixels - truth[rows, columns])))


@pytest.mark.parametrize("name", ["lapa", "renders", "ibugmask"])
def test_landmarks_lie_on_the_features_of_the_crop(name, folders):
    """Landmarks and labels of the mouth take separate ways; in the crop they must still be in one place."""
    kind, root = CASES[name][0], folders[name][0]
    size = 64 if name == "renders" else 128  # as drawn
    data = kind(str(root), transform=parsing_recipe(size=size, crop="align", warp_factor=0.0))
    lips = (9, 10, 11) if name == "renders" else (7, 8, 9)
    transform = DenseTransform(data.transform, data.spec, seed=0, train=True)
    dataset, offsets = data.open_split("train"), []
    for record, epoch in itertools.product((dataset[index] for index in range(4)), range(3)):
        sample = transform(record, epoch)
        rows, columns = np.nonzero(np.isin(sample["mask"].numpy(), lips))
        middle = np.array([columns.min() + columns.max(), rows.min() + rows.max()]) / 2
        points = sample["landmarks"][list(data.spec.landmark_groups["outer_mouth"])].numpy()
        offsets.append(middle - (points.min(0) + points.max(0)) / 2)
    assert np.abs(offsets).max() < 1.5
    assert np.abs(np.mean(offsets, 0)).max() < 0.3  # half a pixel off would show


def test_alignment_crops_of_renders_hold_the_whole_face(folders):
    root, faces = folders["renders"]
    data = FaceSyntheticsDataModule(str(root), task="alignment", transform=alignment_recipe(size=64))
    transform = DenseTransform(data.transform, data.spec, train=False)
    for face, record in zip(faces[:8], FaceSynthetics(root, masks=False), strict=False):
        sample = transform(record)
        assert (sample["landmarks"] > 4).all()
        assert (sample["landmarks"] < 59).all()
        back = points_to_source(sample["landmarks"].double(), sample["matrix"].double(), 64)
        assert np.abs(back.numpy() - face.landmarks(68)).max() < 0.5


def test_every_kind_of_bad_file_is_counted_and_none_of_it_is_nan(tmp_path):
    """Read from disk through the loaders, in training and in evaluation."""
    write_lapa(tmp_path, count=12, size=48)
    for split in ("train", "test"):
        spoil(tmp_path / split)
    data = LaPaDataModule(str(tmp_path), transform=parsing_recipe(size=32, crop="align"), batch_size=12)
    expected = {
        "00000000_0": reasons.UNKNOWN_LABEL,
        "00000001_0": reasons.MASK_SIZE,
        "00000002_0": reasons.MISSING_ANNOTATION,
        "00000003_0": reasons.MISSING_ANNOTATION,
        "00000004_0": reasons.SMALL_IMAGE,
        "00000005_0": reasons.HUGE_IMAGE,
        "00000006_0": reasons.NO_CROP,
        "00000007_0": reasons.MASK_SIZE,  # turned upright by EXIF, its mask is not
    }
    (training,) = data.train_dataloader()
    (test,) = data.test_dataloader()
    for batch in (training, test):
        assert {drop["key"]: drop["reason"] for drop in batch["dropped"]} == expected
        assert len(batch["key"]) == 12
        assert batch["image"].isfinite().all()
        assert batch["landmarks"].isfinite().all()
    assert not set(training["key"]) & set(expected)
    assert dict(zip(test["key"], test["valid"].tolist(), strict=True)) == {
        key: key not in expected for key in test["key"]
    }


def spoil(folder) -> None:
    """Break eight of the samples; the ninth and tenth become grey and transparent, which is no fault."""
    picture = [folder / "images" / f"{index:08d}_0.jpg" for index in range(12)]
    label = [folder / "labels" / f"{index:08d}_0.png" for index in range(12)]
    Image.fromarray(np.full((48, 48), 200, np.uint8)).save(label[0])
    Image.fromarray(np.zeros((24, 48), np.uint8)).save(label[1])
    label[2].unlink()
    (folder / "landmarks" / "00000003_0.txt").unlink()
    Image.new("RGB", (1, 1)).save(picture[4])
    Image.new("1", (12000, 12000)).save(picture[5], "PNG", compress_level=1)
    (folder / "landmarks" / "00000006_0.txt").write_text("106\n" + "20 20\n" * 106)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((48, 40, 3), np.uint8)).save(picture[7], exif=exif)
    Image.fromarray(np.zeros((48, 40), np.uint8)).save(label[7])
    Image.open(picture[8]).convert("L").save(picture[8])
    Image.open(picture[9]).convert("RGBA").save(picture[9], "PNG")


def test_a_picture_of_12000_pixels_is_read(tmp_path):
    write_face_synthetics(tmp_path, count=1, size=64)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 12000, 3), np.uint8)).save(tmp_path / "000000.png")
    Image.fromarray(np.full((40, 12000), 3, np.uint8)).save(tmp_path / "000000_seg.png")
    data = FaceSyntheticsDataModule(str(tmp_path), transform=SMALL, val_fraction=0.0)
    sample = DenseTransform(data.transform, data.spec, train=False)(data.open_split("train")[0])
    assert sample["image"].isfinite().all()
    assert sample["source_mask"].shape == (40, 12000)
    assert sample["size"].tolist() == [40, 12000]
