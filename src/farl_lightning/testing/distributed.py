"""Run a function on several gloo processes from a test, without paying for a new set of processes each time.

Example:
    >>> from farl_lightning.functional.distributed import rank
    >>> run_distributed(rank, 2)
    [0, 1]
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pickle
import socket
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")

ATTEMPTS = 3
"""How often processes try to form a group: gloo loses a connection now and then when many of them start at once."""

GRACE = 5.0
"""Seconds that processes get to notice a failure, or to end."""


class RankError(RuntimeError):
    """A function failed on one of the processes; the message holds that process's traceback."""


class _NotConnectedError(RankError):
    """The processes did not form a group, so that nothing is known of the function."""


class GlooPool:
    """A set of CPU processes, one thread each, that wait for functions to run as one process group.

    Processes start when they are first needed and are reused; each call forms a fresh process group of the size it
    asks for, so that calls share nothing. The group meets in a file, never on a fixed port: pools of parallel test
    runs cannot collide.
    """

    def __init__(self) -> None:
        self._workers: list[tuple[BaseProcess, Connection]] = []

    def run(self, fn: Callable[..., T], world_size: int, *args: Any, timeout: float = 300.0) -> list[T]:
        """Call ``fn(*args)`` on every rank of a gloo group.

        Args:
            fn: A function at the top level of an importable module. Where a group could not be formed, new processes
                try again.
            world_size: Number of processes, at least 1.
            args: Its arguments, pickled; the same for every rank.
            timeout: Seconds until the call is given up and the processes are ended. Starting processes counts.

        Returns:
            What each rank returned, in the order of ranks. Tensors arrive as copies.

        Raises:
            RankError: If a rank raises or dies; the message ends with its traceback.
            TimeoutError: If a rank does not answer in time; the message names it.
        """
        deadline = time.monotonic() + timeout
        return self._retry(lambda: self._try(fn, world_size, args, timeout, deadline), ATTEMPTS)

    def _retry(self, call: Callable[[], list[T]], attempts: int) -> list[T]:
        """Call with new processes where there was no group, until the attempts are used up."""
        try:
            return call()
        except _NotConnectedError:
            if attempts == 1:
                raise
            self.close()
            return self._retry(call, attempts - 1)

    def _try(
        self, fn: Callable[..., T], world_size: int, args: tuple[Any, ...], timeout: float, deadline: float
    ) -> list[T]:
        """Hand the call to every process once, and wait for the answers."""
        self._grow(world_size)
        with tempfile.TemporaryDirectory(prefix="gloo-pool-", ignore_cleanup_errors=True) as folder:
            store = str(Path(folder) / "store")
            for rank, (_, pipe) in enumerate(self._workers[:world_size]):
                pipe.send_bytes(pickle.dumps((fn, args, rank, world_size, store, timeout)))
            return self._collect(world_size, deadline)

    def close(self) -> None:
        """End all processes; the next call starts new ones."""
        workers, self._workers = self._workers, []
        for process, pipe in workers:
            pipe.close()
            process.terminate()
        for process, _ in workers:
            process.join(GRACE)
            if process.is_alive():
                process.kill()
                process.join()

    def _grow(self, count: int) -> None:
        """Start processes until there are ``count``."""
        context = multiprocessing.get_context("spawn")
        while len(self._workers) < count:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), name=f"gloo-pool-{len(self._workers)}")
            process.start()
            theirs.close()
            self._workers.append((process, ours))

    def _collect(self, world_size: int, deadline: float) -> list[Any]:
        """Wait for every rank's answer; after a failure the others get a moment, as their collectives break too."""
        answers: dict[int, Any] = {}
        failures: list[str] = []
        error: type[RankError] = RankError
        waiting: dict[Any, int] = {pipe: rank for rank, (_, pipe) in enumerate(self._workers[:world_size])}
        try:
            while waiting and (ready := wait(list(waiting), max(0.0, deadline - time.monotonic()))):
                for pipe in ready:
                    rank = waiting[pipe]
                    succeeded, answers[rank] = self._receive(rank)
                    del waiting[pipe]
                    if not succeeded:
                        error = _NotConnectedError if succeeded is None else error
                        failures.append(f"rank {rank} failed:\n{answers[rank]}")
                        deadline = min(deadline, time.monotonic() + GRACE)
        finally:
            if waiting or not all(process.is_alive() for process, _ in self._workers):
                self.close()
        if failures:
            raise error("\n".join(failures))
        if waiting:
            raise TimeoutError(f"no answer in time from rank(s) {sorted(waiting.values())} of {world_size}")
        return [answers[rank] for rank in range(world_size)]

    def _receive(self, rank: int) -> tuple[bool | None, Any]:
        """Read one rank's answer: ``(True, result)``, ``(False, what happened)``, or None first without a group."""
        process, pipe = self._workers[rank]
        try:
            answer: tuple[bool | None, Any] = pickle.loads(pipe.recv_bytes())  # noqa: S301 (written by our own child process)
        except EOFError:
            process.join(GRACE)
            return False, f"the process ended with exit code {process.exitcode}"
        return answer


def _serve(pipe: Connection) -> None:
    """Run what arrives until the other end is closed."""
    torch.set_num_threads(1)
    if "lo" in {name for _, name in socket.if_nameindex()}:  # a host name that resolves nowhere must not matter
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    while True:
        try:
            message = pipe.recv_bytes()
        except EOFError:
            return
        pipe.send_bytes(_answer(message))


def _answer(message: bytes) -> bytes:
    """Run one call and pickle ``(True, result)`` or ``(False, traceback)``; None for False if there was no group."""
    connected = False
    try:
        fn, args, rank, world_size, store, timeout = pickle.loads(message)  # noqa: S301 (from our own parent process)
        limit = timedelta(seconds=timeout)
        dist.init_process_group("gloo", f"file://{store}", timeout=limit, world_size=world_size, rank=rank)
        connected = True
        try:
            # by value: tensors must not live in shared memory that ends with this process
            return pickle.dumps((True, fn(*args)))
        finally:
            dist.destroy_process_group()
    except Exception:
        return pickle.dumps((False if connected else None, traceback.format_exc()))


_POOL = GlooPool()
atexit.register(_POOL.close)


def run_distributed(fn: Callable[..., T], world_size: int, *args: Any, timeout: float = 300.0) -> list[T]:
    """Call a function on every rank of a gloo group, in processes that live as long as this one.

    Args:
        fn: A function at the top level of an importable module.
        world_size: Number of processes, at least 1.
        args: Its arguments, pickled; the same for every rank.
        timeout: Seconds until the call is given up.

    Returns:
        What each rank returned, in the order of ranks.

    Raises:
        RankError: If a rank raises or dies.
        TimeoutError: If a rank does not answer in time.
    """
    return _POOL.run(fn, world_size, *args, timeout=timeout)
