"""``farl-lightning plan``: what a pretraining run would need on GPUs that are not at hand."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from farl_lightning.cli.arguments import load_raw, read_settings
from farl_lightning.cli.data import Parser
from farl_lightning.errors import ConfigError
from farl_lightning.functional.accelerators import ACCELERATORS, find_accelerator
from farl_lightning.planning import Assumptions, Cluster, Plan, Workload, make_plan, read_workload
from farl_lightning.planning.arithmetic import forward_flops, parameter_units, step_flops

_ABOUT = """\
Compute memory, operations, communication, time and cost of a pretraining config. Nothing is built or downloaded.
Settings of the run can follow as for fit: --data.batch_size 128, --model.grad_checkpointing true.
docs/scale.md explains every formula and says how predictions compare with measurements."""


def run(words: list[str]) -> int:
    """Run ``farl-lightning plan``.

    Args:
        words: What follows ``plan``.

    Returns:
        The exit status: 0.

    Raises:
        ConfigError: If an option or the config cannot be used.
    """
    options, rest = _parser().parse_known_args(words)
    settings: dict[str, Any] = load_raw(read_settings("plan", rest).tree)
    if not settings:
        raise ConfigError("give a config: farl-lightning plan --config pretrain/farl_vitb16_laionface20m.yaml")
    trainer = settings.get("trainer") or {}
    nodes = _count(options.nodes, trainer.get("num_nodes"))
    cluster = Cluster(nodes, _count(options.gpus, trainer.get("devices")), find_accelerator(options.gpu))
    assumed = Assumptions(
        efficiency=tuple(options.efficiency),
        link=tuple(options.link),
        sample_bytes=options.sample_kb * 1e3,
        worker_rate=options.worker_rate,
        price=tuple(options.price) if options.price else None,
    )
    print(report(read(settings), cluster, assumed))
    return 0


def read(settings: Mapping[str, Any]) -> Workload:
    """Read the sizes of a config.

    Args:
        settings: The merged settings.

    Raises:
        ConfigError: If it is no pretraining, or a value is of the wrong kind.
    """
    try:
        return read_workload(settings)
    except ConfigError:
        raise
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"a value of the config is of the wrong kind: {error}; 'farl-lightning check' of the same names it"
        ) from error


def _parser() -> Parser:
    """Return the parser of the options that are not settings of the run."""
    given = Assumptions()
    parser = Parser(
        prog="farl-lightning plan",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="  --config NAME  a file, or a shipped config; several are merged in order",
    )
    add = parser.add_argument
    add("--nodes", type=int, help="machines (default: the config's trainer.num_nodes, else 1)")
    add("--gpus", type=int, help="GPUs of each machine (default: the config's trainer.devices, else 1)")
    add("--gpu", default="h100", help=f"kind of GPU: {', '.join(ACCELERATORS)} (default: %(default)s)")
    both: dict[str, Any] = {"type": float, "nargs": 2, "metavar": ("LOW", "HIGH")}
    add("--efficiency", **both, default=given.efficiency, help="share of the GPU's peak that is reached (%(default)s)")
    add("--link", **both, default=given.link, help="share of the stated bandwidths that is reached (%(default)s)")
    add("--price", **both, help="US dollars per GPU and hour (default: recalled list prices of 2025)")
    add("--sample_kb", type=float, default=given.sample_bytes / 1e3, help="mean size of a sample, kB (%(default)s)")
    add(
        "--worker_rate",
        type=float,
        default=given.worker_rate,
        help="samples per second that a loader worker decodes and augments (%(default)s)",
    )
    return parser


def _count(option: int | None, setting: Any) -> int:
    """Return a number of machines or GPUs; ``auto`` and -1 of a config mean nothing here."""
    if option is not None:
        return option
    return setting if isinstance(setting, int) and setting > 0 else 1


def report(work: Workload, cluster: Cluster, assumed: Assumptions) -> str:
    """Return the plan as text, DDP and FSDP2 side by side.

    Args:
        work: The sizes.
        cluster: Where it would run.
        assumed: What the config does not say.
    """
    plans = [make_plan(work, cluster, sharded, assumed) for sharded in (False, True)]
    head = f"{cluster.nodes} x {cluster.gpus} {cluster.gpu.title}, batch {work.batch_size} per GPU"
    notes = list(_notes(work, cluster, plans))
    sections = [
        f"{head}, {plans[0].samples_per_step:,} per optimiser step",
        "network\n" + _table(_network_rows(work, cluster)),
        "memory per GPU\n" + _table(_memory_rows(plans)),
        "optimiser step\n" + _table(_step_rows(plans)),
        "reader\n" + _table(_reader_rows(work, cluster, plans[0], assumed)),
        "run\n" + _table(_run_rows(plans)),
    ]
    return "\n\n".join([*sections, *(["\n".join(notes)] if notes else [])])


def _network_rows(work: Workload, cluster: Cluster) -> Iterator[tuple[str, ...]]:
    units = parameter_units(work)
    trained, frozen = step_flops(work, cluster.world_size)
    yield "trainable parameters", f"{sum(u.total for u in units if u.trainable) / 1e6:.1f} M"
    yield "forward, one pair", f"{forward_flops(work, cluster.world_size).forward / 1e9:.1f} GFLOP"
    yield "forward and backward, one pair", f"{trained / 1e9:.1f} GFLOP"
    if frozen:
        yield "codebook in float32, one picture", f"{frozen / 1e9:.1f} GFLOP"


def _memory_rows(plans: list[Plan]) -> Iterator[tuple[str, ...]]:
    yield "", "DDP", "FSDP2"
    for name in dict.fromkeys(name for plan in plans for name in plan.memory):
        yield name, *(f"{plan.memory.get(name, 0.0) / 1e9:.2f} GB" for plan in plans)
    yield "total", *(f"{plan.total_memory / 1e9:.2f} GB" for plan in plans)
    yield "of", *(f"{plan.capacity / 1e9:.1f} GB" for plan in plans)


def _step_rows(plans: list[Plan]) -> Iterator[tuple[str, ...]]:
    yield "", "DDP", "FSDP2"
    yield "each GPU sends", *(f"{plan.wire / 1e6:.0f} MB" for plan in plans)
    yield "computation", *(_range(plan.computing, _milliseconds) for plan in plans)
    yield "communication alone", *(_range(plan.sending, _milliseconds) for plan in plans)
    yield "reader alone", *(_milliseconds(plan.reading) if plan.reading else "not judged" for plan in plans)
    yield "step", *(_range(plan.step, _milliseconds) for plan in plans)
    yield "limited by", *(plan.limit.partition(":")[0] for plan in plans)


def _reader_rows(work: Workload, cluster: Cluster, plan: Plan, assumed: Assumptions) -> Iterator[tuple[str, ...]]:
    """Yield what the loaders must bring for DDP's computation at its best, whatever the reader manages."""
    rate = plan.samples_per_step / plan.computing[0]
    yield "samples/s to keep the GPUs busy", f"{rate:,.0f}"
    yield "bytes/s, all machines", f"{rate * assumed.sample_bytes / 1e6:,.0f} MB/s"
    yield "bytes/s, each machine", f"{rate * assumed.sample_bytes / 1e6 / cluster.nodes:,.0f} MB/s"
    wanted = rate / cluster.world_size / assumed.worker_rate
    yield "workers per GPU", f"{wanted:.1f} wanted at {assumed.worker_rate:g} samples/s each, {work.workers} set"


def _run_rows(plans: list[Plan]) -> Iterator[tuple[str, ...]]:
    yield "", "DDP", "FSDP2"
    rates = [(plan.samples_per_step / plan.step[1], plan.samples_per_step / plan.step[0]) for plan in plans]
    yield "samples/s", *(_range(rate, lambda value: f"{value:,.0f}") for rate in rates)
    if plans[0].steps is not None:
        yield "optimiser steps", *(f"{plan.steps:,}" for plan in plans)
        yield "time", *(_range(plan.hours or (0.0, 0.0), _hours) for plan in plans)
        yield "cost", *(_range(plan.cost or (0.0, 0.0), lambda value: f"${value:,.0f}") for plan in plans)


def _notes(work: Workload, cluster: Cluster, plans: list[Plan]) -> Iterator[str]:
    """Yield what should be changed."""
    for plan, name in zip(plans, ("DDP", "FSDP2"), strict=True):
        if not plan.fits:
            yield (
                f"{name} does not fit. Take a smaller data.batch_size, --model.grad_checkpointing true, or "
                "--model.accumulate_contrastive K"
            )
    if any(plan.limit.startswith("the reader") for plan in plans):
        yield "The reader limits the speed: give data.num_workers as many as the machine has cores per GPU."
    if work.half and not cluster.gpu.has_bf16:
        yield f"{cluster.gpu.title} has no bfloat16: use --trainer.precision 16-mixed."
    if plans[0].steps is None:
        yield "The config names neither max_steps nor max_epochs with samples_per_epoch: no time and no cost."


def _range(pair: tuple[float, float], write: Callable[[float], str]) -> str:
    """Write a range, or one value where both ends look the same."""
    low, high = map(write, pair)
    return low if low == high else f"{low} - {high}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours < 100 else f"{hours / 24:.1f} days"


def _table(rows: Iterator[tuple[str, ...]]) -> str:
    """Align columns: the first to the left, the others to the right where there are several."""
    cells = list(rows)
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = []
    for first, *rest in cells:
        aligned = [c.rjust(w) if len(rest) > 1 else c for c, w in zip(rest, widths[1:], strict=True)]
        lines.append(f"  {first.ljust(widths[0])}  " + "  ".join(aligned))
    return "\n".join(line.rstrip() for line in lines)
