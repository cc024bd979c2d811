"""Verification and identification from embeddings by key: by hand, missing pictures, two processes against one."""

from __future__ import annotations

import dataclasses
import doctest
import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from farl_lightning.datasets.pairs import PairList
from farl_lightning.errors import ConfigError
from farl_lightning.functional import verification
from farl_lightning.functional.bootstrap import bootstrap_mean_interval
from farl_lightning.functional.distributed import rank
from farl_lightning.metrics import Identification, VerificationScores
from farl_lightning.testing.distributed import run_distributed

PEOPLE, EACH = 10, 4


class Drawn(NamedTuple):
    """Embeddings of people, and pairs of them."""

    features: torch.Tensor
    rows: dict[str, int]
    pairs: PairList
    people: torch.Tensor


def drawn(noise: float = 0.8) -> Drawn:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(PEOPLE, 6, generator=generator).repeat_interleave(EACH, 0)
    features = centres + noise * torch.randn(PEOPLE * EACH, 6, generator=generator)
    people = torch.arange(PEOPLE).repeat_interleave(EACH)
    first, second = (np.asarray(x) for x in torch.combinations(torch.arange(PEOPLE * EACH)).T)
    same = np.asarray(people)[first] == np.asarray(people)[second]
    chosen = np.sort(np.concatenate([np.flatnonzero(same), np.flatnonzero(~same)[::6]]))
    pairs = PairList(first[chosen], second[chosen], same[chosen], np.arange(len(chosen)) % 10)
    return Drawn(features, {f"{row}.jpg": row for row in range(PEOPLE * EACH)}, pairs, people)


def values(metric) -> dict[str, float]:
    return {name: value.item() for name, value in metric.compute().items()}


def test_scores_are_those_of_the_pure_functions():
    data = drawn()
    metric = VerificationScores(data.pairs, data.rows, fars=(1e-1, 1e-2, 1e-4))
    keys = list(data.rows)
    metric.update(keys[20:], data.features[20:])
    metric.update(keys[:20], data.features[:20])
    found = values(metric)
    unit = F.normalize(data.features.double(), dim=1)
    scores = (unit[data.pairs.first] * unit[data.pairs.second]).sum(1)
    same = torch.from_numpy(data.pairs.same)
    judged = verification.fold_accuracy(scores, same, torch.from_numpy(data.pairs.folds))
    roc = verification.roc_curve(scores, same)
    impostors = int((~same).sum())
    assert found == pytest.approx(
        {
            "accuracy": 100 * judged.accuracies.mean().item(),
            "accuracy_std": 100 * np.std(judged.accuracies.numpy()),
            "threshold": judged.thresholds.mean().item(),
            "auc": 100 * verification.area_under(roc),
            "eer": 100 * verification.equal_error_rate(roc),
            "tar_far_1e-1": 100 * verification.tar_at_far(roc, 0.1, impostors).value,
            "tar_far_1e-2": 100 * verification.tar_at_far(roc, 0.01, impostors).value,
            "missing_pairs": 0,
        },
        abs=1e-9,
    )
    assert metric.reasons == {"tar_far_1e-4": f"{impostors} pairs of different people cannot tell a false accept rate "
                              "of 0.0001; 10000 are needed"}  # fmt: skip
    torch.testing.assert_close(metric.scores, scores, rtol=0, atol=1e-12)
    assert torch.equal(metric.right, judged.right.double())
    gain = 100 * (metric.right - (~same).double())
    assert metric.baseline.kind == "majority"
    assert metric.baseline.value == pytest.approx(100 * (~same).double().mean().item())
    low, high = bootstrap_mean_interval(gain, resamples=4000)  # another way to draw the same thing
    assert metric.baseline.low == pytest.approx(low, abs=1.0)
    assert metric.baseline.high == pytest.approx(high, abs=1.0)
    assert metric.baseline.low < gain.mean() < metric.baseline.high
    assert [row["fold"] for row in metric.rows] == list(range(1, 11))
    assert metric.rows[3]["accuracy"] == pytest.approx(100 * judged.accuracies[3].item())
    assert sum(row["pairs"] for row in metric.rows) == len(same)


def test_the_example_of_the_documentation():
    names = {"np": np, "torch": torch, "PairList": PairList, "VerificationScores": VerificationScores}
    example = doctest.DocTestParser().get_doctest(VerificationScores.__doc__, names, "example", None, None)
    assert len(example.examples) == 4
    assert doctest.DocTestRunner().run(example).failed == 0


def test_features_that_have_collapsed_earn_nothing():
    data = drawn()
    metric = VerificationScores(data.pairs, data.rows)
    metric.update(list(data.rows), torch.ones(PEOPLE * EACH, 6))
    found = values(metric)
    assert "threshold" not in found  # nothing or everything is accepted
    assert found["auc"] == found["eer"] == 50
    assert found["accuracy"] == pytest.approx(metric.baseline.value, abs=1e-9)
    assert metric.baseline.low == metric.baseline.high == 0


def test_missing_and_repeated_pictures():
    data = drawn()
    metric = VerificationScores(data.pairs, data.rows)
    keys, noise = list(data.rows), torch.randn(PEOPLE * EACH, 6)
    valid = torch.arange(PEOPLE * EACH) != 5
    metric.update(keys, data.features, valid)
    metric.update(keys[:3], noise[:3])  # counted already
    metric.update(keys[5:6], noise[5:6], torch.tensor([False]))
    found = values(metric)
    missing = (data.pairs.first == 5) | (data.pairs.second == 5)
    assert found["missing_pairs"] == missing.sum() > 0
    assert torch.equal(metric.scores.isnan(), torch.from_numpy(missing))
    assert torch.equal(metric.right.isnan(), torch.from_numpy(missing))
    assert sum(len(part) for part in metric.embedded) == (PEOPLE * EACH - 1) * 7  # no more than one per picture
    assert metric.scores[0].item() == pytest.approx(
        F.cosine_similarity(data.features[0].double(), data.features[1].double(), 0).item(), abs=1e-12
    )


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_nothing_seen_has_no_result_but_reasons():
    data = drawn()
    metric = VerificationScores(data.pairs, data.rows)
    assert values(metric) == {"missing_pairs": len(data.pairs)}
    assert set(metric.reasons) == {"accuracy", "auc", "eer"}
    assert math.isnan(metric.baseline.value)


def test_what_does_not_fit_is_named():
    data = drawn()
    metric = VerificationScores(data.pairs, data.rows)
    with pytest.raises(ConfigError, match=r"'13\.jpeg' is in none of the pairs. Did you mean '13\.jpg'"):
        metric.update(["13.jpeg"], torch.zeros(1, 6))
    with pytest.raises(ConfigError, match=r"2 keys and embeddings \(1, 6\)"):
        metric.update(["1.jpg", "2.jpg"], torch.zeros(1, 6))
    with pytest.raises(ConfigError, match="rows from 0 to 39, the pictures have 0 to 2"):
        VerificationScores(data.pairs, {"a": 0, "b": 2})
    with pytest.raises(ConfigError, match=r"rates \[2\]"):
        VerificationScores(data.pairs, data.rows, fars=(2,))
    with pytest.raises(ConfigError, match="0 pictures"):
        VerificationScores(data.pairs, {})
    with pytest.raises(ConfigError, match="one entry of each column"):
        VerificationScores(dataclasses.replace(data.pairs, first=data.pairs.first[1:]), data.rows)


def test_identification_by_hand():
    # two people at 0 and 90 degrees, one probe each near its own, one near the other, one of an unknown person
    angles = torch.tensor([0.0, 90, 10, 80, 70, 5, 0]).deg2rad()
    features = torch.stack([angles.cos(), angles.sin()], 1)
    rows = {f"{row}": row for row in range(7)}
    metric = Identification([0, 1, 0, 1, 0, 2, -1], rows, gallery=[0, 1], ks=(2, 1))
    metric.update(list(rows), features)
    found = values(metric)
    assert found == pytest.approx({"rank1": 200 / 3, "rank2": 100, "unmated_probes": 1, "missing_pictures": 0})
    assert metric.ranks.tolist() == [0, 0, 1, 1, 2, 0, 0]
    assert metric.baseline.value == 50  # one of two entries is right
    gain = torch.tensor([50.0, 50.0, -50.0], dtype=torch.float64)
    assert (metric.baseline.low, metric.baseline.high) == bootstrap_mean_interval(gain)
    assert metric.rows == [{"k": 1, "accuracy": pytest.approx(200 / 3), "probes": 3},
                           {"k": 2, "accuracy": 100.0, "probes": 3}]  # fmt: skip


def test_chance_of_several_looks_at_several_pictures():
    rows = {f"{row}": row for row in range(7)}
    metric = Identification([0, 0, 1, 1, 1, 0, 1], rows, gallery=range(5), ks=(2,))
    metric.update(list(rows), torch.randn(7, 3))
    metric.compute()
    # two of five entries are right for the first probe, three for the second; two are looked at
    assert metric.baseline.value == pytest.approx(100 * ((1 - 3 / 5 * 2 / 4) + (1 - 2 / 5 * 1 / 4)) / 2)


def test_the_gallery_is_the_first_picture_of_each_person():
    data = drawn()
    metric = Identification(data.people.tolist(), data.rows)
    assert metric.gallery.tolist() == list(range(0, PEOPLE * EACH, EACH))
    metric.update(list(data.rows), data.features, torch.arange(PEOPLE * EACH) != 0)
    found = values(metric)
    assert found["unmated_probes"] == EACH - 1  # the first person's picture is missing
    assert found["missing_pictures"] == 1
    assert 50 < found["rank1"] <= found["rank5"] <= found["rank10"] == 100


def test_settings_of_identification_are_checked():
    for options, message in (
        ({"identities": [0]}, "1 identities for pictures 0 to 1"),
        ({"ks": ()}, r"ks=\[\]"),
        ({"ks": (0,)}, r"ks=\[0\]"),
        ({"gallery": [2]}, "gallery's rows"),
        ({"gallery": []}, "gallery's rows"),
    ):
        with pytest.raises(ConfigError, match=message):
            Identification(**{"identities": [0, 1], "rows": {"a": 0, "b": 1}, **options})


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_an_empty_gallery_asks_nothing():
    metric = Identification([0, 0], {"a": 0, "b": 1})
    found = values(metric)
    assert math.isnan(found.pop("rank1"))
    assert found["missing_pictures"] == 2
    assert math.isnan(metric.baseline.value)


def _shares(data, share_of):
    """Update with this process's pictures, the last one padded by a repeat, and return everything there is."""
    metrics = [VerificationScores(data.pairs, data.rows), Identification(data.people.tolist(), data.rows)]
    keys = list(data.rows)
    own = [row for row in range(len(keys)) if share_of[row] == rank()]
    for metric in metrics:
        for part in (own[:7], own[7:]):
            metric.update([keys[row] for row in part], data.features[part])
        metric.update(keys[:1], data.features[:1], torch.tensor([False]))
    return [{name: value.item() for name, value in m.compute().items()} for m in metrics], metrics[0].scores


@pytest.mark.parametrize("empty", [False, True])
def test_two_processes_give_the_same_bits_as_one(empty):
    data = drawn()
    everything, scores = _shares(data, [0] * (PEOPLE * EACH))
    share_of = [0] * (PEOPLE * EACH) if empty else [(row * 7 // 3) % 2 for row in range(PEOPLE * EACH)]
    for answer, own in run_distributed(_shares, 2, data, share_of):
        assert answer == everything
        assert torch.equal(own, scores)
