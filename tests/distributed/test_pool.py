"""The gloo pool itself: reuse, failures, time limits."""

from __future__ import annotations

import os
import pickle
import time

import pytest
import torch
import torch.distributed as dist

from farl_lightning.functional.distributed import rank
from farl_lightning.testing import distributed
from farl_lightning.testing.distributed import GlooPool, RankError, run_distributed
from tests.distributed.resume_runs import Server


def _describe(text):
    return text, rank(), dist.get_backend(), torch.get_num_threads(), os.getpid()


def _fail_on_one():
    if rank() == 1:
        raise ValueError("boiled over")
    dist.barrier()


def _sleep_on_one():
    if rank() == 1:
        time.sleep(60)


def _die():
    os._exit(7)


def test_answers_come_in_order_and_processes_are_reused():
    first = run_distributed(_describe, 2, "a")
    second = run_distributed(_describe, 2, "b")
    assert [answer[:4] for answer in first] == [("a", 0, "gloo", 1), ("a", 1, "gloo", 1)]
    assert [answer[4] for answer in first] == [answer[4] for answer in second]
    assert os.getpid() not in {answer[4] for answer in first}


def test_a_failure_is_raised_with_its_traceback_and_the_processes_live_on():
    before = run_distributed(_describe, 2, "before")
    with pytest.raises(RankError, match=r"rank 1 failed(.|\n)*_fail_on_one(.|\n)*ValueError: boiled over"):
        run_distributed(_fail_on_one, 2)
    assert [answer[4] for answer in run_distributed(_describe, 2, "after")] == [answer[4] for answer in before]


def test_death_and_silence_are_named_and_processes_replaced():
    pool = GlooPool()
    try:
        with pytest.raises(RankError, match=r"rank 0 failed:\nthe process ended with exit code 7"):
            pool.run(_die, 1)
        assert [answer[0] for answer in pool.run(_describe, 2, "again")] == ["again", "again"]
        with pytest.raises(TimeoutError, match=r"rank\(s\) \[1\] of 2"):
            pool.run(_sleep_on_one, 2, timeout=1.0)
    finally:
        pool.close()


def _refuse(*_args, **_kwargs):
    raise RuntimeError("connection closed by peer")


def test_processes_that_did_not_meet_are_replaced_and_tried_again(monkeypatch):
    monkeypatch.setattr(distributed.dist, "init_process_group", _refuse)
    answer = distributed._answer(pickle.dumps((_describe, ("a",), 0, 2, "store", 5.0)))
    assert pickle.loads(answer)[0] is None  # noqa: S301  -- written above; nothing is known of the function
    pool, lives = GlooPool(), []
    monkeypatch.setattr(pool, "close", lambda: lives.append("closed"))

    def _meet_on(attempt):
        if len(lives) + 1 < attempt:
            raise distributed._NotConnectedError("rank 0 failed")
        return [attempt]

    assert pool._retry(lambda: _meet_on(3), distributed.ATTEMPTS) == [3]
    assert lives == ["closed", "closed"]
    with pytest.raises(RankError, match="rank 0 failed"):
        pool._retry(lambda: _meet_on(9), distributed.ATTEMPTS)


def test_a_job_that_hangs_is_given_up_with_its_processes(tmp_path):
    server = Server(limit=0.5)
    try:
        with pytest.raises(TimeoutError, match=r"no answer within 0\.5 s to .*'kind': 'synthetic'"):
            server.run(tmp_path / "run", kind="synthetic", shards=[])  # imports alone take longer
        assert server._process is None
    finally:
        server.close()
