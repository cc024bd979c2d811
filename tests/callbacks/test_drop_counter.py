"""Dropped samples are counted over processes and resumes, listed once, and stop a run only in large shares."""

from __future__ import annotations

import json

import pytest
import torch

from farl_lightning.callbacks import DropCounter
from farl_lightning.errors import ConfigError, DataError
from tests.callbacks.test_drop_counter_ranks import batch
from tests.tasks import tiny

CPU = torch.device("cpu")


def test_counts_events_and_lists_each_sample_once():
    counter = DropCounter()
    for _ in range(2):
        counter.add(batch(3, ("a", "truncated"), ("b", "no_caption")))
        counter.add(batch(1, ("a", "no_caption")))
        counter.synchronise(CPU)
    assert counter.counts == {"truncated": 2, "no_caption": 4}
    assert counter.samples == 8
    assert counter.share == pytest.approx(6 / 14)
    assert list(counter.listed) == [("truncated", "a"), ("no_caption", "b"), ("no_caption", "a")]
    assert "no_caption" in counter.summary()
    assert "(2 distinct: b, a)" in counter.summary()


def test_batches_without_keys_do_not_count():
    counter = DropCounter()
    counter.add([1, 2])
    counter.add({"image": torch.zeros(2)})
    counter.synchronise(CPU)
    assert counter.samples == counter.dropped == 0


def test_rows_of_bad_samples_are_not_counted_as_good():
    counter = DropCounter()
    drops = [{"key": "b", "reason": "not an image", "detail": ""}]
    counter.add({"key": ["a", "b", "c"], "valid": torch.tensor([True, False, True]), "dropped": drops})
    counter.synchronise(torch.device("cpu"))
    assert (counter.samples, counter.dropped) == (2, 1)


def test_share_is_judged_only_with_enough_samples():
    counter = DropCounter(max_bad_share=0.25, min_samples=8)
    counter.add(batch(3, ("a", "truncated")))
    counter.synchronise(CPU)
    counter.judge()  # exactly the allowed share, and too few
    counter.add(batch(3, ("b", "truncated"), ("c", "gigantic")))
    counter.synchronise(CPU)
    with pytest.raises(DataError, match=r"(?s)3 of 9 samples \(33.3%\).*allowed 25.0%.*truncated +2.*gigantic"):
        counter.judge()
    counter.max_bad_share = None
    counter.judge()


def test_list_is_limited_but_counts_are_not(tmp_path):
    counter = DropCounter(max_listed=2)
    counter.add(batch(0, *[(str(i), "truncated") for i in range(5)]))
    counter.synchronise(CPU)
    assert len(counter.listed) == 2
    assert counter.counts == {"truncated": 5}
    assert "2 listed" in counter.summary()


def test_run_logs_lists_prints_and_resumes(tmp_path, capsys):
    counter = DropCounter()
    first = tiny.trainer(tmp_path / "first", max_steps=3, callbacks=[counter], limit_val_batches=0)
    first.fit(tiny.task(), datamodule=tiny.TinyData())
    assert first.callback_metrics["data/dropped/not_an_image"] == 3
    assert first.callback_metrics["data/dropped_share"] == pytest.approx(3 / 15)
    lines = (tmp_path / "first" / "dropped.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {
        "key": "bad-3",
        "reason": "not_an_image",
        "detail": "no header",
    }
    assert len(lines) == 3
    assert "Left out 3 of 15 samples (20.00%)" in capsys.readouterr().out
    path = tmp_path / "a.ckpt"
    first.save_checkpoint(path)

    again = DropCounter()
    second = tiny.trainer(tmp_path / "second", max_steps=5, callbacks=[again], limit_val_batches=0)
    second.fit(tiny.task(), datamodule=tiny.TinyData(), ckpt_path=path, weights_only=True)
    assert again.samples == 12 + 4 * (5 - 3)
    assert again.counts["not_an_image"] == 5
    keys = [json.loads(line)["key"] for line in (tmp_path / "second" / "dropped.jsonl").read_text().splitlines()]
    assert keys[:3] == ["bad-3", "bad-7", "bad-11"]
    assert len(keys) == len(set(keys))


def test_run_with_too_much_bad_data_dies(tmp_path):
    counter = DropCounter(max_bad_share=0.1, min_samples=10)
    run = tiny.trainer(tmp_path, max_steps=8, callbacks=[counter], limit_val_batches=0)
    with pytest.raises(DataError, match="not_an_image"):
        run.fit(tiny.task(), datamodule=tiny.TinyData())
    assert run.global_step == 2


@pytest.mark.parametrize("settings", [{"max_bad_share": 0.0}, {"max_bad_share": 1.5}, {"min_samples": 0}])
def test_wrong_settings(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        DropCounter(**settings)
