"""Predictions as files: what they hold, what is left out, what survives."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from farl_lightning.callbacks import PredictionWriter
from farl_lightning.callbacks.face_files import file_stem, save_labels, save_pts
from farl_lightning.callbacks.prediction_writer import found_faces, read_rows
from farl_lightning.errors import ConfigError, DataError
from farl_lightning.text import natural
from tests.tasks import faces, tiny


class Photos(faces.FaceData):
    """Predicts from batches like those of photographs: with pictures, places and what was dropped."""

    def predict_dataloader(self):
        batches = []
        for start in (0, 4):
            items = [faces.Faces(7, 1)[index] for index in range(start, min(start + 4, 7))]
            batch = faces.collate(items)
            batch["key"] = [f"trip/{10 - start}.jpg#{index}" for index in range(len(items))]
            batch["path"] = [f"photos/trip/{10 - start}.jpg"] * len(items)
            batch["score"] = torch.full((len(items),), 0.875)
            batch["source_image"] = [np.full((*item["source_mask"].shape, 3), 100, dtype=np.uint8) for item in items]
            batch["dropped"] = [{"key": f"bad{start}.jpg", "reason": "not_an_image", "detail": "no header"}]
            batches.append(batch)
        return DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)


def predict(folder, task, **settings):
    run = tiny.trainer(folder, callbacks=[PredictionWriter(**settings)])
    batches = run.predict(task, datamodule=Photos())
    rows = list(csv.DictReader((folder / "predictions" / "faces.csv").open(newline="")))
    return [face for batch in batches for face in batch.get("labels", batch.get("landmarks"))], rows


def test_masks_are_indexed_and_coloured(tmp_path, capsys):
    labels, rows = predict(tmp_path, faces.parser())
    assert [row["key"] for row in rows] == [
        "bad0.jpg", "bad4.jpg", "trip/6.jpg#0", "trip/6.jpg#1", *(f"trip/10.jpg#{index}" for index in range(4)),
    ]  # fmt: skip
    assert rows[0]["problem"] == "not_an_image: no header"
    by_key = {row["key"]: row for row in rows}
    row = by_key["trip/10.jpg#1"]
    assert (row["photo"], row["score"], row["problem"]) == ("photos/trip/10.jpg", "0.875", "")
    assert (row["height"], row["width"], row["left"]) == ("43", "50", "7.0")
    with Image.open(tmp_path / "predictions" / row["mask"]) as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), labels[1].numpy())
        assert picture.getpalette()[:3] == [0, 0, 0]
        assert picture.getpalette()[3:6] == [244, 190, 154]  # skin
    counts = [int(row[f"pixels_{name}"]) for name in faces.SPEC.classes]
    assert counts == np.bincount(labels[1].numpy().ravel(), minlength=5).tolist()
    with Image.open(tmp_path / "predictions" / row["overlay"]) as overlay:
        assert overlay.size == (50, 43)
    out = capsys.readouterr().out
    assert "6 faces, listed in" in out
    assert "left out     2: bad0.jpg (not_an_image: no header)" in out
    assert not list((tmp_path / "predictions").glob("*.part-*"))


def test_landmarks_in_both_countings(tmp_path):
    points, rows = predict(tmp_path, faces.aligner())
    row = next(row for row in rows if row["key"] == "trip/10.jpg#2")
    content = json.loads((tmp_path / "predictions" / row["landmarks"]).read_text())
    assert content["key"] == "trip/10.jpg#2"
    np.testing.assert_allclose(content["points"], points[2].numpy(), atol=1e-3)
    assert len(content["confidence"]) == 19
    lines = (tmp_path / "predictions" / row["pts"]).read_text().splitlines()
    assert lines[:3] == ["version: 1", "n_points: 19", "{"]
    assert lines[-1] == "}"
    read = np.array([[float(number) for number in line.split()] for line in lines[3:-1]])
    np.testing.assert_allclose(read, points[2].numpy() + 1, atol=1e-3)
    assert 0 < float(row["confidence"]) < 1
    assert "mask" not in row


def test_only_what_is_wanted(tmp_path):
    predict(tmp_path, faces.parser(), masks=False)
    assert {path.name for path in (tmp_path / "predictions").iterdir()} - {"faces.parquet"} == {"faces.csv", "overlays"}
    with pytest.raises(ConfigError, match="would write nothing"):
        PredictionWriter(masks=False, overlays=False, landmarks=False)


def test_parquet_holds_numbers(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    predict(tmp_path, faces.parser(), parquet=True)
    table = parquet.read_table(tmp_path / "predictions" / "faces.parquet").to_pydict()
    assert table["score"][-1] == 0.875
    assert table["key"][-1] == "trip/10.jpg#3"
    assert table["score"][0] is None


def test_a_file_that_cannot_be_written_costs_no_run(tmp_path):
    blocked = tmp_path / "predictions" / "masks"
    blocked.parent.mkdir()
    blocked.write_text("a file where a folder should be")
    _, rows = predict(tmp_path, faces.parser())
    problems = [row["problem"] for row in rows if row["key"].startswith("trip")]
    assert len(problems) == 6
    assert all(problem.startswith("not_written: ") for problem in problems)


def test_a_trial_leaves_nothing(tmp_path, capsys):
    run = tiny.trainer(tmp_path, callbacks=[PredictionWriter()], fast_dev_run=True)
    run.predict(faces.parser(), datamodule=Photos())
    assert not (tmp_path / "predictions").exists()
    assert "a trial (fast_dev_run): nothing was written" in capsys.readouterr().out


def test_data_without_pictures_have_no_overlays(tmp_path):
    run = tiny.trainer(tmp_path, callbacks=[PredictionWriter()])
    run.predict(faces.parser(), datamodule=faces.FaceData())
    assert not (tmp_path / "predictions" / "overlays").exists()
    assert len(list((tmp_path / "predictions" / "masks").iterdir())) == 6


def test_names_never_lead_out_of_the_folder():
    assert file_stem("../../etc/passwd").as_posix() == "etc/passwd"
    assert file_stem("/a/./b.png#12").as_posix() == "a/b.png.face12"
    assert file_stem("..\\up\\c:d?.jpg").as_posix() == "up/c_d_.jpg"
    assert file_stem("..").as_posix() == "face"


def test_order_and_missing_parts(tmp_path):
    assert sorted(["a#10", "a#2", "b", "a"], key=natural) == ["a", "a#2", "a#10", "b"]
    with pytest.raises(DataError, match="part of another process"):
        read_rows(tmp_path / "faces.part-00001.csv")


def test_files_alone(tmp_path):
    save_pts(np.array([[0.0, 0.0], [2.5, -1.0]]), tmp_path / "x.pts")
    assert (tmp_path / "x.pts").read_text() == "version: 1\nn_points: 2\n{\n1.000 1.000\n3.500 0.000\n}\n"
    labels = np.array([[0, 255], [1, 0]], dtype=np.uint8)
    save_labels(labels, tmp_path / "x.png", [(0, 0, 0), (9, 8, 7)])
    with Image.open(tmp_path / "x.png") as picture:
        assert np.array_equal(np.asarray(picture), labels)
        assert picture.convert("RGB").getpixel((0, 1)) == (9, 8, 7)


def test_answers_for_whole_faces_are_columns():
    answers = {"age": torch.tensor([31.25, 9.0]), "Smiling": torch.tensor([0.75, 0.123456])}
    found = list(found_faces({"key": ["a", "b"], "answers": answers, "valid": torch.tensor([False, True])}, {}))
    assert [(face.key, face.facts) for face in found] == [("b", {"age": 9.0, "Smiling": 0.1235})]
