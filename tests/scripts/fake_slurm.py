"""Stand-ins for SLURM's programs, and for the program that they start: ``python fake_slurm.py PROGRAM ARGUMENTS``."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(os.environ["FAKE_SLURM"])


def options(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Split ``--name=value`` options from the command that follows."""
    found: dict[str, str] = {}
    for number, word in enumerate(words):
        if not word.startswith("--"):
            return found, words[number:]
        name, _, value = word[2:].partition("=")
        found[name] = value
    return found, []


def sbatch(words: list[str]) -> None:
    """Become the batch script, started from a copy elsewhere and with its ``#SBATCH`` options, as slurmd does."""
    given, (script, *arguments) = options(words)
    lines = Path(script).read_text().splitlines()
    given = {**options([line.split()[1] for line in lines if line.startswith("#SBATCH ")])[0], **given}
    copy = FOLDER / "slurm_script"
    shutil.copy(script, copy)
    nodes, tasks = int(given["nodes"]), given["ntasks-per-node"]
    slurm = {
        "SLURM_JOB_ID": "4711",
        "SLURM_SUBMIT_DIR": os.getcwd(),
        "SLURM_NNODES": str(nodes),
        "SLURM_JOB_NODELIST": f"node[1-{nodes}]",
        "SLURM_NTASKS_PER_NODE": tasks,
        "SLURM_NTASKS": str(nodes * int(tasks)),
        "SLURM_RESTART_COUNT": os.environ.get("SLURM_RESTART_COUNT", "0"),
    }
    os.chdir("/")
    os.execve("/bin/bash", ["bash", str(copy), *arguments], {**os.environ, **slurm})  # noqa: S606


def srun(words: list[str]) -> None:
    """Start a command once per task, hand signals to all, end with the highest code."""
    given, command = options(words)
    nodes = int(os.environ["SLURM_NNODES"])
    count = int(given.get("ntasks", os.environ["SLURM_NTASKS"]))
    tasks = []
    for rank in range(count):
        own = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank % (count // nodes), "SLURM_NODEID": rank // (count // nodes)}
        own = {"SLURM_NTASKS": count, **own, "FAKE_OPTIONS": " ".join(sorted(given))}
        tasks.append(subprocess.Popen(command, env={**os.environ, **{name: str(own[name]) for name in own}}))
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, lambda number, _: [task.send_signal(number) for task in tasks])
    codes = [task.wait() for task in tasks]
    sys.exit(max(code if code >= 0 else 128 - code for code in codes))


def scontrol(words: list[str]) -> None:
    """Name hosts, note what is requeued."""
    if words[:2] == ["show", "hostnames"]:
        first, last = words[2].removeprefix("node[").removesuffix("]").split("-")
        print("\n".join(f"node{number}" for number in range(int(first), int(last) + 1)))
    else:
        with (FOLDER / "scontrol").open("a") as file:
            file.write(" ".join(words) + "\n")


def farl_lightning(words: list[str]) -> None:
    """Note how it was started; then do as told: end, fail, or wait for a signal as the real one does."""
    rank = os.environ.get("SLURM_PROCID", "0")
    names = ("SLURM_", "MASTER_", "OMP_", "TORCH_", "GLOO_", "NCCL_", "FAKE_OPTIONS")
    heard: list[int] = []
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, lambda number, _: heard.append(number))
    environment = {name: value for name, value in os.environ.items() if name.startswith(names)}
    text = json.dumps({"arguments": words, "environment": environment, "folder": os.getcwd()})
    (FOLDER / f"task{rank}.part").write_text(text)
    (FOLDER / f"task{rank}.part").rename(FOLDER / f"task{rank}.json")
    plan = os.environ.get("FAKE_PLAN", "end")
    end = time.monotonic() + 60
    while plan == "wait" and not heard and time.monotonic() < end:
        time.sleep(0.02)
    sys.exit(128 + heard[0] if heard else 3 if plan == "fail" else 0)


if __name__ == "__main__":
    program, *rest = sys.argv[1:]
    {"sbatch": sbatch, "srun": srun, "scontrol": scontrol}.get(program, farl_lightning)(rest)
