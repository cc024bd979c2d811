"""Results by subgroup: by hand, against plain resampling and scipy, under any order and any number of processes."""

from __future__ import annotations

import math

import pytest
import torch

from farl_lightning.errors import ConfigError
from farl_lightning.functional.distributed import rank
from farl_lightning.functional.subgroups import group_gap, resampled_means, wilson_interval
from farl_lightning.metrics import SubgroupScores, subgroup_table
from farl_lightning.metrics.subgroups import cross_groups
from farl_lightning.testing.distributed import run_distributed


def faces(count: int = 300):
    """Right or wrong answers, better for b than for a; and the groups of each face."""
    generator = torch.Generator().manual_seed(3)
    number = torch.randint(3, (count,), generator=generator)
    right = (torch.rand(count, generator=generator) < torch.tensor([0.5, 0.9, 0.7])[number]).double()
    ages = torch.randint(4, (count,), generator=generator)
    names = ["a", "b", ""]
    groups = {"skin": [names[n] for n in number], "age": [("3-9", "10-19", "20-29", "")[n] for n in ages]}
    return right, groups


def test_rows_by_hand():
    outcomes = torch.tensor([3.0, 5.0, 4.0, 10.0, math.nan, 1.0, 2.0])
    table = subgroup_table(outcomes, ["10", "10", "9", "9", "9", "", "20"], higher_is_better=False, min_faces=2)
    assert [(row["group"], row["faces"], row["mean"], row["note"]) for row in table.rows] == [
        ("9", 2, 7.0, "worst"),
        ("10", 2, 4.0, "best"),
        ("20", 1, 2.0, "too few"),
        ("unknown", 1, 1.0, "too few"),
    ]
    assert (table.mean, table.faces, table.unjudged) == (25 / 6, 6, 1)
    assert table.rows[0]["difference"] == pytest.approx(7 - 25 / 6)
    assert (table.worst, table.best, table.gap.value) == ("9", "10", 3.0)
    assert math.isnan(table.rows[2]["low"])  # one face tells nothing of its kind
    assert table.summary()["gap"] == 3.0


def test_wilson_is_that_of_statistics():
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    for right, total in ((0, 5), (5, 5), (37, 120)):
        expected = stats.binomtest(right, total).proportion_ci(0.95, method="wilson")
        assert wilson_interval(right / total, total) == pytest.approx(tuple(expected), abs=1e-12)
    assert all(math.isnan(end) for end in wilson_interval(math.nan, 0))


def test_shares_have_wilsons_interval_in_their_own_unit():
    right, groups = faces()
    for scale in (1, 100):
        table = subgroup_table(scale * right, groups["skin"])
        row = next(row for row in table.rows if row["group"] == "a")
        assert (row["low"], row["high"]) == pytest.approx(
            tuple(scale * end for end in wilson_interval(row["mean"] / scale, row["faces"]))
        )
    everyone = subgroup_table(torch.ones(20), ["a"] * 10 + ["b"] * 10)
    assert everyone.rows[0]["low"] < 0.75  # ten of ten is no certainty


def test_errors_have_the_bootstraps_interval():
    generator = torch.Generator().manual_seed(1)
    errors = 5 * torch.rand(60, generator=generator, dtype=torch.float64)
    row = subgroup_table(errors, ["a"] * 60, resamples=20_000).rows[0]
    means = errors[torch.randint(60, (20_000, 60), generator=generator)].mean(1)
    ends = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    assert [row["low"], row["high"]] == pytest.approx(ends, abs=0.02)


def test_two_values_are_drawn_as_any_others():
    values = torch.tensor([1.0] * 7 + [3.0] * 3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    quick = resampled_means(values, 10, 50_000, generator)
    plain = values[torch.randint(10, (50_000, 10), generator=generator)].mean(1)
    assert quick.mean().item() == pytest.approx(1.6, abs=0.01)
    assert quick.std().item() == pytest.approx(plain.std().item(), rel=0.02)
    assert resampled_means(torch.full((4,), 2.0).double(), 9, 3, generator).tolist() == [2, 2, 2]
    assert len(resampled_means(torch.rand(5).double(), 4_000_000, 3, generator)) == 3  # in several parts


def test_the_gap_stands_beside_what_chance_does():
    right, groups = faces()
    gap = subgroup_table(right, groups["skin"]).gap
    assert gap.low < gap.value < gap.high
    assert gap.low > 0
    assert gap.chance < gap.low  # 0.5 against 0.9: no chance
    noise = subgroup_table(right, groups["age"]).gap
    assert 0 < noise.value < noise.chance  # ages were drawn apart from answers
    # chance: the largest of three shares of 0.7 less the smallest, at 20 faces each, by plain simulation
    values, codes = torch.tensor([1.0] * 42 + [0.0] * 18), torch.arange(60) % 3
    shares = (torch.rand(100_000, 3, 20, generator=torch.Generator().manual_seed(2)) < 0.7).double().mean(2)
    expected = (shares.amax(1) - shares.amin(1)).quantile(0.95).item()
    assert group_gap(values, codes, 3, resamples=50_000).chance == pytest.approx(expected, abs=0.051)  # steps of 0.05


def test_too_few_and_unknown_are_listed_and_not_compared():
    right, groups = faces()
    names = ["c" if index < 9 else name for index, name in enumerate(groups["skin"])]
    right[:9] = 0.0
    table = subgroup_table(right, names, min_faces=10)
    assert [row["group"] for row in table.rows] == ["a", "b", "c", "unknown"]
    assert (table.worst, table.best) == ("a", "b")
    assert table.rows[2]["note"] == "too few"
    alone = subgroup_table(right, ["a"] * 299 + ["b"])
    assert (alone.worst, alone.best) == ("", "")
    assert all(math.isnan(value) for value in alone.gap)
    empty = subgroup_table(torch.tensor([math.nan]), ["a"])
    assert (empty.rows, empty.faces, empty.unjudged) == ([], 0, 1)


def test_the_order_of_faces_does_not_matter():
    generator = torch.Generator().manual_seed(4)
    errors, (_, groups) = torch.rand(300, generator=generator), faces()
    order = torch.randperm(300, generator=generator)
    names = [groups["skin"][index] for index in order]
    assert subgroup_table(errors, groups["skin"]) == subgroup_table(errors[order], names)


def test_columns_cross():
    groups = {"gender": ["f", "m", "m"], "age": ["3-9", "", "10-19"], "a x b": ["1", "2", "3"]}
    assert cross_groups(groups, "gender x age") == ["f x 3-9", "", "m x 10-19"]
    assert cross_groups(groups, "a x b") == ["1", "2", "3"]
    with pytest.raises(ConfigError, match="no column of subgroups 'race'; there are: gender, age, a x b"):
        cross_groups(groups, "race x age")


def test_the_metric_is_the_table_of_all_batches():
    right, groups = faces()
    metric = SubgroupScores(["skin", "skin x age"])
    for rows in (slice(0, 130), slice(130, 300)):
        valid = torch.ones(len(right[rows]), dtype=torch.bool)
        valid[0] = False
        metric.update(right[rows], {name: column[rows] for name, column in groups.items()}, valid)
    kept = [index for index in range(300) if index not in (0, 130)]
    found = metric.compute()
    table = subgroup_table(right[kept], [groups["skin"][index] for index in kept])
    assert metric.tables["skin"] == table
    assert found["gap_skin"].item() == table.gap.value
    assert found["worst_skin"].item() == next(row["mean"] for row in table.rows if row["group"] == "a")
    assert {row["group"] for row in metric.tables["skin x age"].rows} >= {"a x 3-9", "b x 20-29", "unknown"}
    metric.reset()
    metric.update(right[:20], {name: column[:20] for name, column in groups.items()})
    metric.compute()
    assert metric.tables["skin"].faces == 20


def on_rank(shares):
    right, groups = faces()
    metric = SubgroupScores(["skin x age", "skin"]).to("cpu")  # as Lightning moves it
    rows = shares[rank()]
    for start in range(0, len(rows), 16):
        part = rows[start : start + 16]
        metric.update(right[part], {name: [column[i] for i in part] for name, column in groups.items()})
    found = metric.compute()
    return {name: value.item() for name, value in found.items()}, metric.tables["skin x age"].rows


def test_two_processes_find_what_one_finds():
    (alone,) = run_distributed(on_rank, 1, [list(range(300))])
    uneven = [list(range(0, 300, 3)), [index for index in range(300) if index % 3][::-1]]
    assert run_distributed(on_rank, 2, uneven) == [alone, alone]
    assert run_distributed(on_rank, 2, [list(range(300)), []]) == [alone, alone]  # one process without a face


def test_what_cannot_work():
    with pytest.raises(ConfigError, match="each once"):
        SubgroupScores(["a", "a"])
    with pytest.raises(ConfigError, match=r"outcomes \(2,\) and 3 groups"):
        subgroup_table(torch.zeros(2), ["a", "b", "c"])
    with pytest.raises(ConfigError, match="min_faces is 0"):
        subgroup_table(torch.zeros(1), ["a"], min_faces=0)
    with pytest.raises(ConfigError, match=r"\(2,\) outcomes do not go with the groups \(a: 3\)"):
        SubgroupScores(["a"]).update(torch.zeros(2), {"a": ["x", "y", "z"]})
