"""``--ckpt_path last``: start, continue, fall back; the processes agree."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch

from farl_lightning.cli.arguments import read_settings
from farl_lightning.cli.last import SameStart, checkpoint_folders, newest, resolve_word
from farl_lightning.testing.distributed import RankError, run_distributed

LAST = ("fit", "--config", "fake", "--ckpt_path", "last")


def steps(path: Path) -> int:
    return torch.load(path, weights_only=True)["global_step"]


def age(path: Path, seconds: int) -> None:
    moment = path.stat().st_mtime - seconds
    os.utime(path, (moment, moment))


def test_the_first_run_starts_and_the_second_continues(run, here):
    status, _, err = run(*LAST)
    assert status == 0, err
    assert "--ckpt_path last: no checkpoint in 'runs/fake/*/checkpoints', '.' yet, so a new run begins" in err
    status, _, err = run(*LAST, "--trainer.max_steps", "5")
    assert status == 0, err
    assert "so a new run begins" not in err
    found = re.search(r"Restored all states from the checkpoint at (\S+)", err)
    assert Path(found.group(1)).parts[:4] == ("runs", "fake", "version_0", "checkpoints")
    assert steps(here / "runs/fake/version_1/checkpoints/last.ckpt") == 5
    # a fixed version keeps the whole run in one folder
    fixed = [*LAST, "--trainer.logger.version", "nightly"]
    for count, begins in ((3, True), (4, False)):
        status, _, err = run(*fixed, "--trainer.max_steps", count)
        assert status == 0, err
        assert ("so a new run begins" in err) == begins
    assert max(map(steps, (here / "runs/fake/nightly/checkpoints").glob("*.ckpt"))) == 4


def test_the_settings_inside_are_compared_as_with_any_other_path(run, last):
    status, _, err = run(*LAST, "--model.objectives.contrast.weight", "2")
    assert status == 2
    assert "model.objectives.contrast.weight: 1.0 in runs/fake/version_0/checkpoints/" in err
    assert run(*LAST, "--model.objectives.contrast.weight", "2", "--ckpt_override", "--trainer.max_steps", "3")[0] == 0


def test_a_damaged_newest_checkpoint_is_passed_over_loudly(run, last, here):
    (other,) = set(last.parent.glob("*.ckpt")) - {last}
    age(other, 10)
    last.write_bytes(last.read_bytes()[:2000])
    status, _, err = run(*LAST, "--trainer.max_steps", "4")
    assert status == 0, err
    assert "WARNING: --ckpt_path last: checkpoint 'runs/fake/version_0/checkpoints/last.ckpt' cannot be read" in err
    assert f"from the checkpoint at {other.relative_to(here)}" in err
    assert steps(here / "runs/fake/version_1/checkpoints/last.ckpt") == 4


def test_weights_alone_do_not_continue_a_run(tmp_path):
    weights, whole = tmp_path / "weights.ckpt", tmp_path / "whole.ckpt"
    torch.save({"state_dict": {}}, weights)
    torch.save({"state_dict": {}, "loops": {}}, whole)
    age(whole, 10)
    assert newest([weights, whole]) == whole
    assert newest([weights]) is None


def test_evaluation_takes_the_newest_and_needs_one(run, here):
    status, _, err = run("test", "--config", "fake", "--ckpt_path", "last")
    assert status == 1
    assert "--ckpt_path last: there is no checkpoint in 'runs/fake/*/checkpoints', '.'; give the path" in err
    assert run("fit", "--config", "fake")[0] == 0
    status, out, err = run("test", "--config", "fake", "--ckpt_path", "last")
    assert status == 0, err
    assert "test/" in out


def test_words_that_mean_nothing_to_a_new_process(run, here):
    status, _, err = run("fit", "--config", "fake", "--ckpt_path", "best")
    assert status == 2
    assert "a new process does not know which checkpoint was best" in err
    status, _, err = run("fit", "--config", "fake", "--ckpt_path", "hpc")
    assert status == 1
    assert "--ckpt_path hpc: there is no checkpoint in '.'" in err


def test_what_slurm_saved_last_is_found(run, last, here):
    hpc = here / "hpc_ckpt_3.ckpt"
    hpc.write_bytes(last.read_bytes())
    for word in ("hpc", "last"):
        settings = read_settings("fit", ["--config", "fake", "--ckpt_path", word])
        assert resolve_word(settings) == (word == "last")
        assert settings.tree["ckpt_path"] == "hpc_ckpt_3.ckpt"
        assert settings.argv[-1] == "--ckpt_path=hpc_ckpt_3.ckpt"
    age(hpc, 100)
    settings = read_settings("fit", ["--config", "fake", "--ckpt_path", "last"])
    resolve_word(settings)
    assert str(settings.tree["ckpt_path"]).startswith("runs/fake/version_0/checkpoints/")


@pytest.mark.parametrize(
    ("flags", "folders"),
    [
        ([], ["runs/fake/*/checkpoints"]),
        (["--trainer.logger.version", "3"], ["runs/fake/version_3/checkpoints"]),
        (["--trainer.logger", "false"], ["checkpoints"]),
        (["--trainer.logger", "true", "--trainer.default_root_dir", "/x"], ["/x/lightning_logs/*/checkpoints"]),
        (["--trainer.callbacks.dirpath", "kept"], ["kept", "runs/fake/*/checkpoints"]),
    ],
)
def test_where_the_runs_of_a_config_keep_checkpoints(here, flags, folders):
    settings = read_settings("fit", ["--config", "fake", *flags])
    assert checkpoint_folders(settings.tree) == [Path(folder) for folder in folders]


def _set_up(paths):
    rank = torch.distributed.get_rank()
    SameStart(paths[rank]).setup(None, None, "fit")
    return paths[rank]


def test_processes_must_have_found_the_same():
    assert run_distributed(_set_up, 2, ["a.ckpt", "a.ckpt"]) == ["a.ckpt", "a.ckpt"]
    with pytest.raises(
        RankError, match=r"(?s)different checkpoints.*rank 0 on \S+: a.ckpt\s+rank 1 on \S+: none"
    ) as told:
        run_distributed(_set_up, 2, ["a.ckpt", None])
    assert {"rank 0 failed", "rank 1 failed"} <= set(re.findall(r"rank \d failed", str(told.value)))
    SameStart(None).setup(None, None, "fit")  # a single process has nobody to agree with
