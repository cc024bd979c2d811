"""Bad samples: replaced in training, marked in evaluation, always told; nothing depends on history."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from farl_lightning.datamodules.loader import ResumableLoader
from farl_lightning.datamodules.samplers import PaddedSampler, PaddedView, ShuffledBatches
from farl_lightning.datamodules.samples import FaceSamples, blank_record
from farl_lightning.datasets import bad_sample as reasons
from farl_lightning.datasets.bad_sample import BadSample
from farl_lightning.datasets.faces import FaceDataset, FaceSubset
from farl_lightning.datasets.source import Replica
from farl_lightning.errors import DataError
from farl_lightning.transforms.collate_faces import collate_faces
from farl_lightning.transforms.dense import DenseTransform
from farl_lightning.transforms.dense_config import DenseTransformConfig
from farl_lightning.types import FaceRecord, FaceSpec

SPEC = FaceSpec(classes=("background", "face"), num_landmarks=3)
POINTS = np.array([[4, 5], [11, 5], [7.5, 8], [5, 11], [10, 11]], np.float32)


class Flawed(FaceDataset):
    """Pictures of one grey level each (the index), some of which cannot be read or cropped."""

    spec = SPEC

    def __init__(self, count: int = 24, unreadable=(), uncroppable=()) -> None:
        self.keys = [f"f{index}" for index in range(count)]
        self.unreadable, self.uncroppable = set(unreadable), set(uncroppable)
        self.reads = 0

    def read(self, index: int) -> FaceRecord:
        self.reads += 1
        if index in self.unreadable:
            raise BadSample(reasons.BROKEN_IMAGE, "cut short")
        return FaceRecord(
            key=self.keys[index],
            image=np.full((16, 16, 3), index, np.uint8),
            mask=np.ones((16, 16), np.uint8),
            landmarks=POINTS[:3],
            points=POINTS * (0 if index in self.uncroppable else 1),
            box=(0, 0, 16, 16),
        )


def samples(dataset: FaceDataset, train: bool, crop: str = "align", **options) -> FaceSamples:
    config = DenseTransformConfig(size=8, crop=crop, shift=0.1)
    return FaceSamples(dataset, DenseTransform(config, SPEC, 0, train), train=train, **options)


def batches(dataset: FaceDataset, replica: Replica = Replica(), entry=None) -> ResumableLoader:  # noqa: B008
    source = ShuffledBatches(samples(dataset, True), collate_faces, 4, 0, replica)
    loader = ResumableLoader(source, replica)
    if entry is not None:
        loader.load_state_dict(entry)
    return loader


def test_training_puts_another_sample_in_the_place_of_a_bad_one():
    made = samples(Flawed(unreadable=[3], uncroppable=[5]), True)
    for index, reason in ((3, reasons.BROKEN_IMAGE), (5, reasons.NO_CROP)):
        sample = made.sample(index, 2)
        assert sample["key"] not in ("f3", "f5")
        assert [(drop["key"], drop["reason"]) for drop in sample["dropped"]] == [(f"f{index}", reason)]
        again = samples(Flawed(unreadable=[3], uncroppable=[5]), True).sample(index, 2)
        assert again["key"] == sample["key"]
        assert torch.equal(again["image"], sample["image"])
    assert "dropped" not in made.sample(4, 2)
    assert len({made.sample(3, epoch)["key"] for epoch in range(12)}) > 4  # another one in every pass


def test_a_substitute_that_is_bad_itself_is_passed_over_in_silence():
    made = samples(Flawed(unreadable=range(20)), True)
    for index in range(20):
        sample = made.sample(index, 0)
        assert int(sample["key"][1:]) >= 20
        assert [drop["key"] for drop in sample["dropped"]] == [f"f{index}"]


def test_data_of_which_nothing_can_be_used_are_an_error():
    made = samples(Flawed(count=6, unreadable=range(6)), True)
    with pytest.raises(DataError, match=r"f2 cannot be used \(broken_image: cut short\), and neither can 32 others"):
        made.sample(2, 0)


@pytest.mark.parametrize("crop", ["align", "box", "none", "quad"])
def test_evaluation_marks_a_bad_sample(crop):
    view = PaddedView(samples(Flawed(unreadable=[1]), False, crop))
    batch = collate_faces([view[index] for index in range(3)])
    assert batch["valid"].tolist() == [True, False, True]
    assert batch["key"] == ["f0", "f1", "f2"]
    assert [drop["key"] for drop in batch["dropped"]] == ["f1"]
    assert batch["image"].shape == (3, 3, 8, 8)
    for name in ("image", "landmarks", "source_landmarks", "matrix"):
        assert batch[name].isfinite().all(), name
    assert (batch["mask"][1] == 255).all()
    assert (batch["source_mask"][1] == 255).all()
    assert torch.pdist(batch["source_landmarks"][1]).min() > 1  # errors divide by distances between landmarks


def test_a_padded_repeat_does_not_tell_a_drop_twice():
    view = PaddedView(samples(Flawed(count=3, unreadable=[0]), False))
    seen = [view[padded] for rank in (0, 1) for padded in PaddedSampler(3, Replica(rank, 2))]
    assert [bool(sample["valid"]) for sample in seen] == [False, True, True, False]
    assert sum(len(sample.get("dropped", ())) for sample in seen) == 1


def test_blank_records_have_the_labels_of_their_set():
    bare = blank_record("k", FaceSpec())
    assert bare.mask is None
    assert bare.landmarks is None
    full = blank_record("k", SPEC)
    assert full.landmarks.shape == (3, 2)


def test_processes_stay_in_step_whatever_is_bad():
    flawed = {"unreadable": [0, 3, 4, 8, 9, 20], "uncroppable": [1]}
    ranks = [list(batches(Flawed(**flawed), Replica(rank, 2))) for rank in (0, 1)]
    assert [len(rank) for rank in ranks] == [3, 3]
    assert all(len(batch["key"]) == 4 for rank in ranks for batch in rank)
    told = [drop["key"] for rank in ranks for batch in rank for drop in batch.get("dropped", ())]
    assert sorted(told) == sorted(["f0", "f3", "f4", "f8", "f9", "f20", "f1"])  # each once


def test_a_resumed_pass_draws_the_same_substitutes():
    flawed = {"unreadable": [0, 3, 4, 8, 9, 20, 21, 22]}
    whole = list(batches(Flawed(**flawed)))
    loader = batches(Flawed(**flawed))
    first = iter(loader)
    for _ in range(3):
        next(first)
    rest = list(batches(Flawed(**flawed), entry=loader.state_dict()))
    assert len(rest) == len(whole) - 3
    for one, other in zip(whole[3:], rest, strict=True):
        assert one["key"] == other["key"]
        assert torch.equal(one["image"], other["image"])
        assert one.get("dropped") == other.get("dropped")


def test_a_share_is_repeated_to_full_length_and_augmented_anew():
    whole = Flawed(count=20)
    made = samples(FaceSubset(whole, [2, 7, 11]), True, length=20)
    assert len(made) == 20
    seen = [made.sample(index, 0) for index in range(20)]
    assert [sum(sample["key"] == key for sample in seen) for key in ("f2", "f7", "f11")] == [7, 7, 6]
    matrices = {tuple(sample["matrix"].flatten().tolist()) for sample in seen}
    assert len(matrices) == 20  # no draw is repeated within an epoch,
    later = {tuple(made.sample(index, 1)["matrix"].flatten().tolist()) for index in range(20)}
    assert not matrices & later  # nor in the next


def test_a_position_in_other_samples_is_not_entered():
    loader = batches(Flawed())
    next(iter(loader))
    with pytest.warns(UserWarning, match="training data changed"):
        batches(FaceSubset(Flawed(30), range(6, 30)), entry=loader.state_dict())  # as many, but others
