"""Drawn people: who is who, pairs of people that training never saw, and batches that hold several pictures of one."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from farl_lightning.datamodules import SyntheticIdentitiesDataModule
from farl_lightning.datamodules.people import GroupedBatches, number_people
from farl_lightning.datasets.drawn_identities import DrawnIdentities, draw_pairs
from farl_lightning.datasets.source import Entry, Replica
from farl_lightning.datasets.synthetic import SyntheticFaces
from farl_lightning.errors import ConfigError

PEOPLE = {"train_people": 6, "val_people": 20, "test_people": 30, "pictures_per_identity": 3}


def data(**changes) -> SyntheticIdentitiesDataModule:
    settings = {**PEOPLE, "val_pairs": 40, "test_pairs": 60, "image_size": 24, "batch_size": 6, "cache": False}
    return SyntheticIdentitiesDataModule(**{**settings, **changes})


@pytest.mark.parametrize("cache", [False, True])
def test_records_say_who_they_show(cache):
    faces = SyntheticFaces(6, 24, seed=2, start=300, pictures_per_identity=3)
    dataset = DrawnIdentities(faces, cache)
    assert [record.labels["identity"] for record in dataset] == [0, 0, 0, 1, 1, 1] == dataset.identities.tolist()
    assert dataset.spec.label_names["identity"] == ("person-100", "person-101")
    assert dataset.photographs[2:4] == ["person-100", "person-101"]
    assert [face.identity for face in faces] == [100] * 3 + [101] * 3
    np.testing.assert_array_equal(dataset[4].image, faces[4].image)
    assert dataset[0].groups["gender"] == dataset[2].groups["gender"]


@pytest.mark.parametrize("seed", [0, 1])
def test_pairs_are_right_balanced_and_folds_share_nobody(seed):
    pairs = draw_pairs(people=40, pictures=5, count=200, seed=seed)
    first, second = pairs.first // 5, pairs.second // 5
    np.testing.assert_array_equal(first == second, pairs.same)
    assert (pairs.first != pairs.second).all()
    assert len(set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))) == 200
    assert Counter(zip(pairs.folds.tolist(), pairs.same.tolist(), strict=True)) == {
        (fold, same): 10 for fold in range(10) for same in (True, False)
    }
    folds = [set(first[pairs.folds == fold]) | set(second[pairs.folds == fold]) for fold in range(10)]
    assert sum(map(len, folds)) == len(set.union(*folds))
    assert max(pairs.first.max(), pairs.second.max()) < 200
    other = draw_pairs(people=40, pictures=5, count=200, seed=seed + 1)
    assert (other.first != pairs.first).any()


def test_every_possible_pair_can_be_asked_for():
    pairs = draw_pairs(people=20, pictures=2, count=40)
    assert sorted(pairs.first[pairs.same] // 2) == list(range(20))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"test_pairs": 50}, "number of pairs is 50; give a multiple of 20"),
        ({"val_pairs": 0}, "number of pairs is 0; give a multiple of 20"),
        ({"val_people": 10}, r"10 people with 3 pictures each do not make 40 different pairs .* 0 of two"),
        ({"pictures_per_identity": 1}, "0 pairs of one person"),
        ({"train_people": 1}, "train_people is 1; it takes at least 2"),
        ({"pictures_per_person": 1}, "pictures_per_person is 1; give 2 or more"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(ConfigError, match=message):
        data(**settings)


def test_splits_share_nobody_and_lists_find_their_pictures():
    module = data()
    assert len(module.spec.label_names["identity"]) == 6
    people = {split: set(module.faces(split).photographs) for split in ("train", "val", "test")}
    assert len(set.union(*people.values())) == 6 + 20 + 30
    for split, loaders in (("val", module.val_dataloader()), ("test", module.test_dataloader())):
        (loader,) = loaders
        ((name, trial),) = module.trials(split).items()
        pairs, rows = trial.pairs, trial.rows
        batches = list(loader)
        found = {
            rows[key]: int(who) for b in batches for key, who in zip(b["key"], b["labels"]["identity"], strict=True)
        }
        assert name == "drawn"
        assert sorted(found) == list(range(len(rows))) == list(range(3 * PEOPLE[f"{split}_people"]))
        same = [found[one] == found[other] for one, other in zip(pairs.first, pairs.second, strict=True)]
        np.testing.assert_array_equal(same, pairs.same)
        assert trial.identities.tolist() == [found[row] for row in range(len(rows))]
    with pytest.raises(ConfigError, match="no pairs of split 'train'"):
        module.trials("train")


def test_validation_and_test_are_other_pairs_of_other_people():
    module = data(val_people=30, val_pairs=60)
    (val,), (test,) = module.trials("val").values(), module.trials("test").values()
    assert (val.pairs.first != test.pairs.first).any()
    assert not set(val.rows) & set(test.rows)


def test_batches_of_people_hold_every_picture_once():
    module = data(pictures_per_person=3)
    loader = module.train_dataloader()
    batches = [batch["labels"]["identity"] for batch in loader]
    assert [sorted(Counter(batch.tolist()).values()) for batch in batches] == [[3, 3]] * 3
    keys = [key for batch in module.train_dataloader() for key in batch["key"]]
    assert len(set(keys)) == 18
    lone = [Counter(batch["labels"]["identity"].tolist()) for batch in data().train_dataloader()]
    assert any(min(counts.values()) < 3 for counts in lone)


class Rows:
    """Samples that are their own number, and who each shows."""

    def __init__(self, photographs: list[str]) -> None:
        self.photographs = photographs
        self.dataset = self

    def __len__(self) -> int:
        return len(self.photographs)

    def sample(self, index: int, epoch: int) -> int:
        return index


def passes(source: GroupedBatches, number: int) -> list[list[int]]:
    entry = Entry(0, [{"pass": number, "used": 0}])
    return [delivery.batch for delivery in source.batches(0, 1, entry)]


def test_people_of_uneven_size_make_smaller_groups():
    names = ["a"] * 5 + ["b"] * 1 + ["c"] * 4
    (order,) = passes(GroupedBatches(Rows(names), list, 10, pictures=2), 0)
    (again,) = passes(GroupedBatches(Rows(names), list, 10, pictures=2), 0)
    (other,) = passes(GroupedBatches(Rows(names), list, 10, pictures=2), 1)
    assert sorted(order) == list(range(10)) == sorted(other)
    assert order == again != other
    runs = "".join(names[index] for index in order)
    assert Counter(runs) == {"a": 5, "b": 1, "c": 4}
    changes = sum(one != other for one, other in itertools.pairwise(runs))
    assert changes <= 5  # 3 + 1 + 2 groups


def test_processes_share_out_the_same_pass():
    names = [f"{index // 4}" for index in range(16)]
    shares = [passes(GroupedBatches(Rows(names), list, 4, 0, Replica(rank, 2), 4), 0) for rank in (0, 1)]
    for one, other in zip(*shares, strict=True):
        assert Counter(names[index] for index in one + other).most_common()[0][1] == 4
    assert sorted(itertools.chain(*shares[0], *shares[1])) == list(range(16))


def test_people_are_numbered_as_they_come():
    assert number_people(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]


def test_pictures_of_one_person_are_alike_but_not_the_same():
    faces = DrawnIdentities(SyntheticFaces(8, 32, pictures_per_identity=8))
    pictures = torch.stack([torch.from_numpy(record.image.copy()).float() for record in faces])
    assert len({tuple(picture.flatten()[:300].tolist()) for picture in pictures}) == 8
    assert len({face.person for face in faces.faces}) == 1
