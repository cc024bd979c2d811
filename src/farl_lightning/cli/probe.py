"""``farl-lightning probe``: what simple learners get out of features, in seconds."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farl_lightning.cli.data import Parser
from farl_lightning.errors import ConfigError

if TYPE_CHECKING:
    from farl_lightning.probing import FeatureTable, ProbeResult

_WRITTEN = (".json", ".csv")

_ABOUT = """\
Learn a column of labels from features of 'farl-lightning embed', and judge the answers on other faces.

  farl-lightning probe feats.parquet --column gender
  farl-lightning probe feats.parquet --column attributes --method linear knn --features all
  farl-lightning probe train.parquet --test test.parquet --column age --method ridge --budget 1% 10% 100%
  farl-lightning probe feats.parquet --column expression --budget 1 5 10 100 --seeds 5

methods: linear (logistic regression by L-BFGS; numbers by least squares), ridge (least squares in closed form), sgd,
knn. Budgets: 10 is ten training faces per class, 10% a share of all. Percent and years, with bootstrap 95 % intervals;
over several seeds mean and standard deviation."""


def run(words: list[str]) -> int:
    """Run ``farl-lightning probe``.

    Args:
        words: What follows ``probe``.

    Returns:
        The exit status: 0.

    Raises:
        ConfigError: If an option cannot be used.
    """
    given = _parser().parse_args(words)
    budgets = [_budget(word) for word in given.budget]
    if given.output is not None and Path(given.output).suffix not in _WRITTEN:
        raise ConfigError(f"--output '{given.output}': results are written as {' or '.join(_WRITTEN)}")
    from farl_lightning.probing import read_features

    table = read_features(given.features_file)
    if not table.has_column(given.column):
        from farl_lightning.probing.targets import read_target

        read_target(table, given.column)  # says what there is
    train, test = _divide(table, given)
    rows = [
        result
        for feature in _chosen(table, given.features)
        for method in given.method
        for budget in budgets
        for result in [_repeat(train, test, given, feature, method, budget)]
    ]
    print(format_rows(rows))
    if given.output is not None:
        _write(Path(given.output), rows)
    return 0


def _parser() -> Parser:
    """Return the parser."""
    parser = Parser(
        prog="farl-lightning probe",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("features_file", metavar="FEATURES", help=".parquet or .npz of 'farl-lightning embed'")
    add("--column", required=True, help="what is learned: a label, 'attributes', one attribute, or a group")
    add("--method", nargs="+", default=["linear", "knn"], metavar="NAME", help="linear ridge sgd knn")
    add("--features", nargs="+", metavar="NAME", help="which features, 'all' for each in turn (default: 'feature')")
    add("--budget", nargs="+", default=["100%"], metavar="N", help="training faces per class, or a share (100%%)")
    add("--test", metavar="FILE", help="features to judge on, instead of the split 'test' of FEATURES")
    add("--test_fraction", type=float, metavar="X", help="judge on a random share, where there is no split 'test'")
    add("--seed", type=int, default=0, help="seed of draws (default: %(default)s)")
    add("--seeds", type=int, default=1, metavar="N", help="repeat with N seeds (default: %(default)s)")
    add("--neighbours", type=int, default=20, help="of knn (default: %(default)s)")
    add("--device", default="cpu", help="default: %(default)s")
    add("--output", metavar="FILE", help="write the results as .json or .csv, too")
    return parser


def _budget(word: str) -> int | float | None:
    """Read a budget: faces per class, or a share."""
    try:
        if word.endswith("%"):
            share = float(word[:-1]) / 100
            return None if share == 1 else share
        return int(word)
    except ValueError:
        raise ConfigError(f"--budget '{word}' is neither a number of faces per class nor a share, as 10%") from None


def _divide(table: FeatureTable, given: argparse.Namespace) -> tuple[FeatureTable, FeatureTable]:
    """Return the faces to learn from and those to judge on."""
    from farl_lightning.probing import read_features

    if given.test is not None:
        return table, read_features(given.test)
    if given.test_fraction is not None:
        return hold_out(table, given.test_fraction, given.seed)
    if {"train", "test"} <= set(table.groups.get("split", ())):
        return table.split("train"), table.split("test")
    raise ConfigError(
        f"'{given.features_file}' has no splits 'train' and 'test': give --test FILE, or --test_fraction 0.2 to judge "
        "on a random share"
    )


def hold_out(table: FeatureTable, share: float, seed: int) -> tuple[FeatureTable, FeatureTable]:
    """Draw faces to judge on.

    Args:
        table: All faces.
        share: Of them, above 0 and below 1.
        seed: Which ones.

    Returns:
        Faces to learn from, and faces to judge on.

    Raises:
        ConfigError: If the share leaves nothing.
    """
    import torch

    from farl_lightning.functional.random import keyed_generator

    count = round(share * len(table))
    if not 0 < share < 1 or not 0 < count < len(table):
        raise ConfigError(f"--test_fraction is {share}; a share above 0 and below 1 that leaves faces on both sides")
    order = torch.randperm(len(table), generator=keyed_generator(seed, "test")).numpy()
    return table.take(sorted(order[count:])), table.take(sorted(order[:count]))


def _chosen(table: FeatureTable, names: Sequence[str] | None) -> list[str]:
    """Return the features to probe, each by itself."""
    if names is None:
        return [table.default_feature]
    return list(table.features) if list(names) == ["all"] else list(names)


def _repeat(
    train: FeatureTable,
    test: FeatureTable,
    given: argparse.Namespace,
    feature: str,
    method: Any,
    budget: int | float | None,
) -> dict[str, Any]:
    """Return one row: a result, or mean and standard deviation of several seeds."""
    from farl_lightning.probing import run_probe

    if given.seeds < 1:
        raise ConfigError(f"--seeds is {given.seeds}; it has to be at least 1")
    results: list[ProbeResult] = [
        run_probe(
            train,
            test,
            given.column,
            method,
            budget,
            seed,
            feature,
            neighbours=given.neighbours,
            device=given.device,
        )
        for seed in range(given.seed, given.seed + given.seeds)
    ]
    values = [result.value for result in results]
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {**results[0].row(), "value": statistics.mean(values), "std": spread, "seeds": len(values)}


_COLUMNS = ("feature", "method", "budget", "faces", "metric", "value", "95 %", "baseline")


def format_rows(rows: Iterable[dict[str, Any]]) -> str:
    """Lay out results as a table.

    Args:
        rows: As :meth:`~farl_lightning.probing.ProbeResult.row` makes them, with ``std`` and ``seeds``.
    """
    cells = [list(_COLUMNS)] + [_cells(row) for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _cells(row: dict[str, Any]) -> list[str]:
    """Write a row."""
    budget = row["budget"]
    words = "all" if budget is None else f"{100 * budget:g} %" if isinstance(budget, float) else f"{budget} per class"
    single = row["std"] is None
    interval = f"{row['low']:.2f} to {row['high']:.2f}" if single else f"std {row['std']:.2f}, {row['seeds']} seeds"
    faces = f"{row['n_train']} / {row['n_test']}"
    value, baseline = f"{row['value']:.2f}", f"{row['baseline']:.2f}"
    return [row["feature"], row["method"], words, faces, row["metric"], value, interval, baseline]


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write results for programs."""
    import csv

    if path.suffix == ".json":
        path.write_text(json.dumps(list(rows), indent=1) + "\n", encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
