"""Memory of the margin head: centres of a million people, their gradient, and little else.

``python -m benchmarks.margin_memory`` measures in fresh processes how far the memory of one grows above its centres in
a forward and a backward pass. That has to be their gradient and a bounded rest, whatever the number of people:

- 1,000,000 people x 512 channels, whole on one process, and shared out over two;
- the same by the plain way (all logits, the library's cross entropy) with a tenth of the people, beside ours.

The losses of all sides are compared. An optimiser keeps its own numbers per centre (AdamW twice as many) on top.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import common
from benchmarks.common import Verdict
from benchmarks.restore_memory import memory, reset_peak
from farl_lightning.functional.distributed import rank, world_size
from farl_lightning.functional.margin import margin_logits
from farl_lightning.models.heads.margin import MarginHead
from farl_lightning.testing.distributed import GlooPool

REST = 5e8
"""Bytes above centres and gradient that a step may take."""


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        side: ``"ours"`` or ``"plain"``.
        people: Number of centres.
        width: Channels.
        faces: Faces in the joint batch.
        processes: Among which the centres are shared out.
    """

    side: str
    people: int
    width: int
    faces: int
    processes: int = 1


@dataclass(frozen=True)
class Cost:
    """What it took, the most of any process.

    Attributes:
        centres: Bytes of the centres of a process.
        grown: Bytes above what it held before the step.
        seconds: Wall time of the step.
        loss: What came out.
    """

    centres: int
    grown: int
    seconds: float
    loss: float

    @property
    def rest(self) -> int:
        """Bytes above centres and gradient."""
        return self.grown - self.centres


def plain(head: MarginHead, embeddings: Tensor, labels: Tensor) -> Tensor:
    """Make all logits, and take the library's cross entropy."""
    cosine = F.normalize(embeddings, dim=1) @ F.normalize(head.centres.weight, dim=1).T
    return F.cross_entropy(margin_logits(cosine, labels, *head.margin), labels)


SIDES: dict[str, Callable[[MarginHead, Tensor, Tensor], Tensor]] = {"ours": MarginHead.__call__, "plain": plain}


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """Take one step on this process, and say how far its memory grew.

    Args:
        settings: A :class:`Case` as plain data; called on all its processes.

    Returns:
        A :class:`Cost` as plain data.
    """
    case = Case(**settings)
    torch.manual_seed(0)
    head = MarginHead(case.width, case.people, sharded=case.processes > 1)
    head.shard()  # now, not in the step that is measured
    everyone, labels = torch.randn(case.faces, case.width), torch.randint(case.people, (case.faces,))
    share = slice(rank() * case.faces // world_size(), (rank() + 1) * case.faces // world_size())
    embeddings = everyone[share].clone().requires_grad_()
    warm_up(case, embeddings)
    before = reset_peak()
    began = time.perf_counter()
    loss = SIDES[case.side](head, embeddings, labels[share])
    loss.backward()
    seconds = time.perf_counter() - began
    grown = memory("VmHWM") - before
    weight = head.centres.weight
    return asdict(Cost(weight.numel() * weight.element_size(), grown, seconds, loss.item()))


def warm_up(case: Case, embeddings: Tensor) -> None:
    """Take a tiny step first, which loads what is loaded once."""
    head = MarginHead(case.width, 2 * case.processes, sharded=case.processes > 1)
    SIDES[case.side](head, embeddings.detach(), torch.zeros(len(embeddings), dtype=torch.int64)).backward()


def measure_all(short: bool) -> dict[str, Cost]:
    """Measure every case, each in fresh processes, and keep the largest numbers; tiny forms share their processes.

    Args:
        short: Whether sizes are tiny.
    """
    from benchmarks import margin_memory  # by its own name, not as __main__, which other processes do not have

    pool, found = GlooPool(), {}
    try:
        for name, case in cases(short).items():
            found[name] = largest(pool.run(margin_memory.measure, case.processes, asdict(case), timeout=1800))
            if not short:
                pool.close()
    finally:
        pool.close()
    return found


def largest(costs: Sequence[dict[str, Any]]) -> Cost:
    """Take the largest numbers of all processes.

    Args:
        costs: What :func:`measure` returned on each.
    """
    return Cost(**{name: max(cost[name] for cost in costs) for name in costs[0]})


def cases(short: bool) -> dict[str, Case]:
    """Return what is measured, by name."""
    people, width, faces = (20_000, 32, 16) if short else (1_000_000, 512, 128)
    return {
        "1 process": Case("ours", people, width, faces),
        "2 processes": Case("ours", people, width, faces, 2),
        "a tenth, ours": Case("ours", people // 10, width, faces),
        "a tenth, plain": Case("plain", people // 10, width, faces),
    }


def judge(costs: dict[str, Cost], short: bool) -> list[Verdict]:
    """Hold the numbers against the goals; tiny forms are judged by their losses alone.

    Args:
        costs: By the names of :func:`cases`.
        short: Whether sizes are tiny.
    """
    goal = f"centres + gradient + < {REST / 1e6:.0f} MB per process"
    rows = []
    for name in ("1 process", "2 processes"):
        cost = costs[name]
        measured = f"{cost.centres / 1e6:.0f} MB + {cost.centres / 1e6:.0f} MB + {cost.rest / 1e6:.0f} MB"
        rows.append(Verdict(name, goal, measured, None if short else cost.rest < REST))
    ours, peer = costs["a tenth, ours"], costs["a tenth, plain"]
    measured = f"{ours.grown / 1e6:.0f} MB against {peer.grown / 1e6:.0f} MB"
    rows.append(Verdict("against the plain way", "grows by less", measured, None if short else ours.grown < peer.grown))
    apart = max(
        abs(costs[one].loss / costs[other].loss - 1)
        for one, other in (("1 process", "2 processes"), ("a tenth, ours", "a tenth, plain"))
    )
    return [*rows, Verdict("same losses", "to 1e-5", f"{apart:.1e} apart", apart < 1e-5)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every case, print the table and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.margin_memory", description=__doc__.splitlines()[0])
    common.add_arguments(parser, repeats=1)
    options = parser.parse_args(arguments)
    costs = measure_all(options.short)
    rows = [
        [name, *(f"{size / 1e6:.0f} MB" for size in (cost.centres, cost.grown)), f"{cost.seconds:.2f} s"]
        for name, cost in costs.items()
    ]
    print(common.format_table(["", "centres", "step above them", "time, 1 thread"], rows))
    details = {name: asdict(cost) for name, cost in costs.items()}
    return common.finish(options, {}, judge(costs, options.short), details=details)


if __name__ == "__main__":
    raise SystemExit(main())
