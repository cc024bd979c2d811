"""People to train on, pairs of others to judge by: every picture of a list comes once, and the pairs find it."""

from __future__ import annotations

import pytest
import torch

from farl_lightning.datamodules import VerificationDataModule
from farl_lightning.errors import ConfigError, DatasetNotFoundError
from farl_lightning.testing import benchmarks
from farl_lightning.transforms.dense_config import DenseTransformConfig

PLAIN = DenseTransformConfig(32, "none")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verification")
    benchmarks.write_identities(folder / "people", people=3, pictures=4)
    benchmarks.write_pairs_bin(folder / "cfp_fp.bin", seed=1, protocol=2)
    benchmarks.write_lfw(folder / "lfw", seed=2)
    return folder


def test_training_knows_people_and_lists_know_pairs(root):
    pairs = {"LFW": str(root / "lfw"), "CFP-FP": str(root / "cfp_fp.bin")}
    data = VerificationDataModule(str(root / "people"), pairs, transform=PLAIN, batch_size=6, eval_batch_size=7)
    assert list(data.trials("val")) == list(data.trials("test")) == list(pairs)
    assert data.spec.label_names == {"identity": ("000000", "000001", "000002")}
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert sorted(torch.cat([batch["labels"]["identity"] for batch in batches]).tolist()) == [0] * 4 + [1] * 4 + [2] * 4
    assert all(
        int(key[:6]) == label for b in batches for key, label in zip(b["key"], b["labels"]["identity"], strict=True)
    )
    loaders = data.val_dataloader()
    assert len(loaders) == len(data.test_dataloader()) == 2
    for name, loader in zip(pairs, loaders, strict=True):
        pair_list, rows = data.pair_rows(name)
        keys = [key for batch in loader for key in batch["key"]]
        assert sorted(rows[key] for key in keys) == list(range(len(rows)))
        assert len(pair_list) == 20
        assert max(pair_list.first.max(), pair_list.second.max()) < len(rows)


def test_lists_alone_are_enough_to_test(root):
    data = VerificationDataModule(pairs={"CFP-FP": str(root / "cfp_fp.bin")})
    data.setup("test")
    (loader,) = data.test_dataloader()
    assert next(iter(loader))["image"].shape == (len(data.pair_sets["CFP-FP"]), 3, 112, 112)
    with pytest.raises(ConfigError, match="has no training split"):
        data.train_dataloader()


def test_people_are_looked_for_in_galleries(root):
    people = str(root / "people")
    data = VerificationDataModule(pairs={"LFW": str(root / "lfw")}, galleries={"people": people}, transform=PLAIN)
    data.setup("test")
    assert list(data.trials("test")) == ["LFW", "people"]
    trial = data.trials("test")["people"]
    assert trial.pairs is None
    assert trial.identities.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.trials("test")["LFW"].identities is None
    keys = [key for batch in data.test_dataloader()[1] for key in batch["key"]]
    assert [trial.rows[key] for key in keys] == list(range(12))


def test_pictures_of_one_person_come_together(root):
    data = VerificationDataModule(str(root / "people"), pictures_per_person=2, transform=PLAIN, batch_size=4)
    for batch in data.train_dataloader():
        one, other, third, fourth = batch["labels"]["identity"].tolist()
        assert (one, third) == (other, fourth)


def test_settings_that_cannot_work(root):
    with pytest.raises(ConfigError, match=r"give root \(a folder of people\), pairs"):
        VerificationDataModule()
    with pytest.raises(ConfigError, match="'LFW' is the name of a list of pairs and of a gallery"):
        VerificationDataModule(pairs={"LFW": "x"}, galleries={"LFW": "y"})
    with pytest.raises(DatasetNotFoundError, match="nowhere' does not exist"):
        VerificationDataModule(str(root / "nowhere"))
    with pytest.raises(DatasetNotFoundError, match=r"none.bin' do not exist"):
        VerificationDataModule(pairs={"LFW": str(root / "none.bin")}).setup("test")
