"""The step benchmark in its short form, and that its sides compute the same thing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from benchmarks import gemm, pretrain_step, sides
from benchmarks.common import Timing
from benchmarks.plain_farl import Sizes, set_checkpointing

TINY = replace(pretrain_step.SHORT, image_size=32, patch_size=8, width=32, heads=2, text_width=16, embed_dim=16)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return sides.make_workload(TINY, 3, tmp_path_factory.mktemp("weights"))


def test_ours_equals_the_plain_way(work):
    differences = sides.compare(sides.our_side(work, "ours"), sides.plain_side(work))
    assert max(differences.values()) < 1e-4, differences


def test_ours_equals_open_clip(work):
    ours = sides.our_side(work, "ours", masked_image=False)
    differences = sides.compare(ours, sides.open_clip_side(work))
    assert max(differences.values()) < 1e-4, differences


def test_other_weights_are_noticed(work):
    peer = sides.plain_side(work)
    with torch.no_grad():
        peer.model.visual.lm_head.bias[0] += 1
    verdict = sides.same_numbers(sides.our_side(work, "ours"), peer)
    assert verdict.holds is False


def test_all_sides_learn_the_same_from_a_step(work):
    ours, plain = sides.our_side(work, "ours"), sides.plain_side(work)
    for side in (ours, plain):
        side.step()
        side.step()
    assert ours.loss().item() == pytest.approx(plain.loss().item(), rel=1e-4)


def test_filled_captions_use_every_position(work):
    text = sides.fill_captions(work).batch["text"]
    assert (text.argmax(1) == text.shape[1] - 1).all()
    assert (work.batch["text"].argmax(1) < text.shape[1] - 1).all()


def test_checkpointing_recomputes_and_ours_does_least(work):
    plain = sides.plain_side(work)
    with_recomputation = gemm.count_flops(plain.backward)
    set_checkpointing(plain.model, False)
    useful = gemm.count_flops(plain.backward)
    assert gemm.count_flops(sides.our_side(work, "ours").backward) < useful < with_recomputation


def test_the_default_sizes_are_open_clips_own():
    open_clip = pytest.importorskip("open_clip")
    own = open_clip.get_model_config("ViT-B-16-quickgelu")
    ours = sides._open_clip_sizes(Sizes())
    assert ours["embed_dim"] == own["embed_dim"]
    assert own["vision_cfg"].items() <= ours["vision_cfg"].items()
    assert own["text_cfg"].items() <= ours["text_cfg"].items()


def test_peak_is_the_best_rate():
    shapes = [(2, 3, 4), (10, 10, 10)]
    names = list(gemm.products(shapes, torch.float32))
    timings = {names[0]: Timing(names[0], (1.0,), (1.0,)), names[1]: Timing(names[1], (4.0,), (4.0,))}
    assert gemm.peak(shapes, torch.float32, timings) == 500


def test_operations_of_a_product():
    run = gemm.products([(2, 3, 4)], torch.float32)["gemm float32 2x3x4"]
    assert run().shape == (2, 4)
    assert gemm.count_flops(run) == 2 * 2 * 3 * 4


def test_short_run_writes_everything(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pretrain_step, "SHORT", TINY)
    path = tmp_path / "step.json"
    arguments = ["--short", "--repeats", "2", "--batch", "2", "--require", "--json", str(path)]
    assert pretrain_step.main(arguments) == 0
    out = capsys.readouterr().out
    written = json.loads(path.read_text())
    rows = {row["name"]: row for row in written["verdicts"]}
    assert {"plain", "ours fp32", "open_clip fp32", "ours fp32, contrast", "ours fp32, 77 tokens"} <= set(
        written["details"]
    )
    assert rows["a. FaRL step, fp32"]["holds"] is None  # tiny networks are not judged
    assert all(row["holds"] for name, row in rows.items() if name.startswith("same numbers"))
    assert "page faults" in out
    assert "of GEMM peak" in out


@pytest.mark.parametrize(("seconds", "holds"), [(2.0, True), (1.0, False)])
def test_a_goal_is_judged_by_the_ratio(seconds, holds):
    options = pretrain_step.parse_arguments([])
    peer, ours = Timing("plain", (seconds,), (seconds,)), Timing("ours", (1.0,), (1.0,))
    verdict = pretrain_step._ratio("a", peer, ours, 1.25, options)
    assert verdict.holds is holds
    assert f"{seconds:.2f} x" in verdict.measured


def test_without_bf16_instructions_this_is_said(work, monkeypatch):
    monkeypatch.setattr(pretrain_step.common, "has_native_bf16", lambda: False)
    options = pretrain_step.parse_arguments(["--short", "--repeats", "1"])
    rows = {row.name: row for row in pretrain_step.run_farl(work, options).verdicts}
    assert rows["a. FaRL step, bf16"].measured == "no bf16 instructions on this CPU"
    assert rows["a. FaRL step, bf16"].word == "not applicable"
