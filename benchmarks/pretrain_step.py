"""One pretraining step of ours against the plain way and against open_clip: forward, backward, AdamW.

``python -m benchmarks.pretrain_step`` answers three questions in one run:

a. FaRL (contrast + masked image modelling) against :mod:`benchmarks.plain_farl`;
b. contrast alone against open_clip's ``ViT-B-16-quickgelu`` with its ``ClipLoss``;
c. which share of the machine's measured matrix-product speed the step reaches.

Every side has the same weights, batch, threads and allocator settings, and before anything is timed losses and
gradients are compared. The targets of masked patches are fixed random ids, so that no tokenizer is timed. Captions are
ordinary ones padded to 77 tokens, as every tokenizer pads them; ours leaves the padding out.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import common, gemm
from benchmarks.common import Timing, Verdict
from benchmarks.plain_farl import Sizes, set_checkpointing
from benchmarks.sides import (
    Side,
    Workload,
    fill_captions,
    make_workload,
    open_clip_side,
    our_side,
    plain_side,
    same_numbers,
)

GOALS = {"farl fp32": 1.25, "farl bf16": 3.5, "open_clip": 1.0}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SHORT = Sizes(
    image_size=64,
    width=128,
    depth=2,
    heads=2,
    masked_image_depth=2,
    vocabulary=256,
    embed_dim=64,
    text_width=64,
    text_depth=2,
    text_heads=1,
)


@dataclass
class Report:
    """What a section found.

    Attributes:
        timings: Every timing by name.
        verdicts: What was promised and what came of it.
        details: Further numbers by side: operations, page faults, system time, share of the peak.
    """

    timings: dict[str, Timing] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    details: dict[str, dict[str, float]] = field(default_factory=dict)


def run_farl(work: Workload, options: argparse.Namespace) -> Report:
    """Answer a and c: FaRL's step against the plain way and against the speed of matrix products."""
    plain = plain_side(work)
    ours = {precision: our_side(work, f"ours {precision}", precision) for precision in options.precisions}
    same = same_numbers(ours["fp32"], plain)
    if options.compile:
        ours["compiled"] = our_side(work, "ours compiled", compiled=True)
    report = _measure([plain, *ours.values()], work, options)
    report.verdicts.append(same)
    _add_useful_share(report, plain)
    for precision in DTYPES:
        name, goal = f"a. FaRL step, {precision}", GOALS[f"farl {precision}"]
        if precision in ours:
            verdict = _ratio(name, report.timings["plain"], report.timings[f"ours {precision}"], goal, options)
        else:
            verdict = Verdict(name, f">= {goal:g} x the plain way", "no bf16 instructions on this CPU", None)
        report.verdicts.append(verdict)
    return report


def run_contrast(work: Workload, options: argparse.Namespace) -> Report:
    """Answer b: contrast alone against open_clip, at each precision, and with captions that fill 77 tokens."""
    report = Report()
    for precision in options.precisions:
        peer = open_clip_side(work, precision)
        ours = our_side(work, f"ours {precision}, contrast", precision, masked_image=False)
        full = our_side(fill_captions(work), f"ours {precision}, 77 tokens", precision, masked_image=False)
        tolerance = 1e-3 if precision == "fp32" else 0.1
        report.verdicts.append(same_numbers(ours, peer, tolerance))
        part = _measure([peer, ours, full], work, options)
        report.timings |= part.timings
        report.details |= part.details
        report.verdicts += part.verdicts
        for side in (ours, full):
            name = f"b. {side.name}"
            report.verdicts.append(
                _ratio(name, part.timings[peer.name], part.timings[side.name], GOALS["open_clip"], options)
            )
    return report


def _measure(sides: Sequence[Side], work: Workload, options: argparse.Namespace) -> Report:
    """Time the sides and the matrix products in turn, and count what each step does."""
    tokens = 2 * len(work.targets) * (work.sizes.num_patches + 1)
    shapes = gemm.model_shapes(tokens, work.sizes.width, options.square)
    runs: dict[str, Any] = {side.name: side.step for side in sides}
    for precision in options.precisions:
        runs |= gemm.products(shapes, DTYPES[precision])
    flops = {side.name: float(gemm.count_flops(side.backward)) for side in sides}
    timings = common.interleave(runs, options.repeats)
    report = Report(timings)
    for side in sides:
        dtype = torch.bfloat16 if "bf16" in side.name else torch.float32
        top, rate = gemm.peak(shapes, dtype, timings), flops[side.name] / timings[side.name].median
        report.details[side.name] = {
            "flops": flops[side.name],
            "peak": top,
            "share_of_peak": rate / top,
            **side.page_faults(),
        }
        share = f"{rate / top:.0%} of {top / 1e9:.0f} GFLOP/s"
        report.verdicts.append(Verdict(f"c. share of the GEMM peak, {side.name}", "reported", share, None))
    _print_steps(report, len(work.targets))
    return report


def _add_useful_share(report: Report, plain: Side) -> None:
    """Count the plain way without its recomputation: the work that a step of FaRL needs at most."""
    set_checkpointing(plain.model, False)
    useful = float(gemm.count_flops(plain.backward))
    details = report.details["plain"]
    details["useful_flops"] = useful
    details["useful_share_of_peak"] = useful / report.timings["plain"].median / details["peak"]


def _print_steps(report: Report, images: int) -> None:
    """Print one row per side: time, throughput, operations, share of the peak, page faults."""
    rows = []
    for name, extra in report.details.items():
        timing = report.timings[name]
        rows.append(
            [
                name,
                f"{timing.median:.3f} s",
                f"{timing.spread:.0%}",
                f"{images / timing.median:.2f}",
                f"{extra['flops'] / 1e12:.3f}",
                f"{extra['share_of_peak']:.0%}",
                f"{extra['page_faults']:.0f}",
                f"{extra['system_seconds']:.2f} s",
            ]
        )
    columns = ["step", "median", "spread", "images/s", "TFLOP", "of GEMM peak", "page faults", "system time"]
    print(common.format_table(columns, rows) + "\n", flush=True)


def _ratio(name: str, peer: Timing, ours: Timing, goal: float, options: argparse.Namespace) -> Verdict:
    """Judge how many times faster ours is; tiny networks are not judged."""
    ratio = common.speedup(peer, ours)
    cpu = sum(peer.cpu_seconds) / sum(ours.cpu_seconds)
    measured = f"{ratio:.2f} x (by processor time {cpu:.2f} x)"
    return Verdict(name, f">= {goal:g} x {peer.name}", measured, None if options.short else ratio >= goal)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ``--short`` replaces the sizes by tiny ones."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pretrain_step", description=__doc__.splitlines()[0])
    common.add_arguments(parser, repeats=7)
    parser.add_argument(
        "--image-size", type=int, default=224, help="side of the images in pixels (default: %(default)s)"
    )
    parser.add_argument("--batch", type=int, default=8, help="image-text pairs per step (default: %(default)s)")
    parser.add_argument(
        "--only", choices=["a", "b"], default=None, help="a: FaRL and its share of the peak, b: contrast"
    )
    parser.add_argument("--compile", action="store_true", help="time torch.compile of ours as well")
    options = parser.parse_args(arguments)
    options.precisions = ["fp32", "bf16"] if common.has_native_bf16() else ["fp32"]
    options.square = 512 if options.short else 4096
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sections, print their tables and return the exit code."""
    options = parse_arguments(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    sizes = SHORT if options.short else replace(Sizes(), image_size=options.image_size)
    sections = {"a": run_farl, "b": run_contrast}
    total = Report()
    with tempfile.TemporaryDirectory() as folder:
        work = make_workload(sizes, options.batch, Path(folder))
        for section in sections if options.only is None else options.only:
            part = sections[section](work, options)
            total = Report(total.timings | part.timings, total.verdicts + part.verdicts, total.details | part.details)
            gc.collect()
    return common.finish(options, total.timings, total.verdicts, details=total.details)


if __name__ == "__main__":
    raise SystemExit(main())
