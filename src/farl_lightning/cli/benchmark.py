"""``farl-lightning benchmark``: one fair table of encoders, tasks, ways of tuning, shares of labels and seeds."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from farl_lightning.cli.arguments import read_yaml
from farl_lightning.cli.data import Parser
from farl_lightning.cli.shipped import find_config
from farl_lightning.errors import ConfigError

_ABOUT = """\
Measure every cell of a benchmark that has no result yet, then write the table (Markdown, CSV, JSON) and one HTML page.
Give the same command again to go on where it stopped; cells that failed are tried again, the others are kept."""

_EPILOG = """\
examples
  farl-lightning benchmark --config benchmark/miniature.yaml --seeds 0          one seed first
  farl-lightning benchmark --config benchmark/miniature.yaml                    then all; the first seed is kept
  farl-lightning benchmark --config benchmark/miniature.yaml --methods finetune --tasks parsing --labels 0.1
  farl-lightning benchmark --config mine.yaml --list                            what would be measured
docs: 'farl-lightning configs show benchmark/miniature' explains every setting of the file"""


def run(words: list[str]) -> int:
    """Run ``farl-lightning benchmark``.

    Args:
        words: What follows ``benchmark``.

    Returns:
        The exit status: 0, or 1 when a cell failed.

    Raises:
        ConfigError: If an option or a setting of the file cannot be used.
    """
    given = _parser().parse_args(words)
    if given.config is None:
        raise ConfigError("give a config: farl-lightning benchmark --config benchmark/miniature.yaml")
    from farl_lightning.benchmark.cells import list_cells
    from farl_lightning.benchmark.config import read_benchmark

    benchmark = read_benchmark(read_yaml(find_config(given.config))[0]).chosen(
        encoders=given.encoders, tasks=given.tasks, methods=given.methods, labels=given.labels, seeds=given.seeds
    )
    if given.output is not None:
        benchmark = dataclasses.replace(benchmark, output=str(given.output))
    if given.list:
        cells = list_cells(benchmark)
        print("\n".join([*map(str, cells), f"{len(cells)} cells, results in {benchmark.output}"]))
        return 0
    from farl_lightning.cli.quiet import quiet

    quiet()
    from farl_lightning.benchmark.page import write_reports
    from farl_lightning.benchmark.runner import pretrainings_of, records_of, run_benchmark
    from farl_lightning.callbacks.results import versions
    from farl_lightning.cli.cells import FitWorker
    from farl_lightning.cli.preflight import import_classes

    import_classes()  # before output is redirected, so that a broken plugin is told of
    worker, failed = FitWorker(benchmark), 0
    try:
        if not given.table_only:
            failed = run_benchmark(benchmark, worker, lambda line: print(line, flush=True))
    finally:  # a benchmark that is interrupted leaves a table of what it has
        known = records_of(benchmark, worker), pretrainings_of(benchmark, worker)
        files = write_reports(benchmark, *known, versions())
        print(files["table.md"].read_text(encoding="utf-8"))
        print("\n".join(f"{name:<11} {path}" for name, path in files.items()))
    return 1 if failed else 0


def _parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        prog="farl-lightning benchmark",
        description=_ABOUT,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config", metavar="NAME", help="a file, or a shipped config such as benchmark/miniature.yaml")
    add("--output", type=Path, metavar="DIR", help="folder of results, instead of the config's")
    add("--encoders", nargs="+", metavar="NAME", help="only these of the config")
    add("--tasks", nargs="+", metavar="NAME", help="only these of the config")
    add("--methods", nargs="+", metavar="NAME", help="frozen, finetune, lora, linear, knn, instead of the config's")
    add("--labels", nargs="+", type=float, metavar="SHARE", help="shares of labels, instead of the config's")
    add("--seeds", nargs="+", type=int, metavar="N", help="seeds, instead of the config's")
    add("--list", action="store_true", help="print the cells, and measure nothing")
    add("--table_only", action="store_true", help="write table and page of the results that are there")
    return parser
