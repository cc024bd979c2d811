"""One fair table: encoders x tasks x ways of tuning x shares of labels x seeds, beside published rows.

:mod:`~farl_lightning.benchmark.config` reads a benchmark's YAML file, :mod:`~farl_lightning.benchmark.cells` lists what
is to be measured, :mod:`~farl_lightning.benchmark.runner` measures it and goes on where it stopped,
:mod:`~farl_lightning.benchmark.store` keeps every result on disk, and the rest makes tables and one HTML page of them.

The room knows no network and no data: how a cell is trained or probed is handed in as a
:class:`~farl_lightning.benchmark.runner.Worker` (the command line's is ``farl_lightning.cli.cells``). It imports
``errors`` and ``visualization`` alone; only ``cli`` and ``testing`` import it.
"""

from farl_lightning.benchmark.cells import Cell, list_cells
from farl_lightning.benchmark.config import (
    METHODS,
    Benchmark,
    Encoder,
    Pretraining,
    Published,
    Task,
    read_benchmark,
)
from farl_lightning.benchmark.page import write_reports
from farl_lightning.benchmark.runner import Measurement, Worker, run_benchmark
from farl_lightning.benchmark.store import Record, Store
from farl_lightning.benchmark.summary import Summary, summarise

__all__ = [
    "METHODS",
    "Benchmark",
    "Cell",
    "Encoder",
    "Measurement",
    "Pretraining",
    "Published",
    "Record",
    "Store",
    "Summary",
    "Task",
    "Worker",
    "list_cells",
    "read_benchmark",
    "run_benchmark",
    "summarise",
    "write_reports",
]
