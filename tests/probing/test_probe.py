from __future__ import annotations

import numpy as np
import pytest
import torch

from farl_lightning.errors import ConfigError, DataError
from farl_lightning.probing import FeatureTable, run_probe
from farl_lightning.probing.logistic import minimise, probe_loss
from farl_lightning.probing.neighbours import nearest, vote
from farl_lightning.probing.probe import METHODS
from farl_lightning.probing.ridge import fit_ridge
from farl_lightning.probing.spectrum import spectrum
from farl_lightning.probing.targets import draw, read_target, read_targets
from tests.probing.faces import make_table


@pytest.fixture(scope="module")
def tables() -> tuple[FeatureTable, FeatureTable]:
    return make_table(400, seed=0), make_table(300, seed=1)


def standardised(x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean(0)) / x.std(0, correction=0)


def test_ridge_equals_refitting_without_each_face():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(12, 2, generator=generator, dtype=torch.float64)
    unit = standardised(x)

    def solve(a, b, penalty):  # unpenalised mean, weights penalised by as much as 12 faces are
        centre, level = a.mean(0), b.mean(0)
        gram = (a - centre).T @ (a - centre) + 12 * penalty * torch.eye(3, dtype=torch.float64)
        weights = torch.linalg.solve(gram, (a - centre).T @ (b - level))
        return weights, level - centre @ weights

    errors = {}
    for penalty in (0.01, 0.3, 5.0):
        left_out = []
        for row in range(12):
            kept = [other for other in range(12) if other != row]
            weights, bias = solve(unit[kept], y[kept], penalty)
            left_out.append(y[row] - unit[row] @ weights - bias)
        errors[penalty] = torch.stack(left_out).square().mean()
    found = spectrum(x)
    weights, bias, chosen = fit_ridge(found, y, penalties=(0.01, 0.3, 5.0))
    assert chosen == min(errors, key=errors.get)
    wanted_weights, wanted_bias = solve(unit, y, chosen)
    torch.testing.assert_close(
        found.rotated @ weights + bias, unit @ wanted_weights + wanted_bias, rtol=1e-9, atol=1e-9
    )


def test_the_error_of_a_face_left_out_is_exact():
    x = torch.tensor([[0.0], [1.0], [2.0], [5.0]], dtype=torch.float64)
    y = torch.tensor([[1.0], [0.0], [4.0], [3.0]], dtype=torch.float64)
    found = spectrum(x)
    # a vanishing penalty is a straight line; one that is enormous is the mean of the others
    a, b = x[:, 0].numpy(), y[:, 0].numpy()
    line = [b[i] - np.polyval(np.polyfit(np.delete(a, i), np.delete(b, i), 1), a[i]) for i in range(4)]
    mean = [b[i] - np.delete(b, i).mean() for i in range(4)]
    better = "line" if np.square(line).mean() < np.square(mean).mean() else "mean"
    *_, chosen = fit_ridge(found, y, penalties=(1e-12, 1e9))
    assert chosen == (1e-12 if better == "line" else 1e9)


@pytest.mark.parametrize("kind", ["class", "attributes"])
def test_logistic_regression_reaches_the_minimum(kind, tables):
    x = torch.from_numpy(tables[0].features["block1.mean"]).double()
    target = read_target(tables[0], "kind" if kind == "class" else "attributes")
    found, penalty = spectrum(x), 0.05
    weights, bias = minimise(found.rotated, found.values, target.values, target.outputs, kind, penalty)
    plain = (found.vectors @ weights).requires_grad_()
    bias.requires_grad_()
    loss = probe_loss(standardised(x) @ plain + bias, target.values, kind) + penalty / 2 * plain.square().sum()
    gradients = torch.autograd.grad(loss, (plain, bias))
    assert max(float(gradient.abs().max()) for gradient in gradients) < 1e-5


def test_logistic_regression_equals_scikit_learn(tables):
    linear_model = pytest.importorskip("sklearn.linear_model")
    x = torch.from_numpy(tables[0].features["block1.mean"]).double()
    target = read_target(tables[0], "kind")
    found = spectrum(x)
    weights, bias = minimise(found.rotated, found.values, target.values, 3, "class", 0.01)
    theirs = linear_model.LogisticRegression(C=1 / (0.01 * len(x)), tol=1e-10, max_iter=1000)
    theirs.fit(standardised(x).numpy(), target.values.numpy())
    ours = (found.rotated @ weights + bias).softmax(1)
    np.testing.assert_allclose(ours.numpy(), theirs.predict_proba(standardised(x).numpy()), atol=1e-5)


def test_unknown_attributes_have_no_loss():
    outputs = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    loss = probe_loss(outputs, torch.tensor([[1, -1], [-1, -1]]), "attributes")
    torch.testing.assert_close(loss, torch.log1p(torch.exp(torch.tensor(-2.0))))


def test_neighbours_vote_by_their_cosine():
    train = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    cosines, rows = nearest(train, torch.tensor([[4.0, 3.0]]), 2)
    assert rows.tolist() == [[0, 1]]
    torch.testing.assert_close(cosines, torch.tensor([[0.8, 0.6]]))
    answers = vote(cosines, torch.tensor([[[10.0], [20.0]]]), temperature=0.1)
    share = 1 / (1 + np.exp(-2))
    torch.testing.assert_close(answers, torch.tensor([[10 * share + 20 * (1 - share)]]), check_dtype=False)
    none = torch.zeros(1, 2, 1, dtype=torch.bool)
    assert vote(cosines, torch.ones(1, 2, 1), none).tolist() == [[0.0]]
    assert nearest(train, torch.zeros(0, 2), 9)[1].shape == (0, 3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("column", "metric"), [("kind", "accuracy"), ("attributes", "accuracy_mean"), ("age", "mae")])
def test_every_method_learns_every_kind_of_label(tables, method, column, metric):
    result = run_probe(*tables, column, method, features="block1.mean")
    assert result.metric == metric
    assert result.low <= result.value <= result.high
    if metric == "mae":
        limit = 3.0 if method == "knn" else 0.6
        assert result.value < limit < result.baseline
        assert result.gain_high < 0
    else:
        assert result.value > (85 if method == "knn" else 90) > result.baseline
        assert result.gain_low > 0
    assert (result.n_train, result.n_test) == (400, 300)
    assert result.scores[metric] == result.value
    np.testing.assert_allclose(result.outcomes.mean(), result.value, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_noise_teaches_nothing(tables, method):
    result = run_probe(*tables, "kind", method, features="noise")
    assert result.value < result.baseline + 10
    assert result.gain_low <= 0  # always answering the most frequent class gains exactly nothing


def test_labels_that_are_unknown_do_not_count(tables):
    train, test = (table.take(range(len(table))) for table in tables)
    train.labels["kind"] = np.where(np.arange(400) < 390, train.labels["kind"], -1)
    test.labels["kind"] = np.where(np.arange(300) < 295, test.labels["kind"], -1)
    result = run_probe(train, test, "kind", features="block1.mean")
    assert (result.n_train, result.n_test) == (390, 295)
    assert np.isnan(result.outcomes).tolist() == [False] * 295 + [True] * 5
    test.labels["attributes"] = test.labels["attributes"].copy()
    test.labels["attributes"][:100, 0] = -1
    result = run_probe(train, test, "attributes", "ridge", features="block1.mean")
    assert result.n_test == 300
    np.testing.assert_allclose(result.outcomes.mean(), result.value, rtol=1e-9)
    test.labels["kind"][:] = -1
    with pytest.raises(DataError, match="no test face has a label 'kind'"):
        run_probe(train, test, "kind")


def test_single_attributes_and_groups_are_columns(tables):
    result = run_probe(*tables, "smiling", features="block1.mean")
    assert result.metric == "accuracy"
    assert result.value > 95
    train = tables[0].take(range(400))
    train.groups["size"] = ["" if row == 0 else "b" if kind else "a" for row, kind in enumerate(train.labels["kind"])]
    target = read_target(train, "size")
    assert target.names == ("a", "b")
    assert target.values[:2].tolist() == [-1, int(train.labels["kind"][1] > 0)]


def test_budgets_are_drawn_per_class_and_nested(tables):
    target = read_target(tables[0], "kind")
    few, more = draw(target, 2, seed=3), draw(target, 5, seed=3)
    assert target.values[few].bincount().tolist() == [2, 2, 2]
    assert target.values[more].bincount().tolist() == [5, 5, 5]
    assert set(few.tolist()) < set(more.tolist())
    assert few.tolist() == sorted(few.tolist()) == draw(target, 2, seed=3).tolist()
    assert few.tolist() != draw(target, 2, seed=4).tolist()
    assert len(draw(target, 0.1, 0)) == 40
    assert set(draw(target, 0.01, 0).tolist()) < set(draw(target, 0.1, 0).tolist())
    assert len(draw(target, 1e-9, 0)) == 1
    assert len(draw(read_target(tables[0], "age"), 7, 0)) == 7
    assert len(draw(target, 10_000, 0)) == len(draw(target, None, 0)) == 400


@pytest.mark.parametrize("budget", [0, -1, 1.5, 0.0, True])
def test_budgets_without_meaning_are_refused(tables, budget):
    with pytest.raises(ConfigError, match="neither a number of faces per class"):
        run_probe(*tables, "kind", budget=budget)


def test_one_face_per_class_can_be_learned(tables):
    for method in METHODS:
        result = run_probe(*tables, "kind", method, budget=1, seed=1, features="block1.mean")
        assert result.n_train == 3
        assert result.value > result.baseline


def test_more_faces_teach_more(tables):
    values = [
        np.mean([run_probe(*tables, "age", "ridge", budget=k, seed=s, features="block1.mean").value for s in range(3)])
        for k in (5, 50, 400)
    ]
    assert values[0] > values[1] > values[2]


def test_results_repeat(tables):
    one, other = (run_probe(*tables, "kind", "sgd", budget=0.5, seed=5) for _ in range(2))
    assert one == other
    assert one.row()["budget"] == 0.5
    assert "outcomes" not in one.row()


def test_wishes_that_cannot_be_met_are_refused(tables):
    for wish, said in (
        ({"column": "kin"}, "Did you mean 'kind'"),
        ({"column": "kind", "method": "ridg"}, "Did you mean 'ridge'"),
        ({"column": "kind", "features": "nois"}, "Did you mean 'noise'"),
        ({"column": "kind", "neighbours": 0}, "at least 1"),
    ):
        with pytest.raises(ConfigError, match=said):
            run_probe(*tables, **wish)
    bare = FeatureTable(["a"], {"feature": np.zeros((1, 2), np.float32)})
    with pytest.raises(ConfigError, match="hold no labels: embed a table"):
        run_probe(bare, bare, "kind")
    broken = tables[1].take(range(300))
    broken.features["noise"][5, 1] = np.inf
    with pytest.raises(DataError, match="1 of 300 faces"):
        run_probe(tables[0], broken, "kind")


def test_classes_are_matched_by_name(tables):
    train, test = (table.take(range(len(table))) for table in tables)
    test.labels["kind"] = np.array([2, 0, 1])[test.labels["kind"]]
    test.label_names["kind"] = ("b", "c", "a")
    plain, renamed = (run_probe(train, table, "kind", features="block1.mean") for table in (tables[1], test))
    assert plain.value == renamed.value
    one, other = read_targets(train, test, "kind")
    assert one.names == other.names == ("a", "b", "c")
    test.labels["kind"] = test.labels["kind"].astype(np.float32)
    with pytest.raises(ConfigError, match="a class in training, but a number in the test"):
        run_probe(train, test, "kind")


@pytest.mark.parametrize("column", ["kind", "attributes", "age"])
def test_sgd_stays_stable_where_all_features_say_the_same(tables, column):
    train, test = (table.take(range(len(table))) for table in tables)
    for seed, table in enumerate((train, test)):
        common = np.random.default_rng(seed).normal(size=(len(table), 1))
        wide = np.tile(table.features["block1.mean"], 25) + 5 * common
        table.features["wide"] = wide.astype(np.float32)
    result = run_probe(train, test, column, "sgd", features="wide")
    gain = result.baseline - result.value if column == "age" else result.value - result.baseline
    assert gain > 4


def test_features_that_never_change_do_no_harm(tables):
    train, test = (table.take(range(len(table))) for table in tables)
    for table in (train, test):
        table.features["wide"] = np.concatenate([table.features["block1.mean"], np.ones((len(table), 3))], 1).astype(
            np.float32
        )
    assert run_probe(train, test, "kind", features="wide").value > 90
