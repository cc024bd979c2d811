"""Pretraining on real photographs with planted faults: does it learn, and does it report exactly what was broken?

    python -m benchmarks.real_input --material FOLDER

``FOLDER`` holds ``congress`` (``images/`` and ``labels.tsv``: portraits with facts) and ``coco_captions`` (``images/``
and ``captions.jsonl``: photographs with five captions each). Both become shards, one sample in twenty is broken in one
of eight ways, and ``farl-lightning fit --config pretrain.yaml`` trains on them. Printed are the recall of the training
pairs and the comparison of the planted faults with the reported ones.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import json
import random
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from farl_lightning.datasets import bad_sample
from farl_lightning.datasets.shards import write_shards

Files = dict[str, bytes]

_OFFICE = {"sen": "senator", "rep": "representative"}
_CHAMBER = {"sen": "Senate", "rep": "House of Representatives"}
_PERSON = {"M": "man", "F": "woman"}


def portrait_captions(row: dict[str, str]) -> list[str]:
    """Say the facts of a portrait in several ways.

    Args:
        row: A row of ``labels.tsv``.
    """
    name, office, state, party = row["name"], _OFFICE[row["office"]], row["state"], row["party"]
    return [
        f"an official portrait of {name}, a {office} from {state}",
        f"{name}, {party} {office} of {state}, official photo",
        f"portrait of a {_PERSON[row['gender']]}: {name} ({state}), member of the {_CHAMBER[row['office']]}",
        f"{party} politician {name} of {state}, in office since {row['first_term_start'][:4]}",
    ]


def collect_rows(material: Path) -> list[dict[str, Any]]:
    """Return file name and captions of every real picture, relative to ``material``.

    Args:
        material: The folder that holds ``congress`` and ``coco_captions``.
    """
    with (material / "congress" / "labels.tsv").open(encoding="utf-8") as stream:
        portraits = list(csv.DictReader(stream, delimiter="\t"))
    rows = [{"file": f"congress/images/{row['file']}", "captions": portrait_captions(row)} for row in portraits]
    for line in (material / "coco_captions" / "captions.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        rows.append({"file": f"coco_captions/images/{record['file']}", "captions": record["captions"]})
    return rows


def _without(files: Files, suffix: str) -> Files:
    return {name: data for name, data in files.items() if name != suffix}


def _huge(files: Files) -> Files:
    """Claim 60,000 x 60,000 pixels in the frame header of a JPEG, not in that of a thumbnail within a segment."""
    data = bytearray(files["jpg"])
    start = 2
    while data[start + 1] not in (0xC0, 0xC2):
        start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    data[start + 5 : start + 9] = (60000).to_bytes(2, "big") * 2
    return {**files, "jpg": bytes(data)}


def _uncaptioned(files: Files, text: bytes) -> Files:
    return {**_without(files, "json"), "txt": text}


FAULTS: dict[str, Callable[[Files], Files]] = {
    bad_sample.BROKEN_IMAGE: lambda files: {**files, "jpg": files["jpg"][: len(files["jpg"]) // 2]},
    bad_sample.NOT_AN_IMAGE: lambda files: {**files, "jpg": b"<html>404 Not Found</html>"},
    bad_sample.EMPTY_CAPTION: lambda files: _uncaptioned(files, b"  \n "),
    bad_sample.CAPTION_NOT_UTF8: lambda files: _uncaptioned(files, b"caf\xe9 \xff\xfe portrait"),
    bad_sample.MISSING_CAPTION: lambda files: _without(files, "txt"),
    bad_sample.MISSING_IMAGE: lambda files: _without(files, "jpg"),
    bad_sample.HUGE_IMAGE: _huge,
}
"""Ways to break a sample, by the reason under which it must be reported."""


def plant_faults(shards: list[Path], share: float, seed: int = 0) -> set[tuple[str, str]]:
    """Break samples inside shards, in place.

    Args:
        shards: Tar files; every sample has ``.jpg``, ``.txt`` and ``.json``.
        share: Share of samples to break; all kinds of faults take turns.
        seed: Which ones.

    Returns:
        (key inside the shard, reason) of every broken sample.
    """
    samples = {shard: _read(shard) for shard in shards}
    keys = [(shard, key) for shard, content in samples.items() for key in content]
    chosen = random.Random(seed).sample(keys, round(share * len(keys)))
    reasons = list(FAULTS)
    planted = set()
    for number, (shard, key) in enumerate(chosen):
        reason = reasons[number % len(reasons)]
        samples[shard][key] = FAULTS[reason](samples[shard][key])
        planted.add((key, reason))
    for shard, content in samples.items():
        _write(shard, content)
    return planted


def _read(shard: Path) -> dict[str, Files]:
    content: dict[str, Files] = {}
    with tarfile.open(shard) as tar:
        for member in tar:
            key, _, suffix = member.name.partition(".")
            stream = tar.extractfile(member)
            content.setdefault(key, {})[suffix] = stream.read() if stream else b""
    return content


def _write(shard: Path, content: dict[str, Files]) -> None:
    with tarfile.open(shard, "w") as tar:
        for key, files in content.items():
            for suffix, data in files.items():
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


FULL = ["--data.shuffle_buffer", "100"]
"""Options of a run that learns all pairs."""

SHORT = [
    *("--trainer.max_steps", "8", "--trainer.val_check_interval", "8"),
    *("--data.batch_size", "16", "--data.shuffle_buffer", "16"),
    *("--model.optim.warmup_steps", "2", "--model.clip.image.depth", "1", "--model.clip.text.depth", "1"),
]
"""Options of a run that reads everything once or twice, in seconds."""


@dataclasses.dataclass
class Outcome:
    """What a run on real pictures gave.

    Attributes:
        metrics: Values of ``results.json`` by name.
        planted: Faults that were planted: (key, reason).
        reported: Faults that were reported.
        seconds: Wall time of the run, start included.
    """

    metrics: dict[str, float]
    planted: set[tuple[str, str]]
    reported: set[tuple[str, str]]
    seconds: float

    def lines(self) -> list[str]:
        """Return the outcome as text."""
        recall = self.metrics["val/image_to_text_r1"]
        return [
            f"training pairs, image to text R@1   {recall:.1%}",
            f"faults planted / reported           {len(self.planted)} / {len(self.reported)}",
            f"planted and not reported            {sorted(self.planted - self.reported) or 'none'}",
            f"reported and not planted            {sorted(self.reported - self.planted) or 'none'}",
            f"seconds                             {self.seconds:.0f}",
        ]


def run(material: Path, folder: Path, options: list[str], limit: int | None = None) -> Outcome:
    """Write shards, break them, train on them and read the reports.

    Args:
        material: The folder with the real pictures.
        folder: An empty folder for shards and run.
        options: Further options of ``farl-lightning fit``.
        limit: Take only so many pictures, evenly spread; None takes all.
    """
    rows = collect_rows(material)
    rows = rows[:: max(1, len(rows) // limit)] if limit else rows
    report = write_shards(material, rows, folder / "shards", samples_per_shard=50)
    planted = plant_faults([Path(shard) for shard in report.shards], share=0.05)
    shards = str(folder / "shards")
    command = [
        *(sys.executable, "-m", "farl_lightning.cli", "fit", "--config", "pretrain.yaml"),
        *("--data", "LaionFaceDataModule", "--data.train_shards", shards, "--data.val_shards", shards),
        *("--trainer.logger.init_args.save_dir", str(folder / "runs"), "--model.zero_shot", "[]"),
        *options,
    ]
    subprocess.run(command, check=True)
    results = json.loads(next((folder / "runs").rglob("results.json")).read_text())["fit"]
    dropped = next((folder / "runs").rglob("dropped.jsonl")).read_text().splitlines()
    reported = {(entry["key"].rsplit("/", 1)[-1], entry["reason"]) for entry in map(json.loads, dropped)}
    metrics = {name: entry["value"] for name, entry in results["metrics"].items()}
    return Outcome(metrics, planted, reported, results["seconds"])


def main() -> None:
    """Run at full length and print the outcome; exit 1 if it is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--material", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="take only so many pictures")
    arguments, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(arguments.material, Path(folder), [*FULL, *options], arguments.limit)
    print("\n".join(outcome.lines()))
    if outcome.planted != outcome.reported or outcome.metrics["val/image_to_text_r1"] < 0.8:
        sys.exit(1)


if __name__ == "__main__":
    main()
