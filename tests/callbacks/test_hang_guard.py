"""A run that stands still ends by itself and says where; one that moves is left alone."""

from __future__ import annotations

import os
import sys
import time

import lightning as L
import pytest

from farl_lightning.callbacks import HangGuard, hang_guard
from farl_lightning.callbacks.hang_guard import EXIT_CODE
from farl_lightning.errors import ConfigError
from farl_lightning.testing.distributed import GlooPool, RankError
from tests.distributed import sharded
from tests.tasks import tiny


class Sleeper(L.Callback):
    """Takes its guard's patience away after a step, and hangs on one process. List it before the guard."""

    def __init__(self, guard: HangGuard, step: int, rank: int, until=lambda: False) -> None:
        self.guard, self.step, self.rank, self.until = guard, step, rank, until

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == self.step:
            self.guard.minutes = 3 / 60
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            self.guard._deadline = time.monotonic() + 3
            end = time.monotonic() + 100
            while time.monotonic() < end and not self.until():
                time.sleep(0.05)


@pytest.fixture
def ends(monkeypatch):
    """What a guard would have printed, instead of the end of this process."""
    found = []
    monkeypatch.setattr(hang_guard, "_give_up", lambda report, _: found.append(report))
    return found


def test_a_pause_is_noticed_with_step_and_place(ends, tmp_path):
    guard = HangGuard()
    sleeper = Sleeper(guard, step=1, rank=0, until=lambda: bool(ends))
    tiny.trainer(tmp_path, max_steps=1, callbacks=[sleeper, guard]).fit(tiny.task(), tiny.TinyData())
    assert len(ends) == 1
    assert "rank 0 of 1 on " in ends[0]
    assert "step 0: no progress for 0.05 minutes (HangGuard) while computing training batch 0 (samples " in ends[0]
    assert "--ckpt_path last" in ends[0]
    assert guard._thread is None


def test_whatever_moves_gives_new_time(ends, tmp_path):
    class Log(L.Callback):
        def __init__(self, guard):
            self.guard, self.rows = guard, []

        def note(self, *_):
            self.rows.append((self.guard._deadline, self.guard._doing.split(" (")[0]))

        on_train_start = on_train_batch_start = on_train_batch_end = on_validation_batch_start = note
        on_validation_batch_end = on_save_checkpoint = note

    guard = HangGuard(minutes=5)
    log = Log(guard)
    trainer = tiny.trainer(tmp_path, max_steps=2, num_sanity_val_steps=0, callbacks=[guard, log])
    trainer.fit(tiny.task(), tiny.TinyData())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    deadlines, doing = zip(*log.rows, strict=True)
    assert list(deadlines) == sorted(set(deadlines))  # later each time
    assert deadlines[-1] == pytest.approx(time.monotonic() + 300, abs=60)
    batch = "training batch 0"
    assert doing[:3] == ("waiting for the first batch", f"computing {batch}", f"going on after {batch}")
    assert {"computing validation batch 0", "going on after validation batch 0"} <= set(doing)
    assert doing[-1] == "writing a checkpoint"
    assert ends == []


def test_an_error_is_told_with_its_step(tmp_path, capsys):
    class Broken(L.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            if trainer.global_step == 1:
                raise RuntimeError("Connection reset by peer")

    guard = HangGuard()
    with pytest.raises(RuntimeError, match="Connection reset"):
        tiny.trainer(tmp_path, callbacks=[Broken(), guard]).fit(tiny.task(), tiny.TinyData())
    assert ", step 1: ended while computing training batch 1 (samples " in capsys.readouterr().err
    assert guard._thread is None


def _stand_still(folder: str) -> None:
    """The second process never comes to its second batch, the first one waits for it."""
    log = os.open(f"{folder}/log{sharded.rank()}", os.O_CREAT | os.O_WRONLY)
    os.dup2(log, 2)
    sys.__stderr__ = sys.stderr = os.fdopen(2, "w", closefd=False)
    guard = HangGuard()
    callbacks = [Sleeper(guard, step=1, rank=1), guard]
    sharded.trainer(folder, "ddp", max_steps=6, callbacks=callbacks).fit(sharded.pretrain_task(), sharded.RankedData())


def test_every_process_says_where_it_stands_and_ends(tmp_path):
    pool = GlooPool()
    try:
        with pytest.raises(RankError, match=f"exit code {EXIT_CODE}"):
            pool.run(_stand_still, 2, str(tmp_path), timeout=280.0)
    finally:
        pool.close()
    first = (tmp_path / "log0").read_text()
    second = (tmp_path / "log1").read_text()
    assert "rank 0 of 2 on " in first
    assert ", step 1: no progress for 0.05 minutes (HangGuard) while going on after training batch 0." in first
    assert "rank 1 of 2 on " in second
    assert "while computing training batch 0 (samples " in second
    assert "in broadcast\n" in first  # the stacks of all threads
    assert "in on_train_batch_end\n" in second
    assert "in broadcast\n" not in second


def test_no_time_is_refused():
    with pytest.raises(ConfigError, match=r"HangGuard\(minutes=0\): must be more than 0"):
        HangGuard(0)
