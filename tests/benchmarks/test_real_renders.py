"""The benchmark on renders in its short forms, on drawn faces in the renders' layout."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from benchmarks import real_renders
from benchmarks.real_renders import Report, Run
from farl_lightning.testing.benchmarks import write_face_synthetics


@pytest.fixture(scope="module")
def renders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("renders")
    write_face_synthetics(folder, count=10, size=96)
    return folder


@pytest.fixture(scope="module")
def report(renders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return real_renders.fine_tune(renders, folder, real_renders.SHORT), folder


def test_both_tasks_are_measured_from_random_weights(report):
    found, _ = report
    assert found.counts == (8, 2)
    for kind in ("parsing", "alignment"):
        assert math.isfinite(found.score(kind, "random weights"))
    assert "nme_box" in found.runs[-1].metrics


def test_what_is_not_at_hand_is_said(report):
    table = report[0].table()
    assert "quickstart pretraining" in table
    assert table.count("not at hand") == 2


def test_numbers_and_overlays_are_written(report):
    found, folder = report
    written = json.loads((folder / "real_renders.json").read_text())
    assert [run["metrics"] for run in written["runs"]] == [run.metrics for run in found.runs]
    assert written["renders"] == {"train": 8, "test": 2}
    assert {path.name for path in folder.glob("*.png")} == {
        "parsing_random_weights_0.png",
        "alignment_random_weights_0.png",
    }


def test_answers_are_in_pixels_of_the_renders(report):
    runs = {(run.kind, run.start): run for run in report[0].runs}
    assert all(labels.shape == (96, 96) for labels in runs["parsing", "random weights"].answers.values())
    assert all(points.shape == (68, 2) for points in runs["alignment", "without looking"].answers.values())


def test_the_blind_answer_to_landmarks_is_the_mean_shape_in_the_box(renders):
    start = real_renders.starts(None, None)[0][0]
    data = real_renders.open_renders(renders, "alignment", real_renders.SHORT, start)
    run = real_renders.blind("alignment", data)
    record = real_renders.records(data, "test")[0]
    shapes = [real_renders.in_box(known) for known in real_renders.records(data, "train")]
    assert np.min(shapes) >= -1e-6
    assert np.max(shapes) <= 1 + 1e-6
    side = record.box[2] - record.box[0]
    expected = np.mean(shapes, axis=0) * side + record.box[:2]
    np.testing.assert_allclose(run.answers[record.key], expected, atol=1e-3)


def test_the_blind_answer_to_masks_is_each_pixels_most_frequent_label(renders):
    start = real_renders.starts(None, None)[0][0]
    data = real_renders.open_renders(renders, "parsing", real_renders.SHORT, start)
    (answer, *_) = real_renders.blind("parsing", data).answers.values()
    masks = np.stack([record.mask for record in real_renders.records(data, "train")])
    for row, column in ((0, 0), (48, 48), (90, 20)):
        counts = np.bincount(masks[:, row, column])
        assert counts[answer[row, column]] == counts.max()


def test_training_and_test_are_the_same_when_learning_by_heart(renders):
    data = real_renders.MemorizedRenders(str(renders), 3)
    keys = [data.faces(split).keys for split in ("train", "test")]
    assert keys[0] == keys[1] == ["000000", "000001", "000002"]
    assert data.faces("val") is None


def test_the_form_decides_the_settings():
    assert real_renders.choose(False, False) == real_renders.FULL
    assert real_renders.choose(True, False) == real_renders.OVERFIT
    assert real_renders.choose(True, True, steps=3).steps == 3


def test_a_score_is_found_by_task_and_start():
    runs = [Run("parsing", "a", 1.0, {"f1_mean": 50.0}), Run("alignment", "a", 2.0, {"nme": 7.0})]
    found = Report(runs, {"b": "not at hand"}, (1, 1))
    assert found.score("alignment", "a") == 7.0
    assert found.score("alignment", "b") is None
    assert found.table().splitlines()[2].split() == ["a", "50.00", "7.00", "3"]


def test_an_unknown_model_of_timm_is_not_at_hand():
    assert real_renders.timm_at_hand("vit_of_nobody") is None


def test_the_command_says_what_it_found(renders, tmp_path, capsys):
    code = real_renders.main(["--renders", str(renders), "--overfit", "--short", "--output", str(tmp_path)])
    assert code == 0  # a short form is not judged
    assert "F1 of the renders that were trained on" in capsys.readouterr().out
    (run,) = json.loads((tmp_path / "overfit.json").read_text())["runs"]
    assert run["tables"]["per_class"]


def test_without_renders_the_command_says_how_to_give_them(monkeypatch, capsys):
    monkeypatch.setattr(real_renders, "shared_renders", lambda: None)
    with pytest.raises(SystemExit):
        real_renders.main([])
    assert "--renders FOLDER" in capsys.readouterr().err
