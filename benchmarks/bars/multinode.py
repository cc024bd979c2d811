"""Two hosts over a wire, while things break: each run against the same run on one host, to the last bit."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.hosts import Hosts, HostsError, obstacle
from benchmarks.multinode import Job, read_lives, run_on_one_host
from benchmarks.registry import Outcome, Proof, bar

STEPS = 20
SILENCE = 60
"""Seconds after which a process gives up another one, where a cable is cut for less than that."""

_Fault = Callable[[Job, Hosts], str]


@contextmanager
def _folder() -> Iterator[Path]:
    """Make a folder for the files of runs."""
    with tempfile.TemporaryDirectory(prefix="farl-hosts-") as folder:
        yield Path(folder)


def _steps(proof: Proof) -> int:
    """Return the length of a run."""
    return 8 if proof.short else STEPS


def _reference(proof: Proof) -> list[dict[int, object]]:
    """Return what both processes saw and computed on one host, in one run for all bars."""

    def make() -> list[dict[int, object]]:
        with _folder() as folder:
            run_on_one_host(folder / "one", _steps(proof))
            return [dict(read_lives(folder / "one" / "record", rank).curve) for rank in (0, 1)]

    return proof.once("one host", make)


def _survive(proof: Proof, fault: _Fault, restarts: int = 0, pause: float = 0.2, silence: int = SILENCE) -> Outcome:
    """Run on two hosts with a fault, and compare with one host."""
    if reason := obstacle():
        return f"not measured: {reason}", None
    reference = _reference(proof)
    with _folder() as folder, Hosts() as hosts:
        job = Job(hosts, folder / "two", restarts, steps=_steps(proof), pause=pause, timeout=silence)
        began = time.monotonic()
        job.start(0)
        job.start(1)
        try:
            told = fault(job, hosts)
        except HostsError as error:
            return f"not measured: {error}", None
        codes = [job.wait(host, 600) for host in (0, 1)]
        lives = [job.lives(rank) for rank in (0, 1)]
        seconds, sent = time.monotonic() - began, hosts.sent(0) / 1e6
    differing = sum(
        found.get(step) != value
        for found, whole in zip((life.curve for life in lives), reference, strict=True)
        for step, value in whole.items()
    )
    repeated = sum(len(life.contradictions) for life in lives)
    text = f"{told}; {len(lives[0].starts)} lives, {differing} of {2 * len(reference[0])} steps differ, "
    text += f"{sent:.0f} MB sent, {seconds:.0f} s"
    return text, codes == [0, 0] and differing == 0 and repeated == 0


@bar("two hosts", "loss and samples of every step equal one host's, bit for bit")
def two_hosts(proof: Proof) -> Outcome:
    """Nothing breaks."""
    return _survive(proof, lambda _job, _hosts: "undisturbed", pause=0.0)


@bar("two hosts, process killed", "continues from the last checkpoint, no sample lost or repeated")
def process_killed(proof: Proof) -> Outcome:
    """The training process of the second host is killed; torchrun starts both again."""

    def fault(job: Job, _: Hosts) -> str:
        job.wait_for_step(5, rank=1)
        job.kill_worker(1)
        return "killed at step 5"

    return _survive(proof, fault, restarts=1)


@bar("two hosts, power lost and back", "continues from the last checkpoint, no sample lost or repeated")
def power_back(proof: Proof) -> Outcome:
    """The second host falls silent, and is started again when the first one has noticed."""

    def fault(job: Job, hosts: Hosts) -> str:
        job.wait_for_step(5, rank=1)
        hosts.power_off(1)
        job.wait_for_text(0, "lost contact with another process", timeout=80)
        hosts.mend()
        job.start(1)
        return "power lost at step 5"

    return _survive(proof, fault, restarts=2, silence=20)


@bar("two hosts, link cut for 20 s", "the run goes on, nothing differs")
def link_cut(proof: Proof) -> Outcome:
    """The cable is cut in the middle of the run."""

    def fault(job: Job, hosts: Hosts) -> str:
        job.wait_for_step(4)
        hosts.cut()
        time.sleep(2 if proof.short else 20)
        hosts.mend()
        return "cut at step 4"

    return _survive(proof, fault)


@bar("two hosts, slow link", "the run goes on at 50 Mbit/s, nothing differs")
def slow_link(proof: Proof) -> Outcome:
    """What each host can send is limited to a fraction of what it wants to."""

    def fault(job: Job, hosts: Hosts) -> str:
        job.wait_for_step(2)
        hosts.slow_down("50mbit")
        return "50 Mbit/s from step 2"

    return _survive(proof, fault, pause=0.0)


@bar("two hosts, one loses power", "the other stops within 20 s + 30 s, and says why")
def power_lost(proof: Proof) -> Outcome:
    """The second host falls silent for good; without restarts the first must not wait for ever."""
    if reason := obstacle():
        return f"not measured: {reason}", None
    with _folder() as folder, Hosts() as hosts:
        job = Job(hosts, folder / "two", steps=10 * _steps(proof), pause=0.2, timeout=20)
        job.start(0)
        job.start(1)
        job.wait_for_step(3, rank=1)
        hosts.power_off(1)
        began = time.monotonic()
        code = job.wait(0, 300)
        seconds = time.monotonic() - began
        says = "lost contact with another process" in job.log(0)
    return f"stopped after {seconds:.0f} s, code {code}, reason {'given' if says else 'missing'}", (
        code != 0 and says and seconds <= 50
    )
