"""What is said when another process of a run is gone."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from farl_lightning import cli
from farl_lightning.cli.contact import lost_contact
from farl_lightning.testing.distributed import run_distributed


def _wait_for_nobody():
    group = dist.new_group(timeout=timedelta(seconds=1))
    if dist.get_rank() == 1:
        time.sleep(3)
        return None
    try:
        dist.all_reduce(torch.ones(1), group=group)
    except RuntimeError as error:
        return str(lost_contact(error)), lost_contact(ValueError("Connection closed by peer"))
    return "nothing was noticed"


def test_a_process_that_falls_silent_is_told_from_other_errors():
    (text, other), _ = run_distributed(_wait_for_nobody, 2)
    assert other is None
    assert text.startswith("rank 0 of 2 on ")
    assert "lost contact with another process\n" in text
    assert "Timed out waiting 1000ms" in text or "Application timeout" in text
    assert "--ckpt_path last" in text


def test_a_single_process_has_nobody_to_lose():
    assert lost_contact(RuntimeError("Connection reset by peer")) is None


def test_the_command_line_says_it_instead_of_a_traceback(monkeypatch, capsys):
    def fail(_):
        raise RuntimeError("pair.cc:545] Read error [192.0.2.2]:45749: Connection reset by peer")

    monkeypatch.setattr(cli, "_dispatch", fail)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    assert cli.main(["fit"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "farl-lightning fit:"
    assert "rank 0 of 2 on " in lines[1]
    assert "192.0.2.2" in lines[2]
    with pytest.raises(RuntimeError, match="Connection reset by peer"):
        cli.main(["fit", "--debug"])
