"""Runs trainings that may be killed, in processes that import everything once."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


LIMIT = 360.0
"""Seconds for one job. Its processes end themselves sooner: see the server."""


class Server:
    """The process that forks runs; it starts with the first one, and anew after one that did not end."""

    def __init__(self, limit: float = LIMIT) -> None:
        self._limit = limit
        self._process: subprocess.Popen[str] | None = None

    def run(self, out: Path, **job) -> list[list[dict]]:
        """Run a job and return what each rank recorded, rows by step."""
        out.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        job = {"every": 2, "workers": 0, "world": 1, "batch_size": 4, **job}
        codes = self._call({**job, "out": str(out), "port": port})
        code = -signal.SIGKILL if job.get("kill_at") else 128 + signal.SIGTERM if job.get("signal_at") else 0
        expected = [code] * job["world"]
        logs = "".join((out / f"rank{rank}.log").read_text()[-3000:] for rank in range(job["world"]))
        assert codes == expected, logs
        return [
            [json.loads(line) for line in (out / f"rank{rank}.jsonl").read_text().splitlines()]
            for rank in range(job["world"])
        ]

    def _call(self, job: dict) -> list[int]:
        """Hand a job to the server, and wait for the exit codes for a limited time."""
        process = self._process = self._process or _start()
        try:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], self._limit)
            if not ready:
                raise TimeoutError(f"no answer within {self._limit:g} s to {job}")
            return json.loads(process.stdout.readline())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the server with everything it started."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def _start() -> subprocess.Popen[str]:
    """Start the process, in a group of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.distributed.resume_server"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
