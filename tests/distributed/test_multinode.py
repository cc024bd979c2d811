"""Two hosts over a wire: the same numbers as one host, and a host that loses power comes back without a trace."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from benchmarks.hosts import Hosts, HostsError, obstacle
from benchmarks.multinode import SAVE_EVERY, Job, Step, read_lives, run_on_one_host

STEPS = 9
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


def test_a_host_that_loses_power_comes_back_and_nothing_is_lost_or_repeated(hosts, tmp_path):
    run_on_one_host(tmp_path / "one", STEPS)
    job = Job(hosts, tmp_path / "two", restarts=2, steps=STEPS, pause=0.2, timeout=TIMEOUT)
    job.start(0)
    job.start(1)
    job.wait_for_step(SAVE_EVERY + 1, rank=1)
    hosts.power_off(1)  # without a word: nobody is told that it is gone
    began = time.monotonic()
    job.wait_for_text(0, "lost contact with another process", timeout=TIMEOUT + 40)
    assert time.monotonic() - began < TIMEOUT + 40
    assert "rank 0 of 2 on " in job.log(0)
    assert "Traceback" not in job.log(0)
    hosts.mend()
    job.start(1)
    assert [job.wait(host, 200) for host in (0, 1)] == [0, 0], job.log(0)[-3000:]
    for rank in (0, 1):
        reference, lives = read_lives(tmp_path / "one" / "record", rank), job.lives(rank)
        assert reference.starts == [None]
        assert len(lives.starts) == 2
        assert lives.starts[1].endswith(".ckpt")
        # the first life was cut off, the second began right after a checkpoint
        assert min(lives.steps[1]) <= max(lives.steps[0]) + 1
        assert (min(lives.steps[1]) - 1) % SAVE_EVERY == 0
        assert lives.contradictions == []
        assert lives.curve == reference.curve  # keys and losses of every step, to the last bit
        assert sorted(lives.curve) == list(range(1, STEPS + 1))
        assert all(isinstance(step, Step) and len(step.keys) == 4 for step in lives.curve.values())
