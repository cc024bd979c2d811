"""The run on real photographs, in its short form: faults planted by hand are reported, and nothing else."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from benchmarks import real_input
from farl_lightning.datasets.shards import check_shards, write_shards
from farl_lightning.testing.shards import encode_image
from tests.shared import SHARED, needs_shared


@needs_shared
@pytest.mark.shared
def test_a_short_run_learns_something_and_reports_exactly_the_planted_faults(tmp_path: Path) -> None:
    outcome = real_input.run(SHARED / "real", tmp_path, real_input.SHORT, limit=60)
    assert len(outcome.planted) == 3
    assert outcome.reported == outcome.planted
    assert outcome.metrics["val/loss_contrastive"] < 4.2  # ln(64): below it, captions tell pictures apart
    assert outcome.metrics["val/image_to_text_r1"] > 0


def test_every_planted_fault_is_found_under_its_own_name(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rows = []
    for number in range(40):
        (pictures / f"{number}.jpg").write_bytes(encode_image((number, 90, 200)))
        rows.append({"file": f"{number}.jpg", "captions": [f"picture number {number}", f"a plain colour, {number}"]})
    report = write_shards(pictures, rows, tmp_path / "shards", samples_per_shard=20)
    planted = real_input.plant_faults([Path(shard) for shard in report.shards], share=0.35)
    assert {reason for _, reason in planted} == set(real_input.FAULTS)
    found = check_shards(str(tmp_path / "shards"))
    assert {(drop["key"].rsplit("/", 1)[-1], drop["reason"]) for drop in found.drops} == planted
    assert found.samples == 40 - len(planted)


def test_planting_leaves_the_other_samples_alone(tmp_path: Path) -> None:
    (tmp_path / "one.jpg").write_bytes(encode_image((1, 2, 3)))
    rows = [{"file": "one.jpg", "captions": ["the only picture"]}]
    (shard,) = write_shards(tmp_path, rows, tmp_path / "shards").shards
    with tarfile.open(shard) as tar:
        before = {member.name: tar.extractfile(member).read() for member in tar}
    assert real_input.plant_faults([Path(shard)], share=0.0) == set()
    with tarfile.open(shard) as tar:
        assert {member.name: tar.extractfile(member).read() for member in tar} == before
