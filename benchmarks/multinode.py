"""Train on two hosts over a wire while things break, and compare with a run on one host.

Every run is ``torchrun -m farl_lightning fit --config pretrain.yaml --config trainer/multinode.yaml`` with tiny sizes,
one process per host. A :class:`~benchmarks.recorder.Recorder` in each process writes what every step saw and computed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.hosts import INTERFACE, Hosts
from benchmarks.registry import ROOT

PORT = 29500
SAVE_EVERY = 2

_SIZES = {
    "model.fit_images": 8,
    "model.clip.embed_dim": 16,
    "model.clip.image.image_size": 32,
    "model.clip.image.patch_size": 8,
    "model.clip.image.width": 48,
    "model.clip.image.depth": 2,
    "model.clip.image.heads": 3,
    "model.clip.text.width": 48,
    "model.clip.text.depth": 2,
    "model.clip.text.heads": 3,
    "model.optim.warmup_steps": 0,
    "model.optim.schedule": "constant",  # so that runs of two lengths agree while both last
    "model.objectives.masked_image.target.vocab_size": 8,
    "data.transform.image_size": 32,
    "data.transform.patch_size": 8,
    "data.transform.num_masked": 6,
    "data.transform.min_block": 2,
    "data.batch_size": 4,
    "data.num_workers": 0,
    "data.train_count": 80,
    "data.val_count": 8,
}
_TRAINER = {
    "accelerator": "cpu",
    "precision": "32-true",
    "check_val_every_n_epoch": 1,
    "val_check_interval": 1.0,
    "limit_val_batches": 0,
    "log_every_n_steps": 1,
    "enable_progress_bar": "false",
    "logger": "CSVLogger",
    "logger.save_dir": "runs",
    "logger.name": "two_hosts",
    "callbacks.every_n_train_steps": SAVE_EVERY,
}


class Step(NamedTuple):
    """What a step of one process saw and computed: the keys of its samples, and its loss as a hexadecimal float."""

    keys: tuple[str, ...]
    loss: str


class Lives(NamedTuple):
    """What a process recorded: for each life where it began and its steps by number."""

    starts: list[str | None]
    steps: list[dict[int, Step]]

    @property
    def curve(self) -> dict[int, Step]:
        """The steps that count: those of a later life replace those that were lost with an earlier one."""
        return {number: step for life in self.steps for number, step in life.items()}

    @property
    def contradictions(self) -> list[int]:
        """Steps that were repeated after a restart with another outcome."""
        return [
            number
            for life in self.steps
            for number, step in life.items()
            if any(other.get(number, step) != step for other in self.steps)
        ]


def read_lives(folder: Path, rank: int) -> Lives:
    """Read what a process recorded; nothing if it has not begun.

    Args:
        folder: The recorder's.
        rank: Global rank.
    """
    lives = Lives([], [])
    file = folder / f"rank{rank}.jsonl"
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        row = json.loads(line)
        if "pid" in row:
            lives.starts.append(row["from"])
            lives.steps.append({})
        else:
            lives.steps[-1][row["step"]] = Step(tuple(row["keys"]), row["loss"])
    return lives


def flags(folder: Path, *, nodes: int, steps: int, pause: float = 0.0, timeout: int = 120) -> list[str]:
    """Return the arguments of ``farl-lightning`` for a tiny run of two processes.

    Args:
        folder: The run's own.
        nodes: 2 for one process each, 1 for both on one host.
        steps: Length of the run.
        pause: Seconds between steps.
        timeout: Seconds after which a process that waits for another gives up.
    """
    recorder = {"class_path": "benchmarks.recorder.Recorder"}
    arguments = {"folder": str(folder / "record"), "pause": pause}
    trainer = {
        "num_nodes": nodes,
        "devices": 2 // nodes,
        "max_steps": steps,
        "strategy.timeout": f"0:{timeout // 60:02d}:{timeout % 60:02d}",
        **_TRAINER,
        "callbacks+": json.dumps({**recorder, "init_args": arguments}),
    }
    given = {f"trainer.{name}": value for name, value in trainer.items()} | _SIZES | {"ckpt_path": "last"}
    configs = ["--config=pretrain.yaml", "--config=trainer/multinode.yaml"]
    return ["fit", *configs, *(f"--{name}={value}" for name, value in given.items())]


def torchrun(arguments: Sequence[str]) -> list[str]:
    """Return a command that runs torchrun with this Python."""
    return [sys.executable, "-m", "torch.distributed.run", *arguments, "-m", "farl_lightning"]


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a training process on a CPU."""
    own = {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        # torchrun's agents count restarts each for itself; without a store of its own, a new attempt can read the
        # addresses of processes that are gone
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }
    return {**os.environ, **own, **more}


def run_on_one_host(folder: Path, steps: int, timeout: float = 300) -> None:
    """Run both processes on this host, to the end.

    Args:
        folder: The run's own; made.
        steps: Length of the run.
        timeout: Seconds.

    Raises:
        RuntimeError: If the run failed, or did not end in time; the message ends with what it printed.
    """
    folder.mkdir(parents=True)
    command = torchrun(["--standalone", "--nproc-per-node=2"]) + flags(folder, nodes=1, steps=steps)
    with (folder / "log0").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=log, stderr=log, start_new_session=True
        )
        try:
            code: int | str = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = f"none within {timeout:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # torchrun's processes outlive it
            process.wait(10)
    if code != 0:
        text = (folder / "log0").read_text(encoding="utf-8", errors="replace")
        raise RuntimeError(f"the run on one host failed, exit code {code}:\n{text[-3000:]}")


class Job:
    """One training over two hosts.

    Args:
        hosts: The hosts.
        folder: The run's own, seen by both hosts as a shared file system is; made.
        restarts: How often torchrun begins again after a failure.
        meeting: Seconds for which torchrun may wait for the store where hosts meet; 60 is its own default.
        settings: For :func:`flags`.
    """

    def __init__(self, hosts: Hosts, folder: Path, restarts: int = 0, meeting: int = 60, **settings: Any) -> None:
        folder.mkdir(parents=True)
        self.hosts, self.folder, self.restarts, self.meeting = hosts, folder, restarts, meeting
        self._flags = flags(folder, nodes=2, **settings)
        self._hosts: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, host: int) -> None:
        """Start torchrun on a host, or start it again."""
        address = self.hosts.addresses[0]
        options = [
            "--nnodes=2",
            "--nproc-per-node=1",
            f"--max-restarts={self.restarts}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={address}:{PORT}",
            f"--rdzv-conf=is_host={int(host == 0)},read_timeout={self.meeting}",
            f"--local-addr={self.hosts.addresses[host]}",
            "--monitor-interval=0.5",
        ]
        with (self.folder / f"log{host}").open("a") as log:
            self._hosts[host] = subprocess.Popen(
                self.hosts.command(host, torchrun(options) + self._flags),
                cwd=self.folder,
                env=environment(GLOO_SOCKET_IFNAME=INTERFACE),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait_for_step(self, step: int, rank: int = 0, timeout: float = 120) -> None:
        """Wait until a process has finished a step in its latest life.

        Raises:
            TimeoutError: If that takes too long, or the run ended before.
        """
        self._wait(lambda: max(self.lives(rank).curve, default=0) >= step, timeout, f"step {step}")

    def wait_for_text(self, host: int, text: str, timeout: float = 120) -> None:
        """Wait until a host prints a text.

        Raises:
            TimeoutError: If that takes too long, or the run ended before.
        """
        self._wait(lambda: text in self.log(host), timeout, f"'{text}'", {host})

    def wait(self, host: int, timeout: float = 300) -> int:
        """Wait until torchrun on a host ends, and return its exit code.

        Raises:
            TimeoutError: If that takes too long.
        """
        try:
            return self._hosts[host].wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"host {host} did not end within {timeout:.0f} s:\n{self.log(host)[-3000:]}") from None

    def kill_worker(self, host: int) -> None:
        """Kill the training process of a host; its torchrun lives on."""
        record = self.folder / "record" / f"rank{host}.jsonl"
        pids = [json.loads(line).get("pid") for line in record.read_text(encoding="utf-8").splitlines()]
        os.kill([pid for pid in pids if pid][-1], 9)

    def lives(self, rank: int) -> Lives:
        """Return what a process recorded so far."""
        return read_lives(self.folder / "record", rank)

    def log(self, host: int) -> str:
        """Return what a host printed."""
        return (self.folder / f"log{host}").read_text(encoding="utf-8", errors="replace")

    def _wait(self, reached: Callable[[], bool], timeout: float, what: str, living: Collection[int] = (0, 1)) -> None:
        end = time.monotonic() + timeout
        while not reached():
            ended = [host for host, process in self._hosts.items() if host in living and process.poll() is not None]
            if ended or time.monotonic() > end:
                logs = "\n".join(f"--- host {host}\n{self.log(host)[-3000:]}" for host in self._hosts)
                raise TimeoutError(f"{what} was not reached ({'ended' if ended else 'too slow'}):\n{logs}")
            time.sleep(0.05)
