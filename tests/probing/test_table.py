from __future__ import annotations

import numpy as np
import pytest

from farl_lightning.errors import ConfigError, DataError, DatasetNotFoundError
from farl_lightning.probing import FeatureTable, read_features, write_features
from farl_lightning.probing.table import concatenate, words_to_labels
from tests.probing.faces import make_table


def same(one: FeatureTable, other: FeatureTable) -> None:
    assert one.keys == other.keys
    assert one.groups == other.groups
    assert one.label_names == other.label_names
    assert one.attributes == other.attributes
    assert list(one.features) == list(other.features)
    assert list(one.labels) == list(other.labels)
    for name, feature in one.features.items():
        np.testing.assert_array_equal(feature, other.features[name])
        assert other.features[name].dtype == np.float32
    for name, column in one.labels.items():
        np.testing.assert_array_equal(column, other.labels[name])


@pytest.mark.parametrize("ending", [".parquet", ".npz"])
def test_a_file_gives_back_what_was_written(tmp_path, ending):
    table = make_table(11)
    table.labels["age"][3] = np.nan
    table.labels["attributes"][2, 1] = -1
    path = tmp_path / "deep" / f"faces{ending}"
    table.write(path)
    same(table, read_features(path))


@pytest.mark.parametrize("ending", [".parquet", ".npz"])
def test_parts_become_one_table(tmp_path, ending):
    table = make_table(10)
    path = tmp_path / f"faces{ending}"
    assert write_features(path, (table.take(range(a, a + 5)) for a in (0, 5))) == 10
    same(table, read_features(path))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_parts_that_differ_leave_no_file(tmp_path):
    one, other = make_table(4), make_table(4, width=5)
    other.label_names["kind"] = ("x", "y", "z")
    with pytest.raises(DataError, match="differ in their columns"):
        write_features(tmp_path / "faces.parquet", [one, other])
    with pytest.raises(DataError, match="no face at all"):
        write_features(tmp_path / "faces.npz", [])
    assert not list(tmp_path.iterdir())


def test_the_features_of_predict_are_read(tmp_path):
    features = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.savez(tmp_path / "features.npz", key=np.array(["a", "b", "c"]), image_features=features)
    table = read_features(tmp_path / "features.npz")
    assert table.keys == ["a", "b", "c"]
    np.testing.assert_array_equal(table.features["feature"], features)


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"'.csv'; features are kept in .parquet or .npz"):
        read_features(tmp_path / "faces.csv")
    with pytest.raises(DatasetNotFoundError, match="farl-lightning embed"):
        read_features(tmp_path / "faces.parquet")
    (tmp_path / "faces.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="cannot be read"):
        read_features(tmp_path / "faces.parquet")
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(DataError, match="holds weights"):
        read_features(tmp_path / "other.npz")
    np.savez(tmp_path / "pickle.npz", key=np.array([{}], dtype=object), image_features=np.zeros((1, 2)))
    with pytest.raises(DataError, match="cannot be read"):
        read_features(tmp_path / "pickle.npz")


def test_parquet_of_others_is_refused(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"key": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="holds no features"):
        read_features(tmp_path / "other.parquet")


def test_rows_splits_and_groups():
    table = make_table(6)
    assert table.take([4, 1]).keys == ["0-4", "0-1"]
    assert table.split("train").keys == ["0-1", "0-3", "0-5"]
    assert table.group("kind") == [("a", "b", "c")[k] for k in table.labels["kind"]]
    table.labels["attributes"][:, 0] = [1, 0, -1, 1, 1, 0]
    assert table.group("smiling") == ["smiling", "not smiling", "", "smiling", "smiling", "not smiling"]
    with pytest.raises(ConfigError, match="Did you mean 'train'"):
        table.split("trian")
    with pytest.raises(ConfigError, match="Did you mean 'light'"):
        table.group("ligth")
    with pytest.raises(ConfigError, match="which split"):
        FeatureTable(["a"], {}).split("train")


def test_features_are_chosen_by_name():
    table = make_table(3)
    assert table.default_feature == "noise"
    assert table.matrix().shape == (3, 4)
    assert table.matrix(["block1.mean", "noise"]).shape == (3, 12)
    table.features["feature"] = np.zeros((3, 2), np.float32)
    table.features["zuletzt"] = np.zeros((3, 5), np.float32)
    assert table.matrix().shape == (3, 2)
    with pytest.raises(ConfigError, match=r"Did you mean 'block1.mean'"):
        table.matrix("block1.maen")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"features": {"f": np.zeros((2, 2), np.float32)}}, "column 'f' has 2 rows, but there are 3 keys"),
        ({"features": {"f": np.zeros(3, np.float32)}}, r"'f' has shape \(3,\)"),
        ({"labels": {"kind": np.array([0, 1, 3])}}, "class 3, but 3 names"),
        ({"labels": {"attributes": np.zeros((3, 2), np.int8)}}, "there are 1 names"),
    ],
)
def test_what_does_not_fit_together_is_refused(change, said):
    given = {"features": {}, "labels": {}, **change}
    with pytest.raises(DataError, match=said):
        FeatureTable(["x", "y", "z"], label_names={"kind": ("a", "b", "c")}, attributes=("smiling",), **given)


def test_words_become_numbers_or_classes():
    table = words_to_labels({"age": ["3", None, "4.5"], "light": ["dim", "", "bright"]})
    np.testing.assert_array_equal(table.labels["age"], np.array([3, np.nan, 4.5], np.float32))
    assert table.label_names == {"age": (), "light": ("bright", "dim")}
    assert table.labels["light"].tolist() == [1, -1, 0]


def test_tables_with_other_columns_do_not_join():
    assert len(concatenate([make_table(2), make_table(3)])) == 5
    with pytest.raises(DataError, match="differ in their columns"):
        concatenate([make_table(2), make_table(3, width=5)])
