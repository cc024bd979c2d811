"""Shipped benchmarks: their tasks exist, take the settings laid over them, and report the metric that is asked for."""

from __future__ import annotations

import pytest
import yaml

from farl_lightning.benchmark import list_cells, read_benchmark
from farl_lightning.cli.arguments import read_settings
from farl_lightning.cli.cells import FitWorker
from farl_lightning.cli.preflight import prepare
from tests.configs.test_configs import BENCHMARKS, tree


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_setting_of_every_task_and_pretraining_is_known(name, here):
    benchmark = read_benchmark(tree(name))
    worker = FitWorker(benchmark)
    cells = {(cell.task.name, cell.method): cell for cell in list_cells(benchmark)}
    trees = {"_".join(key): worker.settings(cell) for key, cell in cells.items()}
    trees |= {e.name: worker.pretraining(e, e.pretrain) for e in benchmark.encoders if e.pretrain is not None}
    for key, settings in trees.items():
        (here / f"{key}.yaml").write_text(yaml.safe_dump(settings))
        prepare(read_settings("fit", ["--config", f"{key}.yaml"]))  # raises with every setting that is unknown


@pytest.mark.parametrize("name", BENCHMARKS)
def test_published_rows_are_those_of_the_recipes(name):
    benchmark = read_benchmark(tree(name))
    for task in benchmark.tasks:
        reference = tree(task.config.removesuffix(".yaml"))["model"]["init_args"].get("reference", {})
        known = reference.get(task.metric.removeprefix("test/"))
        ours = [row.value for row in task.reference if (row.model, row.method, row.labels) == ("FaRL", "finetune", 1.0)]
        if known is not None and ours:
            assert ours == [known["value"]]
