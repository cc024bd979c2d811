"""Datamodules of the landmark benchmarks, from fake folders to batches and back to the drawn features."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from farl_lightning.datamodules.alignment import (
    AFLW19DataModule,
    COFWDataModule,
    IBug300WDataModule,
    WFLWDataModule,
)
from farl_lightning.errors import ConfigError, DatasetNotFoundError
from farl_lightning.functional.landmark_errors import landmark_errors, norm_distance
from farl_lightning.functional.warp import points_to_source
from farl_lightning.testing.benchmarks.ibug300w import write_ibug300w
from farl_lightning.testing.benchmarks.wflw import write_wflw
from farl_lightning.transforms.dense import DenseTransform, alignment_recipe
from tests.datasets.landmark_cases import CASES, require_package

MODULES = {
    "300w": IBug300WDataModule,
    "wflw": WFLWDataModule,
    "aflw19": AFLW19DataModule,
    "cofw": COFWDataModule,
}
CROP = 96


@pytest.fixture(scope="module", params=sorted(CASES))
def made(request, tmp_path_factory):
    """A benchmark's folder, its dataset, and the truth."""
    case = CASES[request.param]
    require_package(case)
    folder = tmp_path_factory.mktemp(case.name)
    truths = case.write(folder)
    return case.name, folder, case.open(folder), truths


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize(("crop", "warp"), [("box", 0.0), ("align", 0.8)])
def test_landmarks_come_back_to_where_they_were_drawn(made, crop, warp, flip):
    """Load, crop, augment with everything on, and map back: less than half a pixel away."""
    _, _, dataset, truths = made
    config = alignment_recipe(size=CROP, crop=crop, warp_factor=warp, horizontal_flip=flip)
    transform, order = DenseTransform(config, dataset.spec, 1, train=True), torch.arange(dataset.spec.num_landmarks)
    if flip:
        order = torch.tensor(dataset.order.flip_order())
    for epoch in range(3):
        for record, truth in zip(dataset, truths, strict=False):
            sample = transform(record, epoch)
            points = sample["landmarks"][None].double()
            back = points_to_source(points, sample["matrix"][None].double(), CROP, warp)[0]
            distance = (back[order] - torch.from_numpy(truth.landmarks)).norm(dim=1)
            inside = ((points[0] > 0) & (points[0] < CROP - 1)).all(dim=1)[order]
            assert inside.float().mean() > 0.5
            # beyond the crop the tanh warp squeezes all of the picture into a rim; what lies inside is exact
            assert distance[inside].max() < 0.5


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_landmarks_lie_on_the_drawn_features_of_the_augmented_crop(made, flip):
    """The warped label map decides: 4 is the eye on the left of the drawing, and of a flipped one's crop, too."""
    _, _, dataset, truths = made
    spec = dataclasses.replace(dataset.spec, classes=("",) * 11, class_flips=((2, 3), (4, 5)))
    config = alignment_recipe(size=256, occlusion=0.0, noise=0.0, horizontal_flip=flip)
    transform, groups, seen = DenseTransform(config, spec, 2, train=True), dataset.spec.landmark_groups, 0
    for record, truth in zip(dataset, truths, strict=False):
        if not truth.bare:
            continue
        sample = transform(dataclasses.replace(record, mask=truth.mask.astype(np.uint8)), 0)
        for side, label in (("left", 4), ("right", 5)):
            x, y = sample["landmarks"][list(groups[f"{side}_eye"])].mean(dim=0).round().int().tolist()
            near = sample["mask"][max(y - 6, 0) : y + 7, max(x - 6, 0) : x + 7]
            assert (near == label).any(), (record.key, side)
            assert not (near == 9 - label).any()
            seen += 1
        lower = sample["landmarks"][list(groups["left_eye"])].mean(0)[0]
        assert lower < sample["landmarks"][list(groups["right_eye"])].mean(0)[0]
    assert seen >= 6


@pytest.mark.parametrize("made", ["cofw", "wflw"], indirect=True)  # the two with pupils
def test_eyes_are_where_the_pixels_are_dark(made):
    """No label map at all: the pupil of the picture itself, left of the nose in the crop."""
    _, _, dataset, truths = made
    transform = DenseTransform(alignment_recipe(size=256), dataset.spec, 0, train=False)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (dataset.spec.mean, dataset.spec.std))
    for record, truth in zip(dataset, truths, strict=False):
        if not truth.bare:
            continue
        sample = transform(record, 0)
        image = (sample["image"] * std + mean).mean(0)
        for side in ("left", "right"):
            x, y = sample["landmarks"][dataset.spec.landmark_groups[f"{side}_pupil"][0]].round().int().tolist()
            around = image[y - 30 : y + 31, x - 30 : x + 31]
            assert image[y - 1 : y + 2, x - 1 : x + 2].mean() < around.mean() - 0.1


def test_batches_have_what_a_task_needs(made):
    name, folder, _, truths = made
    data = MODULES[name](str(folder), transform=alignment_recipe(size=32), batch_size=2, val_fraction=0.25)
    data.setup("fit")
    data.setup("test")
    batch = next(iter(data.train_dataloader()))
    count = data.spec.num_landmarks
    assert batch["image"].shape == (2, 3, 32, 32)
    assert batch["landmarks"].shape == (2, count, 2)
    assert batch["visible"].shape == (2, count)
    rows = [batch for loader in (data.val_dataloader(), data.test_dataloader()) for batch in loader]
    assert all(batch["source_landmarks"].shape[1:] == (count, 2) for batch in rows)
    assert all(bool(batch["box"].isfinite().all()) for batch in rows)
    assert not any(batch.get("dropped") for batch in rows)
    keys = [key for batch in rows for key in batch["key"]]
    assert len(keys) == len(data.faces("val")) + len(data.faces("test"))
    assert not set(data.faces("train").photographs) & set(data.faces("val").photographs)
    assert len(data.faces("train")) + len(data.faces("val")) == len(truths)


def test_the_default_recipe_is_farls(tmp_path):
    for name, zoom in (("300w", 0.8), ("wflw", 0.8), ("cofw", 0.8), ("aflw19", 1.0)):
        data = MODULES[name](str(tmp_path))
        config = data.transform
        assert (config.crop, config.size, config.warp_factor, config.zoom_mean) == ("box", 512, 0.0, zoom)
        assert (config.shift, config.rotation, config.zoom, config.distribution) == (0.05, 0.174, 0.1, "uniform")
        assert (config.occlusion, config.noise, config.gray, config.gamma, config.blur) == (1.0, 0.5, 0.1, True, 0.01)
        assert config.horizontal_flip == 0
        assert data.spec.landmark_groups["left_eye"]
        assert (data.val_fraction, data.spec.crop) == (0.1, "box")


def test_a_missing_folder_stops_at_setup_with_how_to_get_the_data(tmp_path):
    for name, module in MODULES.items():
        require_package(CASES[name])
        with pytest.raises(DatasetNotFoundError, match="Get "):
            module(str(tmp_path / "nowhere")).setup("fit")


def test_the_test_split_of_300w_is_full_with_its_two_subsets(tmp_path):
    write_ibug300w(tmp_path, count=3, size=64)
    data = IBug300WDataModule(str(tmp_path), transform=alignment_recipe(size=32), batch_size=4)
    data.setup("test")
    subsets = [name for batch in data.test_dataloader() for names in batch["subsets"] for name in names]
    assert subsets == ["common"] * 3 + ["challenging"] * 3


def test_every_wflw_subset_is_in_the_test_batches(tmp_path):
    truth = write_wflw(tmp_path, count=4, size=64)
    data = WFLWDataModule(str(tmp_path), transform=alignment_recipe(size=32), batch_size=3)
    data.setup("test")
    names = [name for batch in data.test_dataloader() for names in batch["subsets"] for name in names]
    for subset in ("largepose", "expression", "illumination", "makeup", "occlusion", "blur"):
        assert names.count(subset) == len(truth[f"test_{subset}"])


def test_aflw_errors_are_divided_by_its_box_whatever_is_cropped(tmp_path):
    require_package(CASES["aflw19"])
    truths = CASES["aflw19"].write(tmp_path)
    data = AFLW19DataModule(str(tmp_path), transform=alignment_recipe(size=32, crop="align"), batch_size=3)
    data.setup("test")
    batch = next(iter(data.test_dataloader()))
    assert len(truths) == 9
    left, top, right, bottom = batch["box"].double().unbind(1)
    diagonal = norm_distance(batch["source_landmarks"].double(), "diag", box=batch["box"])
    torch.testing.assert_close(diagonal, torch.hypot(right - left, bottom - top))
    shifted = batch["source_landmarks"].double() + torch.tensor([3.0, 4.0])
    errors = landmark_errors(shifted, batch["source_landmarks"].double(), diagonal)
    torch.testing.assert_close(errors, 5 / diagonal)


def test_bad_samples_are_counted_and_the_batches_stay_full(tmp_path):
    write_ibug300w(tmp_path, count=6, size=64)
    path = tmp_path / "face_landmarks_300w_train.csv"
    lines = path.read_text().splitlines()
    fields = [line.split(",") for line in lines]
    fields[1] = fields[1][:9]  # malformed
    fields[2][1] = "0"  # box without area
    fields[3][4:] = ["900"] * 136  # outside of the picture
    path.write_text("\n".join(",".join(row) for row in fields))
    (tmp_path / "afw/1003_1.jpg").unlink()  # missing
    data = IBug300WDataModule(str(tmp_path), transform=alignment_recipe(size=32), batch_size=3, val_fraction=0.0)
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert [batch["image"].shape[0] for batch in batches] == [3, 3]
    assert all(bool(batch["image"].isfinite().all() and batch["landmarks"].isfinite().all()) for batch in batches)
    drops = {drop["key"]: drop["reason"] for batch in batches for drop in batch.get("dropped", ())}
    assert drops == {
        "afw_1000_1": "broken_annotation",
        "helen_trainset_1001_1": "broken_annotation",
        "lfpw_trainset_image_0002": "bad_landmarks",
        "afw_1003_1": "missing_image",
    }


def test_a_bad_test_sample_is_marked_and_does_not_count(tmp_path):
    write_ibug300w(tmp_path, count=3, size=64)
    (tmp_path / "ibug/image_092 _01.jpg").write_bytes(b"\xff\xd8\xff broken")
    data = IBug300WDataModule(str(tmp_path), transform=alignment_recipe(size=32), batch_size=6)
    data.setup("test")
    (batch,) = data.test_dataloader()
    assert batch["valid"].tolist() == [True, True, True, False, True, True]
    assert [drop["key"] for drop in batch["dropped"]] == ["ibug_image_092 _01"]
    assert bool(batch["image"].isfinite().all())


def test_cofw_boxes_are_a_setting(tmp_path):
    require_package(CASES["cofw"])
    CASES["cofw"].write(tmp_path)
    boxes = {}
    for name in ("landmarks", "detector"):
        data = COFWDataModule(str(tmp_path), boxes=name, transform=alignment_recipe(size=32))
        data.setup("test")
        boxes[name] = data.faces("test")[0].box
    assert boxes["landmarks"] != boxes["detector"]
    with pytest.raises(ConfigError, match="Did you mean 'detector'"):
        COFWDataModule(str(tmp_path), boxes="detecter")
