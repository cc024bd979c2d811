"""Speed of features and probes.

``python -m benchmarks.probes`` measures:

- ``embed``, from JPEG files to the file of features, beside the bare encoder on batches that are in memory already: the
  same network, features, batch size and threads, in turns;
- probes of 40 attributes that learn from 20,000 faces of 512 numbers, and are judged on 5,000 others: drawn features
  whose attributes a linear layer knows up to noise.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks import common
from benchmarks.common import Timing, Verdict
from farl_lightning.datamodules.embedding import PhotoSource
from farl_lightning.datamodules.photos import PhotoFolderDataModule
from farl_lightning.models.config import ImageEncoderConfig
from farl_lightning.models.features import EncoderFeatures
from farl_lightning.models.image_encoder import ImageEncoder
from farl_lightning.probing.embedding import embed
from farl_lightning.probing.probe import run_probe
from farl_lightning.probing.table import FeatureTable
from farl_lightning.types import FaceSpec

SHARE = 0.9
"""Images per second of ``embed`` over those of the bare encoder, at least."""

SECONDS = 10.0
"""Seconds that a linear probe of 40 attributes on 20,000 x 512 may take."""


def write_photos(folder: Path, count: int, size: int) -> None:
    """Write JPEG files of smooth noise, about as large as photographs of faces.

    Args:
        folder: Where.
        count: How many.
        size: Their side in pixels.
    """
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (size // 8, size // 8, 3), np.uint8))
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(folder / f"{number:05d}.jpg", quality=90)


def build(short: bool) -> EncoderFeatures:
    """Return FaRL's ViT-B/16, or a tiny tower, at random.

    Args:
        short: Whether it is tiny.
    """
    config = ImageEncoderConfig()
    if short:
        config = ImageEncoderConfig(image_size=32, patch_size=8, width=48, depth=2, heads=3)
    torch.manual_seed(0)
    encoder = ImageEncoder(config, 512, mask_token=False)
    return EncoderFeatures(encoder, FaceSpec(image_size=encoder.image_size))


def time_embedding(folder: Path, repeats: int, short: bool, batch_size: int = 16) -> dict[str, Timing]:
    """Time both sides in turns.

    Args:
        folder: For pictures and features.
        repeats: Timed rounds.
        short: Whether the network is tiny.
        batch_size: Pictures per batch.
    """
    extractor = build(short)
    photos = folder / "photos"
    photos.mkdir()
    write_photos(photos, 2 * batch_size if short else 4 * batch_size, 64 if short else 256)
    source = PhotoSource(PhotoFolderDataModule(str(photos)), extractor.spec)
    starts = range(0, len(source), batch_size)
    batches = [source.collate([source[row] for row in range(start, start + batch_size)])["image"] for start in starts]
    runs = {
        "embed": functools.partial(
            embed, extractor, source, folder / "features.parquet", batch_size=batch_size, overwrite=True
        ),
        "bare encoder": lambda: [extractor(batch) for batch in batches],
    }
    return common.interleave(runs, repeats)


def make_features(faces: int, width: int, attributes: int) -> FeatureTable:
    """Draw features, and attributes that a linear layer knows up to noise.

    Args:
        faces: How many.
        width: Numbers of each.
        attributes: How many.
    """
    rng = np.random.default_rng(0)
    # directions of very different spread, as features of networks have them
    features = (rng.normal(size=(faces, width)) * np.geomspace(1, 0.01, width)) @ rng.normal(size=(width, width))
    features = ((features - features.mean(0)) / features.std(0)).astype(np.float32)
    logits = features @ rng.normal(size=(width, attributes)) / np.sqrt(width)
    labels = (logits + rng.normal(size=logits.shape) * logits.std(0) > 0).astype(np.int8)
    names = tuple(f"attribute{number}" for number in range(attributes))
    return FeatureTable(
        [str(row) for row in range(faces)], {"feature": features}, {"attributes": labels}, attributes=names
    )


def time_probes(repeats: int, short: bool) -> tuple[dict[str, Timing], dict[str, float]]:
    """Time every method, judged on the faces behind those that are learned from.

    Args:
        repeats: Timed rounds.
        short: Whether there are few faces.

    Returns:
        Timings, and the mean accuracy of each method in percent.
    """
    faces, width, attributes = (400, 32, 5) if short else (25_000, 512, 40)
    table = make_features(faces, width, attributes)
    cut = faces * 4 // 5  # 20,000 to learn from
    train, test = table.take(range(cut)), table.take(range(cut, faces))
    found: dict[str, float] = {}

    def run(method: str) -> None:
        found[method] = run_probe(train, test, "attributes", method).value  # type: ignore[arg-type]

    runs = {method: functools.partial(run, method) for method in ("linear", "ridge", "knn")}
    return common.interleave(runs, repeats, warmup=0), found


def judge(
    embedding: dict[str, Timing], probes: dict[str, Timing], found: dict[str, float], short: bool
) -> list[Verdict]:
    """Hold measurements against the goals; short forms are not judged.

    Args:
        embedding: Of :func:`time_embedding`.
        probes: Of :func:`time_probes`.
        found: Accuracies by method.
        short: Whether this was the short form.
    """
    share = common.speedup(embedding["bare encoder"], embedding["embed"])
    seconds = probes["linear"].median
    others = ", ".join(f"{name} {probes[name].median:.1f} s" for name in ("ridge", "knn"))
    accuracy = ", ".join(f"{name} {value:.1f} %" for name, value in found.items())
    return [
        Verdict("embed", f">= {SHARE:.0%} of the bare encoder", f"{share:.1%}", None if short else share >= SHARE),
        Verdict(
            "probe",
            f"linear, 40 attributes, 20,000 x 512 in < {SECONDS:.0f} s",
            f"{seconds:.1f} s ({others}; {accuracy})",
            None if short else seconds < SECONDS,
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probes", description=__doc__.splitlines()[0])
    common.add_arguments(parser, repeats=3)
    options = parser.parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    repeats = 1 if options.short else options.repeats
    with tempfile.TemporaryDirectory() as folder:
        embedding = time_embedding(Path(folder), repeats, options.short)
    common.print_timings(embedding, items=32 if options.short else 64)
    probes, found = time_probes(repeats, options.short)
    common.print_timings(probes, items=320 if options.short else 20_000, unit="faces")
    verdicts = judge(embedding, probes, found, options.short)
    return common.finish(options, {**embedding, **probes}, verdicts, accuracy=found)


if __name__ == "__main__":
    raise SystemExit(main())
