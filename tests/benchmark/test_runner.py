"""What is measured, what is kept, what is tried again."""

from __future__ import annotations

import json

import pytest

from farl_lightning.benchmark import run_benchmark
from farl_lightning.benchmark.runner import pretrainings_of, records_of
from farl_lightning.errors import ConfigError, DataError
from tests.benchmark.fakes import FakeWorker, make


def run(benchmark, worker):
    lines: list[str] = []
    return run_benchmark(benchmark, worker, lines.append), lines


def test_all_cells_are_measured_and_kept(tmp_path):
    benchmark, worker = make(tmp_path), FakeWorker()
    failed, lines = run(benchmark, worker)
    assert failed == 0
    assert worker.pretrained == ["good"]  # once, and nothing for random weights
    assert len(worker.measured) == 16
    records = records_of(benchmark, worker)
    record = records["parsing.good.frozen.10pct.seed1"]
    assert record.value == 1 + 1 + 3
    assert record.metrics == {"test/f1": 5.0}  # what is not finite is left out
    assert record.details["cell"] == {
        "encoder": "good",
        "task": "parsing",
        "method": "frozen",
        "labels": 0.1,
        "seed": 1,
    }
    assert record.details["steps"] == 5
    assert pretrainings_of(benchmark, worker)["good"].details["steps"] == 7
    assert "[16/16] age, plain, knn, 100 %, seed 1: 11.00" in lines[-1]


def test_what_is_there_is_not_measured_again(tmp_path):
    worker = FakeWorker()
    run(make(tmp_path, seeds=[0]), worker)
    assert len(worker.measured) == 8
    _, lines = run(make(tmp_path), worker)
    assert len(worker.measured) == 16
    assert worker.pretrained == ["good"]
    assert lines[0] == "8 of 16 cells are there already"
    assert run(make(tmp_path), worker) == (0, ["16 of 16 cells are there already"])


def test_other_settings_are_another_result(tmp_path):
    benchmark, worker = make(tmp_path, seeds=[0]), FakeWorker()
    run(benchmark, worker)
    worker.revision = 1
    assert records_of(benchmark, worker) == {}
    run(benchmark, worker)
    assert len(worker.measured) == 16
    assert worker.pretrained == ["good", "good"]


def test_a_failed_cell_is_written_down_and_the_rest_goes_on(tmp_path):
    benchmark, worker = make(tmp_path), FakeWorker()
    key = "age.plain.knn.10pct.seed0"
    worker.fails[key] = DataError("no faces\nat all")
    worker.fails["parsing.plain.frozen.10pct.seed1"] = ValueError("odd")
    failed, lines = run(benchmark, worker)
    assert failed == 2
    assert len(worker.measured) == 16
    records = records_of(benchmark, worker)
    assert (records[key].state, records[key].value, records[key].reason) == ("failed", None, "no faces at all")
    assert records["parsing.plain.frozen.10pct.seed1"].reason == "ValueError: odd"
    assert "Traceback" in (tmp_path / "cells" / key / "log.txt").read_text()
    assert any("failed: no faces at all" in line for line in lines)
    del worker.fails[key]
    failed, _ = run(benchmark, worker)
    assert failed == 1
    assert worker.measured[16:] == [key, "parsing.plain.frozen.10pct.seed1"]  # failed ones alone are tried again
    assert records_of(benchmark, worker)[key].value == 1.0


def test_reasons_are_short_and_come_from_the_first_cause(tmp_path):
    benchmark, worker = make(tmp_path, seeds=[0], labels=[1.0]), FakeWorker()
    wrapping = ValueError("does not validate")
    wrapping.__cause__ = ConfigError("there is no text tower")
    worker.fails["age.good.knn.100pct.seed0"] = wrapping
    worker.fails["age.plain.knn.100pct.seed0"] = RuntimeError("x" * 5000)
    run(benchmark, worker)
    records = records_of(benchmark, worker)
    assert records["age.good.knn.100pct.seed0"].reason == "there is no text tower"
    assert len(records["age.plain.knn.100pct.seed0"].reason) < 450
    assert "x" * 5000 in (tmp_path / "cells/age.plain.knn.100pct.seed0/log.txt").read_text()


def test_a_failed_pretraining_fails_its_cells_alone(tmp_path):
    benchmark, worker = make(tmp_path, seeds=[0]), FakeWorker()
    worker.fails["good"] = ConfigError("no such file")
    failed, _ = run(benchmark, worker)
    assert failed == 4
    records = records_of(benchmark, worker)
    assert records["parsing.good.frozen.10pct.seed0"].reason == "pretraining of good failed: no such file"
    assert records["parsing.plain.frozen.10pct.seed0"].value == 1.0
    worker.fails.clear()
    assert run(benchmark, worker)[0] == 0
    assert worker.pretrained == ["good", "good"]


def test_weights_that_were_removed_are_made_again(tmp_path):
    worker = FakeWorker()
    run(make(tmp_path, seeds=[0]), worker)
    (tmp_path / "encoders/good/weights").unlink()
    run(make(tmp_path), worker)
    assert worker.pretrained == ["good", "good"]


def test_a_metric_that_is_not_finite_is_a_failure(tmp_path):
    class Diverged(FakeWorker):
        def measure(self, cell, weights, folder):
            found = super().measure(cell, weights, folder)
            return type(found)(float("nan"))

    benchmark, worker = make(tmp_path, seeds=[0]), Diverged()
    assert run(benchmark, worker)[0] == 8
    assert records_of(benchmark, worker)["age.good.knn.10pct.seed0"].reason == "test/mae is nan"


def test_an_interrupted_run_keeps_what_it_has(tmp_path):
    benchmark, worker = make(tmp_path), FakeWorker()
    worker.fails["age.plain.knn.10pct.seed0"] = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        run(benchmark, worker)
    before = len(worker.measured)
    worker.fails.clear()
    run(benchmark, worker)
    assert len(records_of(benchmark, worker)) == 16
    assert len(worker.measured) == 16 + 1  # the interrupted cell alone was begun twice
    assert before < 16


def test_a_result_that_cannot_be_read_is_measured_again(tmp_path):
    benchmark, worker = make(tmp_path), FakeWorker()
    run(benchmark, worker)
    path = tmp_path / "cells/age.good.knn.10pct.seed0.json"
    path.write_text(path.read_text()[:40])
    failed, lines = run(benchmark, worker)
    assert failed == 0
    assert lines[1] == f"'{path}' cannot be read; it is measured again"
    assert json.loads(path.read_text())["value"] == 4.0
