"""Storms of cut and slow cables: a training over two hosts must come to its end as if nothing had happened."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.hosts import Hosts
from benchmarks.multinode import Job, Lives, read_lives, run_on_one_host

SILENCE = 90
"""Seconds after which a process gives up another one; every cut is shorter."""

MEETING = 600
"""Seconds for which torchrun's agents wait for their store: more than all cuts together and the longest pause that TCP
makes after its attempts to send again met one cut after another."""

LONGEST = 20.0
"""Seconds of the longest cut."""

RATES = ("20mbit", "50mbit", "1gbit")
"""What the cable is slowed down to between cuts."""


class Cuts(NamedTuple):
    """What happened.

    Attributes:
        cuts: Times the cable was cut.
        seconds: All cuts together.
        lost: Samples that one host trained on and two did not.
        repeated: Samples that two hosts trained on and one did not.
        different: First step whose loss differs by rank; empty if none does.
    """

    cuts: int
    seconds: float
    lost: int
    repeated: int
    different: list[str]


def storm_of_cuts(folder: Path, dice: random.Random, cuts: int, steps: int, longest: float = LONGEST) -> Cuts:
    """Train on one host, then on two whose cable is cut again and again, and compare.

    Args:
        folder: For the files of both runs.
        dice: What is random: when, how long, and how slow the cable is afterwards.
        cuts: How often the cable is cut at most; the run may end before.
        steps: Length of the run.
        longest: Seconds of the longest cut.

    Raises:
        RuntimeError: If a run fails.
        TimeoutError: If one does not go on.
    """
    run_on_one_host(folder / "one", steps)
    with Hosts() as hosts:
        job = Job(hosts, folder / "two", steps=steps, pause=0.2, timeout=SILENCE, meeting=MEETING)
        job.start(0)
        job.start(1)
        done = [_cut(job, hosts, dice, step, longest) for step in _moments(dice, cuts, steps)]
        codes = [job.wait(host, 600) for host in (0, 1)]
        if codes != [0, 0]:
            raise RuntimeError(f"the run on two hosts ended with {codes}:\n{job.log(0)[-3000:]}")
        return compare(
            [read_lives(folder / "one" / "record", rank) for rank in (0, 1)],
            [job.lives(rank) for rank in (0, 1)],
            done,
        )


def _moments(dice: random.Random, cuts: int, steps: int) -> list[int]:
    """Choose the steps after which the cable is cut; the last ones are left alone, or a cut might come too late."""
    return sorted(dice.sample(range(1, steps - 4), min(cuts, steps - 5)))


def _cut(job: Job, hosts: Hosts, dice: random.Random, step: int, longest: float) -> float:
    """Wait for a step, cut the cable for a while, and slow it down afterwards."""
    job.wait_for_step(step, timeout=300)
    seconds = dice.uniform(0.5, longest)
    hosts.cut()
    time.sleep(seconds)
    hosts.mend()
    hosts.slow_down(dice.choice(RATES))
    return seconds


def compare(whole: list[Lives], found: list[Lives], cuts: list[float]) -> Cuts:
    """Count what differs from the run on one host.

    Args:
        whole: Records of the run on one host, by rank.
        found: Records of the run on two.
        cuts: Seconds of each cut.
    """
    lost = repeated = 0
    different = []
    for rank, (reference, own) in enumerate(zip(whole, found, strict=True)):
        keys = [[key for step in life.curve.values() for key in step.keys] for life in (reference, own)]
        lost += len(set(keys[0]) - set(keys[1]))
        repeated += max(0, len(keys[1]) - len(keys[0]))
        steps = [step for step, value in reference.curve.items() if own.curve.get(step) != value]
        different += [f"rank {rank}, step {steps[0]}"] if steps else []
    return Cuts(len(cuts), sum(cuts), lost, repeated, different)
