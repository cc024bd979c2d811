from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import common, data_stream
from farl_lightning.datasets.tar import read_shard


def test_short_run_prints_both_tables_and_writes_json(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(data_stream, "SETS", {"tiny": ((96, 96), (120, 96))})
    target = tmp_path / "out.json"
    options = ["--short", "--repeats", "1", "--image-size", "32", "--json", str(target), "--require"]
    assert data_stream.main(options) == 0
    printed = capsys.readouterr().out
    for line in ("open_clip, tiny", "ours, tiny", "decoding alone, tiny", "tokenise", "d. stream, tiny"):
        assert line in printed
    result = json.loads(target.read_text())
    assert result["timings"]["ours, tiny"]["median"] > 0
    assert [verdict["holds"] for verdict in result["verdicts"]] == [None]


def timings(peer: float, ours: float) -> dict[str, common.Timing]:
    return {
        "open_clip, x": common.Timing("open_clip, x", (peer,) * 3, (peer,) * 3),
        "ours, x": common.Timing("ours, x", (ours,) * 3, (ours,) * 3),
    }


def test_the_goal_is_judged_by_the_ratio():
    assert data_stream._verdict("x", timings(4.2, 2.0), judged=True).holds is True
    missed = data_stream._verdict("x", timings(3.8, 2.0), judged=True)
    assert missed.holds is False
    assert missed.measured == "1.90 x (by processor time 1.90 x)"
    assert data_stream._verdict("x", timings(1, 2), judged=False).holds is None


def test_drawn_pictures_compress_like_photographs():
    buffer = io.BytesIO()
    data_stream.draw_picture(512, 512, np.random.default_rng(0)).save(buffer, "JPEG", quality=90)
    assert 0.1 < len(buffer.getvalue()) / 512**2 < 0.5


def test_shards_hold_every_picture_of_a_folder_in_the_native_layout(tmp_path):
    (tmp_path / "in").mkdir()
    for index, color in enumerate(["red", "blue"]):
        Image.new("RGB", (30, 20), color).save(tmp_path / "in" / f"{index}.png")
    pictures = data_stream.find_pictures(tmp_path / "in", ((16, 12),), 6)
    shards = data_stream.write_shards(tmp_path, pictures)
    samples = [sample for shard in shards for sample in read_shard(shard)]
    assert sorted(sample.key for sample in samples) == [f"{index:09d}" for index in range(6)]
    assert all(set(sample.files) == {"jpg", "txt", "json"} for sample in samples)
    first = Image.open(io.BytesIO(samples[0].files["jpg"]))
    assert first.size == (16, 12)
    assert first.getpixel((8, 6))[0] > 240


def test_a_folder_without_pictures_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match=r"no \.jpg"):
        next(data_stream.find_pictures(tmp_path, ((16, 12),), 1))
