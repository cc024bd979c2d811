"""Memory of mapping crops back to their picture: bands of rows against facer's whole picture at once.

``python -m benchmarks.restore_memory`` measures, each in a fresh process, how far the memory of the process grows above
what it holds when the logits of all crops are there:

- labels of a picture with several faces, by this package and by ``pyfacer`` (its grid, its sampling, argmax);
- labels of a picture of 12 megapixels with 19 classes, by this package.

Both get the same logits and the same five points; their labels are compared.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import common
from benchmarks.common import Verdict
from benchmarks.registry import ROOT
from farl_lightning.functional.geometry import FARL_TEMPLATE, align_matrix
from farl_lightning.functional.restore import restore_labels

CROP, WARP = 448, 0.8
"""Side and tanh warp of facer's LaPa parser."""

LIMIT = 1e9
"""Bytes above the network's own that a picture of 12 megapixels may take."""


@dataclass(frozen=True)
class Case:
    """What is mapped back.

    Attributes:
        side: ``"ours"`` or ``"facer"``.
        height: Of the picture.
        width: Of the picture.
        faces: Number of crops.
        classes: Number of classes.
    """

    side: str
    height: int
    width: int
    faces: int
    classes: int


@dataclass(frozen=True)
class Cost:
    """What it took.

    Attributes:
        grown: Bytes above what the process held before.
        seconds: Wall time.
        labels: Hash of a thinned label map, to see whether two sides agree exactly.
        sampled: Every 37th label.
    """

    grown: int
    seconds: float
    labels: str
    sampled: list[int]


def five_points(case: Case) -> Tensor:
    """Place faces of about a third of the picture in a row: (faces, 5, 2) in pixels, in double precision."""
    side = min(case.height, case.width) / 3
    template = torch.tensor(FARL_TEMPLATE, dtype=torch.float64) * side / 2
    centers = [(case.width * (index + 0.5) / case.faces, case.height / 2) for index in range(case.faces)]
    return torch.stack([template + torch.tensor(center) for center in centers])


def our_labels(case: Case, logits: Tensor, points: Tensor) -> list[Tensor]:
    """Map back in bands."""
    matrices = align_matrix(points, CROP)
    size = (case.height, case.width)
    pairs = zip(logits, matrices, strict=True)
    return [restore_labels(one, matrix, size, WARP, convention="facer") for one, matrix in pairs]


def facer_labels(case: Case, logits: Tensor, points: Tensor) -> list[Tensor]:
    """Map back as facer's parser does: every class of every face at every pixel of the picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports timm by an old name
        from facer import transform
    shape, size = (CROP, CROP), (case.height, case.width)
    matrix = transform.get_face_align_matrix(points.float(), target_shape=shape, target_face_scale=1.0)
    grid = transform.make_inverted_tanh_warp_grid(matrix, WARP, shape, size)
    full = torch.nn.functional.grid_sample(logits, grid, mode="bilinear", align_corners=False)
    return list(full.argmax(1))


SIDES: dict[str, Callable[[Case, Tensor, Tensor], list[Tensor]]] = {"ours": our_labels, "facer": facer_labels}


def measure(case: Case) -> Cost:
    """Map back in this process, and say how far its memory grew.

    Args:
        case: What is mapped back.
    """
    torch.manual_seed(0)
    coarse = torch.randn(case.faces, case.classes, 14, 14)
    logits = torch.nn.functional.interpolate(coarse, size=(CROP, CROP), mode="bilinear")  # regions, as parsers have
    points = five_points(case)
    SIDES[case.side](Case(case.side, 16, 16, case.faces, case.classes), logits, points)  # what is loaded once
    before = reset_peak()
    began = time.perf_counter()
    with torch.inference_mode():
        labels = SIDES[case.side](case, logits, points)
    seconds = time.perf_counter() - began
    grown = memory("VmHWM") - before
    thin = torch.cat([one.flatten()[::37].to(torch.uint8) for one in labels])
    digest = hashlib.blake2b(thin.numpy().tobytes(), digest_size=8).hexdigest()
    return Cost(grown, seconds, digest, thin[:: max(1, len(thin) // 20_000)].tolist())


def reset_peak() -> int:
    """Let the peak start at what the process holds now, and return that, in bytes (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return memory("VmRSS")


def memory(name: str) -> int:
    """Read a number of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


def in_fresh_process(case: Case) -> Cost:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.restore_memory", "--case", json.dumps(asdict(case))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{case}: {done.stderr.strip()[-300:]}")
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def cases(short: bool) -> dict[str, Case]:
    """Return what is measured, by name."""
    side, large = (200, (400, 300)) if short else (2000, (4000, 3000))
    found = {"ours": Case("ours", side, side, 3, 11), "ours, 12 megapixels": Case("ours", *large, 1, 19)}
    if importlib.util.find_spec("facer") is not None:
        found["facer"] = Case("facer", side, side, 3, 11)
    return found


def judge(costs: dict[str, Cost], short: bool) -> list[Verdict]:
    """Hold the numbers against the goals; tiny pictures are not judged."""
    large = costs["ours, 12 megapixels"].grown
    rows = [Verdict("12 megapixels, 19 classes", "< 1 GB", f"{large / 1e6:.0f} MB", None if short else large < LIMIT)]
    if "facer" not in costs:
        return [*rows, Verdict("3 faces at 2,000 px", "less than facer", "no facer here (pip install pyfacer)", None)]
    ours, facer = costs["ours"], costs["facer"]
    agree = sum(a == b for a, b in zip(ours.sampled, facer.sampled, strict=True)) / len(ours.sampled)
    measured = f"{ours.grown / 1e6:.0f} MB against {facer.grown / 1e6:.0f} MB"
    return [
        *rows,
        Verdict("3 faces at 2,000 px", "less than facer", measured, None if short else ours.grown < facer.grown),
        Verdict("same labels as facer", ">= 99.9 % of pixels", f"{agree:.3%}", agree >= 0.999),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every case, print the table and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restore_memory", description=__doc__.splitlines()[0])
    common.add_arguments(parser, repeats=1)
    parser.add_argument("--case", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.case is not None:
        print(json.dumps(asdict(measure(Case(**json.loads(options.case))))))
        return 0
    costs = {name: in_fresh_process(case) for name, case in cases(options.short).items()}
    rows = [[name, f"{cost.grown / 1e6:.0f} MB", f"{cost.seconds:.2f} s"] for name, cost in costs.items()]
    print(common.format_table(["", "memory above the logits", "time"], rows))
    details = {name: {"grown_bytes": cost.grown, "seconds": cost.seconds} for name, cost in costs.items()}
    return common.finish(options, {}, judge(costs, options.short), details=details)


if __name__ == "__main__":
    raise SystemExit(main())
