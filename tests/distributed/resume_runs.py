"""Runs trainings that may be killed, in processes that import everything once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Server:
    """The process that forks runs."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, "-m", "tests.distributed.resume_server"]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, out: Path, **job) -> list[list[dict]]:
        """Run a job and return what each rank recorded, rows by step."""
        out.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        job = {"every": 2, "workers": 0, "world": 1, "batch_size": 4, **job}
        self._process.stdin.write(json.dumps({**job, "out": str(out), "port": port}) + "\n")
        self._process.stdin.flush()
        codes = json.loads(self._process.stdout.readline())
        code = -signal.SIGKILL if job.get("kill_at") else 128 + signal.SIGTERM if job.get("signal_at") else 0
        expected = [code] * job["world"]
        logs = "".join((out / f"rank{rank}.log").read_text()[-3000:] for rank in range(job["world"]))
        assert codes == expected, logs
        return [
            [json.loads(line) for line in (out / f"rank{rank}.jsonl").read_text().splitlines()]
            for rank in range(job["world"])
        ]

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
