"""Two hosts over a wire: the same numbers as one host, and a clear end when one loses power."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest

from benchmarks.hosts import Hosts, HostsError, obstacle
from benchmarks.multinode import Job, read_lives, run_on_one_host

STEPS = 4
TIMEOUT = 20  # seconds until a process gives up another one


@pytest.fixture
def hosts():
    if reason := obstacle():
        pytest.skip(f"two hosts cannot be simulated: {reason}")
    with Hosts() as both:
        yield both


def test_hosts_see_each_other_alone_and_leave_nothing_behind(hosts):
    def ping(host: int) -> list[str]:
        source = f"import socket; socket.create_connection(('{hosts.addresses[1 - host]}', 9), 0.3)"
        return hosts.command(host, [sys.executable, "-c", source])

    refused = subprocess.run(ping(0), capture_output=True, text=True, timeout=60)
    assert "ConnectionRefusedError" in refused.stderr  # somebody answered
    hosts.cut()
    silent = subprocess.run(ping(0), capture_output=True, text=True, timeout=60)
    assert "ConnectionRefusedError" not in silent.stderr
    assert silent.returncode
    hosts.mend()
    sleeper = subprocess.Popen(hosts.command(1, ["sleep", "60"]))
    until = time.monotonic() + 20
    while not hosts.processes(1) and time.monotonic() < until:
        time.sleep(0.01)
    hosts.kill(1)
    assert sleeper.wait(10) == -9
    with pytest.raises(HostsError, match=r"tc .*: "):
        hosts.slow_down("no rate")
    hosts.close()
    with pytest.raises(HostsError):
        hosts.sent(0)


def test_two_hosts_compute_what_one_does_until_one_loses_power_and_the_other_says_so(hosts, tmp_path):
    """That the run comes back after it with nothing lost is a bar: it takes a second life of both hosts."""
    run_on_one_host(tmp_path / "one", STEPS)
    job = Job(hosts, tmp_path / "two", steps=100 * STEPS, pause=0.2, timeout=TIMEOUT)
    job.start(0)
    job.start(1)
    for rank in (0, 1):
        job.wait_for_step(STEPS, rank)
    hosts.power_off(1)  # without a word: nobody is told that it is gone
    assert job.wait(0, TIMEOUT + 60) not in (0, None)
    log = job.log(0)
    assert "lost contact with another process" in log
    assert re.search(r"rank 0 of 2 on \S+, step \d+: ended while .*training batch", log)
    assert "Traceback" not in log[: log.index("failed (exitcode: 1)")]  # after that torchrun shows one of its own
    for rank in (0, 1):
        reference, lives = read_lives(tmp_path / "one" / "record", rank), job.lives(rank)
        assert reference.starts == lives.starts == [None]
        assert sorted(reference.curve) == list(range(1, STEPS + 1))
        for number, step in reference.curve.items():
            assert len(step.keys) == 4
            assert lives.curve[number] == step  # keys and loss, to the last bit
