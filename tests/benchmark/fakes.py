"""A benchmark whose cells are numbers out of a table, so that everything around them can be tested in no time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from farl_lightning.benchmark import Benchmark, Cell, Encoder, Measurement, read_benchmark

TREE: dict[str, Any] = {
    "title": "Fakes",
    "about": "Numbers out of a table.",
    "baseline": "plain",
    "labels": [0.1, 1.0],
    "seeds": [0, 1],
    "encoders": {
        "good": {"title": "Good one", "pretrain": {"config": "p.yaml"}},
        "plain": None,
    },
    "tasks": {
        "parsing": {
            "title": "Parsing",
            "config": "t.yaml",
            "metric": "test/f1",
            "unit": "%",
            "reference": [
                {"model": "FaRL", "value": 93.88, "data": "LaPa", "method": "frozen", "source": "its log"},
                {"model": "Older", "value": 9.5, "labels": 0.01, "mark": "recalled"},
            ],
        },
        "age": {"config": "a.yaml", "metric": "test/mae", "mode": "min", "methods": ["knn"], "column": "age"},
    },
}


def make(output: Path, **changes: Any) -> Benchmark:
    """Return the benchmark, with some settings changed."""
    return read_benchmark({**TREE, "output": str(output), **changes})


class FakeWorker:
    """Measures by a rule: one more per seed, ten times the share of labels, three more for what was pretrained."""

    def __init__(self) -> None:
        self.pretrained: list[str] = []
        self.measured: list[str] = []
        self.fails: dict[str, Exception] = {}
        self.revision = 0

    def describe_encoder(self, encoder: Encoder) -> Any:
        return [encoder.name, self.revision]

    def describe(self, cell: Cell) -> Any:
        return cell.key

    def pretrain(self, encoder: Encoder, folder: Path) -> tuple[str, dict[str, Any]]:
        self.pretrained.append(encoder.name)
        if encoder.name in self.fails:
            raise self.fails[encoder.name]
        (folder / "weights").write_text("weights")
        return str(folder / "weights"), {"steps": 7, "seconds": 3.0}

    def measure(self, cell: Cell, weights: str | None, folder: Path) -> Measurement:
        assert (weights is None) == (cell.encoder.name == "plain")
        assert folder.is_dir()
        self.measured.append(cell.key)
        if cell.key in self.fails:
            raise self.fails[cell.key]
        value = cell.seed + 10 * cell.labels + (3 if weights else 0)
        return Measurement(value, {cell.task.metric: value, "test/loss": float("nan")}, {"steps": 5})
