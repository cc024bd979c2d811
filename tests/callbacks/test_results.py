"""results.json and the final table."""

from __future__ import annotations

import json
import math

from farl_lightning.callbacks import ResultsWriter
from farl_lightning.callbacks.results import merge_section, table, with_reference
from tests.tasks import tiny


def test_reference_gives_the_difference():
    entry = with_reference(0.75, {"baseline": 0.5, "kind": "majority", "low": 0.125, "high": 0.375})
    assert entry == {
        "value": 0.75,
        "baseline": 0.5,
        "kind": "majority",
        "difference": 0.25,
        "low": 0.125,
        "high": 0.375,
    }
    assert with_reference(math.nan, {}) == {"value": None}


def test_table_shows_what_counts_in_natural_order():
    text = table(
        {
            "val/image_to_text_r10": with_reference(0.5, {"baseline": 0.04, "kind": "chance"}),
            "val/image_to_text_r5": with_reference(0.25, {}),
            "val/mim_majority": with_reference(0.1, {}),
            "val/zero_shot_Male": with_reference(0.9, {"baseline": 0.6, "kind": "majority", "low": 0.2, "high": 0.4}),
            "val/nothing": with_reference(math.nan, {}),
            "train/loss": with_reference(1.0, {}),
            "lr-AdamW/base": with_reference(1.0, {}),
        }
    )
    rows = [line.split() for line in text.splitlines()]
    assert [row[0] for row in rows[2:]] == [
        "val/image_to_text_r5",
        "val/image_to_text_r10",
        "val/nothing",
        "val/zero_shot_Male",
    ]
    assert rows[3] == ["val/image_to_text_r10", "0.5000", "0.0400", "chance", "+0.4600"]
    assert rows[4] == ["val/nothing", "n/a"]
    assert rows[5][2:] == ["0.6000", "majority", "+0.3000", "+0.2000", "..", "+0.4000"]
    assert table({}) == "no validation or test metrics were logged"


def test_columns_without_an_entry_are_left_out():
    lines = table({"test/nme": with_reference(4.0, {}), "test/auc": with_reference(50.0, {})}).splitlines()
    assert lines[0].split() == ["metric", "value"]
    assert [line.split() for line in lines[2:]] == [["test/auc", "50.0000"], ["test/nme", "4.0000"]]


def test_sections_of_other_stages_stay(tmp_path):
    path = tmp_path / "deep" / "results.json"
    merge_section(path, "fit", {"steps": 1})
    merge_section(path, "test", {"steps": 2})
    merge_section(path, "fit", {"steps": 3})
    assert json.loads(path.read_text()) == {"fit": {"steps": 3}, "test": {"steps": 2}}
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


def test_run_writes_file_and_table(tmp_path, capsys):
    writer = ResultsWriter()
    run = tiny.trainer(tmp_path, callbacks=[writer], enable_checkpointing=True)
    task = tiny.task()
    run.fit(task, datamodule=tiny.TinyData())
    run.test(task, datamodule=tiny.TinyData(), verbose=False)
    content = json.loads((tmp_path / "results.json").read_text())
    assert set(content) == {"fit", "test"}
    fit = content["fit"]
    recall = fit["metrics"]["val/image_to_text_r1"]
    assert recall["baseline"] == 0.125
    assert recall["kind"] == "chance"
    assert recall["difference"] == recall["value"] - 0.125
    assert set(fit["metrics"]["val/zero_shot_Smiling"]) == {"value", "baseline", "kind", "low", "high", "difference"}
    assert fit["steps"] == 2
    assert fit["settings"]["model"]["objectives"]["contrastive"]["init_args"]["form"] == "clip"
    assert fit["settings"]["model"]["_class_path"].endswith("PretrainTask")
    assert fit["checkpoint"].endswith(".ckpt")
    assert fit["seconds"] > 0
    assert fit["versions"]["torch"]
    assert "test/image_to_text_r1" in content["test"]["metrics"]
    out = capsys.readouterr().out
    assert "val/mim_accuracy" in out
    assert str(tmp_path / "results.json") in out


def test_a_trial_prints_and_keeps_nothing(tmp_path, capsys):
    run = tiny.trainer(tmp_path, callbacks=[ResultsWriter()], fast_dev_run=True)
    run.fit(tiny.task(), datamodule=tiny.TinyData())
    out = capsys.readouterr().out
    assert "val/mim_accuracy" in out
    assert "a trial (fast_dev_run): these numbers are not kept" in out
    assert "results.json" not in out
    assert not list(tmp_path.iterdir())


def test_time_of_a_resumed_run_adds_up():
    writer = ResultsWriter()
    writer._began -= 100  # as if it had started earlier
    saved = writer.state_dict()
    again = ResultsWriter()
    again.load_state_dict(saved)
    assert again._seconds() > saved["seconds"]
