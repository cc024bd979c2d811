"""Two hosts on one machine: network namespaces joined by a cable (a veth pair) that can be cut and slowed down."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

_NUMBERS = itertools.count()
_PATIENCE = 30.0  # seconds for what takes no time

INTERFACE = "cable0"
"""The network interface of every host; gloo takes it as ``GLOO_SOCKET_IFNAME``, NCCL as ``NCCL_SOCKET_IFNAME``."""


class HostsError(RuntimeError):
    """Hosts cannot be made or changed; the message is the tool's."""


def obstacle() -> str | None:
    """Return why this machine cannot make hosts, or None if it can."""
    if not shutil.which("ip"):
        return "iproute2 is not installed (apt-get install iproute2)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with Hosts():
            return None
    except HostsError as error:
        return f"network namespaces are not allowed here: {error}"


class Hosts:
    """Two hosts with one interface each, at the ends of one cable, and no way to anywhere else.

    Entering makes them and leaving removes them, with every process that still runs there. Addresses are those set
    aside for documentation (RFC 5737), so that no real machine can be meant.
    """

    addresses = ("192.0.2.1", "192.0.2.2")

    def __init__(self) -> None:
        mark = f"{os.getpid()}-{next(_NUMBERS)}"
        self.names = (f"farl-{mark}-a", f"farl-{mark}-b")

    def __enter__(self) -> Hosts:
        """Make both hosts and join them."""
        try:
            for name in self.names:
                _ip("netns", "add", name)
            ends = [["name", INTERFACE, "netns", name] for name in self.names]
            _ip("link", "add", *ends[0], "type", "veth", "peer", *ends[1])
            for name, address in zip(self.names, self.addresses, strict=True):
                _ip("-n", name, "address", "add", f"{address}/24", "dev", INTERFACE)
                for device in ("lo", INTERFACE):
                    _ip("-n", name, "link", "set", device, "up")
        except HostsError:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove both hosts."""
        self.close()

    def close(self) -> None:
        """End what runs on the hosts, and remove them."""
        for host, name in enumerate(self.names):
            if name in _ip("netns", "list"):
                self.kill(host)
                _ip("netns", "delete", name)

    def command(self, host: int, arguments: Sequence[str]) -> list[str]:
        """Return a command as it is started on a host.

        Args:
            host: 0 or 1.
            arguments: Program and arguments.
        """
        return ["ip", "netns", "exec", self.names[host], *arguments]

    def processes(self, host: int) -> list[int]:
        """Return the ids of all processes of a host."""
        return [int(line) for line in _ip("netns", "pids", self.names[host]).split()]

    def kill(self, host: int) -> None:
        """End every process of a host, which cannot defend itself."""
        while found := self.processes(host):
            for process in found:
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                _wait_for_end(process)

    def power_off(self, host: int) -> None:
        """Take a host away as a power failure does: the cable goes dead first, so nobody is told."""
        self.cut()
        self.kill(host)

    def cut(self) -> None:
        """Cut the cable: packets vanish, connections stay open."""
        _ip("-n", self.names[1], "link", "set", INTERFACE, "down")

    def mend(self) -> None:
        """Mend the cable."""
        _ip("-n", self.names[1], "link", "set", INTERFACE, "up")

    def slow_down(self, rate: str) -> None:
        """Limit what each host can send.

        Args:
            rate: As ``tc`` writes it, such as ``"10mbit"``.

        Raises:
            HostsError: If the kernel cannot.
        """
        for name in self.names:
            shape = ["tbf", "rate", rate, "burst", "64kb", "latency", "200ms"]
            _call(["tc", "-n", name, "qdisc", "replace", "dev", INTERFACE, "root", *shape])

    def sent(self, host: int) -> int:
        """Return the bytes that a host has sent over the cable."""
        counter = f"/sys/class/net/{INTERFACE}/statistics/tx_bytes"
        return int(_call(self.command(host, ["cat", counter])))


def _wait_for_end(process: int) -> None:
    """Wait until a killed process is gone or a zombie, so that it is not found again."""
    state, until = Path(f"/proc/{process}/stat"), time.monotonic() + _PATIENCE
    try:
        while state.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0] != "Z":
            if time.monotonic() > until:
                raise HostsError(f"process {process} was killed and did not end within {_PATIENCE:.0f} s")
            os.sched_yield()
    except (OSError, IndexError):
        return


def _ip(*arguments: str) -> str:
    """Run ``ip``."""
    return _call(["ip", *arguments])


def _call(command: Sequence[str]) -> str:
    """Run a tool and return what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines()
        raise HostsError(f"{' '.join(command)}: {reason[0] if reason else done.returncode}")
    return done.stdout
