"""Lists of pairs in every layout say what was drawn: who, with whom, same or not, in which fold."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from farl_lightning.datasets.pairs import identity_faces, open_pairs, tenths
from farl_lightning.errors import ConfigError, DataError, DatasetNotFoundError
from farl_lightning.testing.benchmarks import pairs as fakes
from tests.shared import SHARED, needs_shared

LAYOUTS = {
    "lfw": (fakes.write_lfw, "", "pairs.txt"),
    "cfp": (fakes.write_cfp, "", "Protocol/Pair_list_P.txt"),
    "calfw": (fakes.write_calfw, "", "pairs_CALFW.txt"),
    "bin": (fakes.write_pairs_bin, "agedb_30.bin", "agedb_30.bin"),
}


def same_picture(record, face) -> bool:
    return np.abs(record.image.astype(int) - face.image).mean() < 4


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pairs_are_those_that_were_drawn(tmp_path, layout):
    write, name, _ = LAYOUTS[layout]
    drawn = write(tmp_path / name, each=2)
    faces = open_pairs(tmp_path / name)
    pairs = faces.pairs
    assert len(pairs) == len(drawn) == 40
    assert pairs.same.tolist() == [pair.same for pair in drawn]
    assert pairs.folds.tolist() == [pair.fold for pair in drawn]
    for number in range(0, 40, 3):
        assert same_picture(faces[pairs.first[number]], drawn[number].first)
        assert same_picture(faces[pairs.second[number]], drawn[number].second)
    assert [faces.rows[key] for key in faces.keys] == list(range(len(faces)))
    unique = {face.key for pair in drawn for face in (pair.first, pair.second)}
    assert len(faces) == (80 if layout == "cfp" else len(unique))  # CFP writes every pair's pictures by themselves
    assert len(unique) < 80
    assert faces.verify() == []


def test_a_missing_picture_is_told(tmp_path):
    fakes.write_lfw(tmp_path)
    (tmp_path / "lfw" / "Person_0" / "Person_0_0001.jpg").unlink()
    (finding,) = open_pairs(tmp_path).verify()
    assert finding.startswith("lfw/Person_0/Person_0_0001.jpg: ")


def test_folds_that_do_not_come_out_even():
    assert np.bincount(tenths(23)).tolist() == [3, 3, 3, 2, 2, 2, 2, 2, 2, 2]
    assert (np.diff(tenths(23)) >= 0).all()


def table(path, rows, header="first,second,same"):
    path.write_text("\n".join([header, *rows]), encoding="utf-8")
    return path


@needs_shared
def test_real_portraits_of_the_same_man(tmp_path):
    for file in (SHARED / "real" / "portraits").glob("*.jpg"):
        shutil.copy(file, tmp_path)
    rows = ["obama.jpg,obama2.jpg,yes", "obama2.jpg,obama3.jpg,1", "biden.jpg,obama.jpg,0"]
    found = open_pairs(table(tmp_path / "p.csv", rows))
    assert found.keys == ["obama.jpg", "obama2.jpg", "obama3.jpg", "biden.jpg"]
    assert found.pairs.same.tolist() == [True, True, False]
    assert all(min(record.image.shape[:2]) > 100 for record in found)


def test_ones_own_table(tmp_path):
    faces = fakes.write_identities(tmp_path, people=2, pictures=2)
    rows = ["000000/0.jpg,000000/1.jpg,yes,2", "000000/1.jpg,000001/0.jpg,0,10"]
    path = table(tmp_path / "p.csv", rows, "first,second,same,fold")
    found = open_pairs(path)
    assert found.pairs.first.tolist() == [0, 1]
    assert found.pairs.second.tolist() == [1, 2]
    assert found.pairs.same.tolist() == [True, False]
    assert found.pairs.folds.tolist() == [1, 9]
    assert same_picture(found[2], faces[2])
    assert open_pairs(table(tmp_path / "q.csv", ["a,b,1", "a,c,0"])).pairs.folds.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a,b,1", "a,c"], "line 3: 2 values instead of 3; pairs left out would change the result"),
        (["a,b,1", "a,,0"], "line 3: needs two files"),
        (["a,b,1", "a,c,perhaps"], "line 3: needs two files, same"),
        (["a,b,1", "a,c,1"], "are all of the same person"),
        (["a,b,0", "a,c,0"], "are none of the same person"),
    ],
)
def test_tables_that_cannot_judge(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        open_pairs(table(tmp_path / "p.csv", rows))


@pytest.mark.parametrize(
    ("layout", "old", "new", "message"),
    [
        ("lfw", "10\t1", "10\t2", "has 20 pairs instead of 40"),
        ("lfw", "10\t1", "ten", "instead of the numbers of sets and pairs"),
        ("lfw", "Person_0\t1\t2", "Person_0\t1", "is neither 'name n m' nor 'name n name m'"),
        ("cfp", "3 ../", "33 ../", "names no pair of the lists"),
        ("cfp", "3 ../", "3../", "is no number and picture"),
        ("calfw", "Person_0_0001.jpg 1", "Person_0_0001.jpg", "two lines 'picture number' for every pair"),
    ],
)
def test_broken_lists_say_where(tmp_path, layout, old, new, message):
    write, name, listed = LAYOUTS[layout]
    write(tmp_path / name)
    path = tmp_path / listed
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        open_pairs(tmp_path / name)


def test_nothing_there(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"holds no pairs: .* has none of pairs.txt, Protocol"):
        open_pairs(tmp_path)


def test_a_folder_of_people(tmp_path):
    faces = fakes.write_identities(tmp_path, people=3, pictures=2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "000001" / "notes.txt").write_text("no picture")
    found = identity_faces(tmp_path)
    assert found.spec.label_names == {"identity": ("000000", "000001", "000002")}
    assert [record.labels["identity"] for record in found] == [0, 0, 1, 1, 2, 2]
    assert all(same_picture(record, face) for record, face in zip(found, faces, strict=True))
    with pytest.raises(ConfigError, match="has 0 subfolders with pictures"):
        identity_faces(tmp_path / "000001")
    with pytest.raises(DatasetNotFoundError, match="does not exist"):
        identity_faces(tmp_path / "none")
