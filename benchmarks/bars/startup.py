"""What a user waits for: import, help, drawn faces, the first batch out of 40,000 shards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import common
from benchmarks.registry import Outcome, Proof, bar, program


def _command(arguments: Sequence[str]) -> Callable[[], None]:
    """Return a callable that runs a command and throws its output away."""
    return lambda: subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL) and None


def _beyond_python(proof: Proof, arguments: Sequence[str]) -> float:
    """Return the seconds that a command takes beyond an empty Python program."""
    runs = {"bare": _command([sys.executable, "-c", "pass"]), "command": _command(arguments)}
    timings = common.interleave(runs, repeats=3 if proof.short else 9)
    return timings["command"].median - timings["bare"].median


@bar("import", "import farl_lightning < 0.5 s")
def import_time(proof: Proof) -> Outcome:
    """A fresh process that imports the package, less a fresh process that does nothing."""
    seconds = _beyond_python(proof, [sys.executable, "-c", "import farl_lightning"])
    return f"{seconds:.3f} s", seconds < 0.5


@bar("help", "farl-lightning --help < 1 s more than Python itself")
def help_time(proof: Proof) -> Outcome:
    """The console script, less a process that does nothing."""
    seconds = _beyond_python(proof, [program("farl-lightning"), "--help"])
    return f"{seconds:.3f} s", seconds < 1


@bar("drawn faces", "> 800 images/s at 64 px on one core")
def drawn_faces(proof: Proof) -> Outcome:
    """``SyntheticFaces`` without its cache, the image alone: every other truth is worked out when it is asked for."""
    from farl_lightning.datasets import SyntheticFaces

    count = 100 if proof.short else 500
    faces = SyntheticFaces(20 * count, image_size=64)
    indices = iter(range(len(faces)))
    timing = common.interleave({"draw": lambda: [faces[next(indices)].image for _ in range(count)]}, repeats=9)["draw"]
    rate = count / timing.median
    return f"{rate:.0f} images/s", rate > 800


_FIRST_BATCH = """
import json, resource, sys, time
import torch
from farl_lightning.datamodules import LaionFaceDataModule
from farl_lightning.transforms.pretrain import PretrainTransformConfig

def first_batch(shards):
    data = LaionFaceDataModule(
        shards, samples_per_epoch=10**6, batch_size=8, shuffle_buffer=64,
        transform=PretrainTransformConfig(image_size=64, patch_size=8),
    )
    data.setup("fit")
    return next(iter(data.train_dataloader()))["image"].shape[0]

few, many = sys.argv[1:]
first_batch(few)  # imports, tokenizer tables
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before, began = peak(), time.perf_counter()
images = first_batch(many)
print(json.dumps({"seconds": time.perf_counter() - began, "megabytes": (peak() - before) / 1024, "images": images}))
"""


@bar("40,000 shards", "first batch < 1 s, < 100 MB")
def many_shards(proof: Proof) -> Outcome:
    """List 40,000 shards in 40 folders, build the stream and read a batch; the files are links to a few."""
    with tempfile.TemporaryDirectory() as folder:
        few, many = _write_shards(Path(folder), parts=40, per_part=10 if proof.short else 1000)
        finished = proof.run("shards", [sys.executable, "-c", _FIRST_BATCH, str(few), str(many)]).check()
    found = json.loads(finished.output.splitlines()[-1])
    measured = f"{found['seconds']:.2f} s, {found['megabytes']:.0f} MB"
    good = found["seconds"] < 1 and found["megabytes"] < 100 and found["images"] == 8
    return (f"{measured} (short form)", None) if proof.short else (measured, good)


def _write_shards(folder: Path, parts: int, per_part: int) -> tuple[Path, Path]:
    """Write a few shards, and many hard links to them in LAION-Face's layout; return both folders."""
    from farl_lightning.testing.shards import write_fake_laion_face

    few, many = folder / "few", folder / "many"
    shards = write_fake_laion_face(few, shards=4, samples=32).shards
    for part in range(parts):
        target = many / f"split_{part:05d}"
        target.mkdir(parents=True)
        for index in range(per_part):
            os.link(shards[index % len(shards)], target / f"{index:05d}.tar")
    return few, many
