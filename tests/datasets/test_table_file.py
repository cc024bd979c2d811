"""The same table in every format; rows that cannot be understood are named by their place."""

from __future__ import annotations

import json

import pytest

from farl_lightning.datasets.table_file import read_table
from farl_lightning.errors import ConfigError, DataError, DatasetNotFoundError

ROWS = [{"file": "a.jpg", "age": 31, "who": "Ann"}, {"file": "b/c.jpg", "age": 40.5, "who": None}]
COLUMNS = {"file": ["a.jpg", "b/c.jpg"], "age": ["31", "40.5"], "who": ["Ann", ""]}


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", 'file,age,who\na.jpg,31,"Ann"\n\nb/c.jpg, 40.5 ,\n'),
        ("t.csv", "\ufefffile;age;who\r\na.jpg;31;Ann\r\nb/c.jpg;40.5;\r\n"),
        ("t.TSV", "file\tage\twho\na.jpg\t31\tAnn\nb/c.jpg\t40.5\t\n"),
        ("t.txt", "file\tage\twho\na.jpg\t31\tAnn\nb/c.jpg\t40.5\t\n"),
        ("t.json", json.dumps(ROWS)),
        ("t.json", json.dumps({"file": ["a.jpg", "b/c.jpg"], "age": [31, 40.5], "who": ["Ann", ""]})),
        ("t.jsonl", "\n".join(map(json.dumps, ROWS)) + "\n\n"),
        ("t.ndjson", "\n".join(map(json.dumps, ROWS))),
    ],
)
def test_every_format_says_the_same(tmp_path, name, text):
    table = read_table(write(tmp_path / name, text))
    assert {key: [word or "" for word in column] for key, column in table.columns.items()} == COLUMNS
    assert not table.problems
    assert len(table) == 2


def test_parquet_says_the_same(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(
        arrow.table({"file": ["a.jpg", "b/c.jpg"], "age": [31, 40.5], "who": ["Ann", None]}), tmp_path / "t.parquet"
    )
    table = read_table(tmp_path / "t.parquet")
    assert table.columns == {"file": ["a.jpg", "b/c.jpg"], "age": ["31.0", "40.5"], "who": ["Ann", None]}
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match=r"broken.parquet' cannot be read"):
        read_table(tmp_path / "broken.parquet")


def test_words_separated_by_spaces(tmp_path):
    table = read_table(write(tmp_path / "t.txt", "file age\na.jpg   31\nb.jpg\n"))
    assert table.columns == {"file": ["a.jpg", None], "age": ["31", None]}
    assert table.problems == {1: "line 3: 1 values instead of 2"}


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("t.csv", "file,age\na.jpg,3\nb.jpg,4,5\nc.jpg,6\n", "line 3: 3 values instead of 2"),
        ("t.jsonl", '{"file": "a.jpg"}\n{"file": \n{"file": "c.jpg"}\n', "line 2: not JSON: "),
        ("t.jsonl", '{"file": "a.jpg"}\n[1]\n{"file": "c.jpg"}\n', "line 2: no object but list"),
        ("t.json", '[{"file": "a.jpg"}, 3, {"file": "c.jpg"}]', "entry 2: no object but int"),
        (
            "t.json",
            '[{"file": "a.jpg"}, {"file": ["b.jpg"]}, {"file": "c.jpg"}]',
            "entry 2: column 'file' holds a list",
        ),
    ],
)
def test_a_broken_row_costs_itself_alone(tmp_path, name, text, problem):
    table = read_table(write(tmp_path / name, text))
    assert table.columns["file"] == ["a.jpg", None, "c.jpg"]
    assert list(table.problems) == [1]
    assert table.problems[1].startswith(problem)


def test_nested_objects_become_columns_and_late_columns_are_filled(tmp_path):
    rows = [{"file": "a.jpg"}, {"file": "b.jpg", "attributes": {"Smiling": True, "Hat": 0}}]
    table = read_table(write(tmp_path / "t.json", json.dumps(rows)))
    assert table.columns == {
        "file": ["a.jpg", "b.jpg"],
        "attributes.Smiling": [None, "True"],
        "attributes.Hat": [None, "0"],
    }


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("t.xlsx", "", ConfigError, "ends in none of: .csv, .json, .jsonl"),
        ("t.csv", "", DataError, "holds nothing: it has no rows"),
        ("t.csv", "file,file\na,b\n", DataError, "two columns have the same name"),
        ("t.csv", "file,age\na.jpg\n", DataError, "holds nothing: line 2: 1 values instead of 2"),
        ("t.json", "3", DataError, "neither a list of objects nor an object of columns"),
        ("t.json", '{"a": [1], "b": [1, 2]}', DataError, "its columns differ in length"),
        ("t.json", "[" * 100_000, DataError, "cannot be read"),
    ],
)
def test_what_is_no_table_says_so(tmp_path, name, text, error, message):
    with pytest.raises(error, match=message):
        read_table(write(tmp_path / name, text))


def test_other_bytes_and_missing_files(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"file,name\na.jpg,J\xf6rg\n")
    with pytest.raises(DataError, match="can't decode byte 0xf6"):
        read_table(tmp_path / "t.csv")
    with pytest.raises(DatasetNotFoundError, match=r"none.csv' does not exist"):
        read_table(tmp_path / "none.csv")
