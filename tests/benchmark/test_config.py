"""A benchmark's file: what it may say, and what is said about mistakes."""

from __future__ import annotations

import copy

import pytest

from farl_lightning.benchmark import list_cells, read_benchmark
from farl_lightning.errors import ConfigError
from tests.benchmark.fakes import TREE, make


def test_defaults_and_titles(tmp_path):
    benchmark = make(tmp_path)
    good, plain = benchmark.encoders
    assert (good.title, plain.title) == ("Good one", "plain")
    assert good.pretrain is not None
    assert good.pretrain.config == "p.yaml"
    assert plain.weights is None
    assert [list(benchmark.methods_of(task)) for task in benchmark.tasks] == [["frozen"], ["knn"]]


def test_every_cell_once_and_one_seed_after_the_other(tmp_path):
    cells = list_cells(make(tmp_path))
    assert len(cells) == len({cell.key for cell in cells}) == 2 * 2 * 2 * 2
    assert [cell.seed for cell in cells] == [0] * 8 + [1] * 8
    assert cells[0].key == "parsing.good.frozen.10pct.seed0"
    assert str(cells[0]) == "parsing, good, frozen, 10 %, seed 0"


def test_a_part_of_it_can_be_chosen(tmp_path):
    chosen = make(tmp_path).chosen(encoders=["good"], tasks=["age"], labels=[0.05], seeds=[4])
    assert [cell.key for cell in list_cells(chosen)] == ["age.good.knn.5pct.seed4"]
    assert chosen.baseline is None  # it is not among the encoders any more
    trained = make(tmp_path).chosen(methods=["lora"], seeds=[0], labels=[1.0], encoders=["plain"])
    assert [cell.key for cell in list_cells(trained)] == [
        "parsing.plain.lora.100pct.seed0",
        "age.plain.lora.100pct.seed0",
    ]
    assert trained.baseline == "plain"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("encoder",), {}, "has no setting 'encoder'. Did you mean 'encoders'?"),
        (("title",), None, "lacks 'title'"),
        (("encoders",), {}, "needs 'encoders': a mapping of names to settings, got {}"),
        (("encoders", "good", "weights"), "a.pt", "encoders.good has weights and pretrain"),
        (("encoders", "good", "backbone"), "timm/vit", "encoders.good is a network of another library; pretrain"),
        (("encoders", "x"), {"backbone": "timm/vit"}, "'frozen', which trains, but encoders.x is a network"),
        (("encoders", "a b"), None, "encoders.a b: names consist of letters"),
        (("encoders", "good", "pretrain"), {}, "encoders.good.pretrain lacks 'config'"),
        (("tasks", "age", "metrik"), "x", "tasks.age has no setting 'metrik'. Did you mean 'metric'?"),
        (("tasks", "age", "metric"), "val/mae", "results are those of the test"),
        (("tasks", "age", "mode"), "low", "tasks.age.mode: there is no 'low'"),
        (("tasks", "age", "column"), None, "has the method 'knn' but no column"),
        (("tasks", "age", "methods"), "knn", "tasks.age.methods is a list, got 'knn'; write [knn]"),
        (("tasks", "age", "digits"), 9, "tasks.age.digits is 9"),
        (("tasks", "age", "settings"), 3, "tasks.age.settings is a mapping of settings, got 3"),
        (("methods",), ["frosen"], "methods: there is no 'frosen'. Did you mean 'frozen'?"),
        (("labels",), [0], "above 0 and up to 1 (0.1 is 10 %), got 0"),
        (("labels",), [10], "got 10"),
        (("labels",), ["all"], "labels is a number, got 'all'"),
        (("labels",), [], "labels is empty"),
        (("seeds",), [0, 0], "seeds has 0 twice"),
        (("seeds",), [-1], "seeds are whole numbers from 0"),
        (("baseline",), "godo", "baseline: there is no 'godo'. Did you mean 'good'?"),
        (("tasks", "parsing", "reference"), [{"model": "x"}], "tasks.parsing.reference lacks 'value'"),
        (("tasks", "parsing", "reference"), [{"model": "x", "value": "1"}], "reference value is a number"),
        (("tasks", "parsing", "reference"), [{"model": "x", "value": 1, "mark": "sure"}], "there is no 'sure'"),
    ],
)
def test_mistakes_are_named(place, value, message):
    tree = copy.deepcopy(TREE)
    node = tree
    for name in place[:-1]:
        node = node[name]
    if place == ("title",):
        del node["title"]
    else:
        node[place[-1]] = value
    with pytest.raises(ConfigError) as error:
        read_benchmark(tree)
    assert message in str(error.value)


@pytest.mark.parametrize("wrong", [{"encoders": ["godo"]}, {"tasks": ["pasing"]}, {"methods": ["knn"]}])
def test_a_choice_must_exist(tmp_path, wrong):
    with pytest.raises(ConfigError, match=r"Did you mean|no column"):
        make(tmp_path).chosen(**wrong)
