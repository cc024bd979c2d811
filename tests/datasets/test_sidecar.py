from __future__ import annotations

import json

import numpy as np
import pytest

from farl_lightning.datasets.sidecar import POINT_COLUMNS, read_sidecar
from farl_lightning.errors import DataError, DatasetNotFoundError

POINTS = [[1, 2], [3, 4], [5, 6], [7, 8], [9.5, 10]]


def _write(path, text):
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


def test_json_gives_boxes_and_points(tmp_path):
    content = {
        "a.jpg": [{"box": [1, 2, 3, 4]}, {"points": POINTS, "score": 0.5}],
        "sub/b.jpg": {"box": [0, 0, 9, 9], "points": POINTS},
        "nobody.jpg": [],
    }
    faces = read_sidecar(_write(tmp_path / "faces.json", content))
    assert list(faces) == ["a.jpg", "sub/b.jpg", "nobody.jpg"]
    assert faces["a.jpg"][0].box == (1, 2, 3, 4)
    assert faces["a.jpg"][0].points is None
    assert faces["a.jpg"][1].score == 0.5
    np.testing.assert_array_equal(faces["sub/b.jpg"][0].points, np.float32(POINTS))
    assert faces["nobody.jpg"] == []


def test_csv_gives_the_same(tmp_path):
    text = f"file,left,top,right,bottom,{','.join(POINT_COLUMNS)}\n"
    text += "a.jpg,1,2,3,4" + "," * 10 + "\n"
    text += "a.jpg,,,,," + ",".join(str(number) for point in POINTS for number in point) + "\n"
    faces = read_sidecar(_write(tmp_path / "faces.csv", text))["a.jpg"]
    assert (faces[0].box, faces[0].points) == ((1, 2, 3, 4), None)
    assert faces[1].box is None
    np.testing.assert_array_equal(faces[1].points, np.float32(POINTS))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("f.json", "{", r"f\.json' is not valid JSON"),
        ("f.json", "[1]", r"holds a list, not an object by file names\. JSON: "),
        ("f.json", {"a.jpg": 3}, r"f\.json, 'a\.jpg': expected a list of faces"),
        ("f.json", {"a.jpg": [{}]}, r"'a\.jpg', face 0: a face has neither box nor points"),
        ("f.json", {"a.jpg": [{"box": [1, 2, 3]}]}, r"a box is left, top, right, bottom, got \[1, 2, 3\]"),
        ("f.json", {"a.jpg": [{"box": [3, 2, 1, 4]}]}, r"with left < right and top < bottom, got \[3\.0, 2\.0, 1\.0"),
        ("f.json", {"a.jpg": [{"points": POINTS[:4]}]}, r"points are five pairs x, y .* of shape \(4, 2\)"),
        ("f.json", {"a.jpg": [{"points": [[1, 2], [3]]}]}, r"points are five pairs"),
        ("f.json", '{"a.jpg": [{"box": [1, 2, 3, NaN]}]}', "all finite"),
        ("f.csv", "name,left\n", r"the header of .*f\.csv' is left, name\. JSON"),
        ("f.csv", "file,left,top,right,bottom\na.jpg,1,2,x,4\n", r"f\.csv, line 2: a box is .*'x'"),
        ("f.csv", "", "missing"),
        ("f.txt", "", "neither .json nor .csv"),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path, name, text, message):
    with pytest.raises(DataError, match=message):
        read_sidecar(_write(tmp_path / name, text))


def test_a_missing_file_shows_what_it_would_look_like(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r'no\.json.* does not exist\. JSON: {"photo\.jpg"'):
        read_sidecar(tmp_path / "no.json")
