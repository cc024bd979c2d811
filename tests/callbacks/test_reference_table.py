"""Published numbers beside one's own, and CSV files."""

from __future__ import annotations

import csv
import json
import math

from farl_lightning.callbacks import ResultsWriter
from farl_lightning.callbacks.reference_table import reference_table, write_csv
from farl_lightning.objectives import Contrastive
from tests.tasks import tiny

REFERENCES = {
    "test/f1_mean": {"paper": 93.88, "selection": "best test epoch", "mark": "confirmed"},
    "test/nme": {"paper": 0.943, "mark": "recalled"},
    "test/auc": {"paper": 81.3, "selection": "last epoch"},
    "test/fr": {"paper": 2},
    "test/accuracy": {"baseline": 0.5, "kind": "chance"},
}


def test_decimals_are_those_of_the_paper_and_nothing_is_left_out():
    text = reference_table({"test/f1_mean": 94.1249, "test/nme": 0.95, "test/fr": math.nan}, REFERENCES)
    rows = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]
    assert rows[0] == ["metric", "FaRL paper", "how it was selected", "yours", "difference"]
    assert rows[2:] == [
        ["test/f1_mean", "93.88", "best test epoch", "94.12", "+0.24"],
        ["test/nme", "0.943", "not stated (recalled, not confirmed)", "0.950", "+0.007"],
        ["test/auc", "81.3", "last epoch", "not measured"],
        ["test/fr", "2", "not stated", "n/a"],
    ]
    assert reference_table({"test/accuracy": 1.0}, {"test/accuracy": {"baseline": 0.5}}) == ""


def test_csv_has_all_columns_and_empty_cells(tmp_path):
    path = tmp_path / "deep" / "table.csv"
    write_csv(path, [{"class": "hair, long", "f1": 0.5}, {"class": "hat", "f1": math.nan, "pixels": 3}])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"class": "hair, long", "f1": "0.5", "pixels": ""},
        {"class": "hat", "f1": "", "pixels": "3"},
    ]


def test_a_run_prints_and_keeps_both(tmp_path, capsys):
    task = tiny.task({"contrastive": Contrastive()})
    task.references = {"test/loss": {"paper": 0.25, "selection": "guessed", "mark": "recalled"}}
    task.tables = {"per_class": [{"class": "hair", "f1": 50.0}]}
    run = tiny.trainer(tmp_path, callbacks=[ResultsWriter()])
    run.test(task, datamodule=tiny.TinyData(), verbose=False)
    entry = json.loads((tmp_path / "results.json").read_text())["test"]["metrics"]["test/loss"]
    assert entry["paper"] == 0.25
    assert entry["selection"] == "guessed"
    assert entry["difference_to_paper"] == entry["value"] - 0.25
    assert (tmp_path / "test_per_class.csv").read_text().splitlines() == ["class,f1", "hair,50.0"]
    out = capsys.readouterr().out
    assert "FaRL paper" in out
    assert "guessed (recalled, not confirmed)" in out
    assert f"per class   {tmp_path / 'test_per_class.csv'}" in out
