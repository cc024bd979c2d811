"""Fake LAION-Face folders in the native layout, with faults planted on purpose and known to the caller."""

from __future__ import annotations

import dataclasses
import io
import json
import struct
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from farl_lightning.datasets import bad_sample as reasons
from farl_lightning.functional.random import derive_seed

Files = dict[str, bytes]


@dataclasses.dataclass
class FakeShards:
    """What :func:`write_fake_laion_face` wrote.

    Attributes:
        folder: Holds ``split_00000/``.
        shards: The tar files, the broken ones included.
        keys: Keys of the samples that can be used, in their order.
        faults: Number of planted faults by reason, as a whole pass should report them.
        detections: ``sample2detect_0.pth`` in LAION-Face's format, with the box, points and score of every usable
            sample.
    """

    folder: Path
    shards: list[Path]
    keys: list[str]
    faults: Counter[str]
    detections: Path


def write_fake_laion_face(
    folder: Path | str,
    *,
    shards: int = 2,
    samples: int = 8,
    faults: Mapping[str, int] | None = None,
    seed: int = 0,
    size: int = 40,
    split: int = 0,
) -> FakeShards:
    """Write shards as img2dataset does for LAION-Face: coloured ellipses with captions that tell the colour.

    Args:
        folder: Where to write.
        shards: Number of sound tar files.
        samples: Usable samples in each.
        faults: How many bad samples to mix in, by reason: any of ``SAMPLE_FAULTS`` or ``SHARD_FAULTS`` below. Each
            fault of a shard adds a shard.
        seed: Changes colours and where faults lie.
        size: Shorter side of the pictures in pixels.
        split: Number of the part, as in ``split_00000``.

    Returns:
        Paths, keys, and what was planted.
    """
    rng = np.random.default_rng(derive_seed(seed, "fake_laion_face", split))
    target = Path(folder) / f"split_{split:05d}"
    target.mkdir(parents=True, exist_ok=True)
    planted = Counter(faults or {})
    per_shard: list[list[str | None]] = [[None] * samples for _ in range(shards)]
    for reason in _repeated(SAMPLE_FAULTS, planted):
        plan = per_shard[int(rng.integers(shards))]
        plan.insert(int(rng.integers(len(plan) + 1)), reason)
    made = FakeShards(Path(folder), [], [], planted, Path(folder) / "sample2detect_0.pth")
    detections: dict[int, list[Any]] = {}
    for number, plan in enumerate(per_shard):
        made.shards.append(target / f"{number:05d}.tar")
        _write_tar(made.shards[-1], _shard(f"split_{split:05d}", number, plan, rng, size, made.keys, detections))
    for reason in _repeated(SHARD_FAULTS, planted):
        number = len(made.shards)
        made.shards.append(target / f"{number:05d}.tar")
        keys: list[str] = []
        _write_tar(made.shards[-1], _shard(f"split_{split:05d}", number, [None] * 4, rng, size, keys, detections))
        made.keys += keys[: SHARD_FAULTS[reason](made.shards[-1])]
    torch.save(detections, made.detections)
    return made


def encode_image(colour: tuple[int, int, int], size: tuple[int, int] = (40, 48), suffix: str = "jpg") -> bytes:
    """Draw a coloured ellipse on grey and encode it.

    Args:
        colour: RGB.
        size: Width and height in pixels.
        suffix: Any of Pillow's formats by its file suffix.
    """
    image = Image.new("RGB", size, (128, 128, 128))
    ImageDraw.Draw(image).ellipse((size[0] // 5, size[1] // 6, 4 * size[0] // 5, 5 * size[1] // 6), fill=colour)
    stream = io.BytesIO()
    image.save(stream, Image.registered_extensions()[f".{suffix}"], quality=90)
    return stream.getvalue()


def _repeated(known: Iterable[str], counts: Mapping[str, int]) -> list[str]:
    """List each known reason as often as it is to be planted."""
    return [reason for reason in known for _ in range(counts.get(reason, 0))]


def _shard(
    split: str,
    number: int,
    plan: list[str | None],
    rng: np.random.Generator,
    size: int,
    keys: list[str],
    detections: dict[int, list[Any]],
) -> list[tuple[str, Files]]:
    """Make the samples of a shard: key and files."""
    made: list[tuple[str, Files]] = []
    for place, reason in enumerate(plan):
        key, sample_id = f"{number:05d}{place:04d}", (int(split[-5:]) * 1000 + number) * 10_000 + place
        files = _sound_sample(key, sample_id, rng, size)
        if reason == reasons.DUPLICATE_KEY:  # needs something to repeat
            made += [(made[-1][0], files)] if made else [(key, files), (key, files)]
            if len(made) == 2 and place == 0:
                keys.append(f"{split}/{number:05d}/{key}")
            continue
        if reason is None:
            keys.append(f"{split}/{number:05d}/{key}")
            detections[sample_id] = [_detection(size)]
        else:
            SAMPLE_FAULTS[reason](files)
        made.append((key, files))
    return made


def _sound_sample(key: str, sample_id: int, rng: np.random.Generator, size: int) -> Files:
    """Make the files of a usable sample."""
    colour = [int(c) for c in rng.integers(0, 256, 3)]
    names = ("red", "green", "blue")
    caption = f"a face, mostly {names[int(np.argmax(colour))]}, number {sample_id} with colour {colour}"
    metadata = {"caption": caption, "key": key, "status": "success", "SAMPLE_ID": sample_id}
    data = encode_image((colour[0], colour[1], colour[2]), (size, size * 6 // 5))
    return {"jpg": data, "txt": caption.encode(), "json": json.dumps(metadata).encode()}


def _detection(size: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.float32]:
    """Return box, five points and score of the ellipse."""
    box = np.array([0.2, 0.2, 0.8, 1.0], dtype=np.float32) * size
    points = [[0.35, 0.45], [0.65, 0.45], [0.5, 0.6], [0.4, 0.8], [0.6, 0.8]]
    return box, np.array(points, dtype=np.float32) * size, np.float32(0.99)


def _write_tar(path: Path, samples: list[tuple[str, Files]]) -> None:
    """Write files under their keys."""
    with tarfile.open(path, "w") as tar:
        for key, files in samples:
            for suffix, data in files.items():
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def _huge_png() -> bytes:
    """Return a PNG of a few bytes whose header promises 60,000 x 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _put_huge(files: Files) -> None:
    del files["jpg"]
    files["png"] = _huge_png()


def _cut(path: Path) -> int:
    """Cut a shard in the middle of its third sample's picture; two samples remain."""
    with tarfile.open(path) as tar:
        third = [member for member in tar if member.name.endswith(".jpg")][2]
    with path.open("rb+") as stream:
        stream.truncate(third.offset_data + third.size // 2)
    return 2


def _spoil(path: Path) -> int:
    """Write over a header in the middle of a shard; what lies before remains."""
    with tarfile.open(path) as tar:
        third = [member for member in tar if member.name.endswith(".jpg")][2]
    with path.open("rb+") as stream:
        stream.seek(third.offset)
        stream.write(b"\xff" * 512)
    return 2


def _empty(path: Path) -> int:
    path.write_bytes(b"")
    return 0


def _remove(path: Path) -> int:
    path.unlink()
    return 0


SAMPLE_FAULTS: dict[str, Callable[[Files], Any]] = {
    reasons.NOT_AN_IMAGE: lambda files: files.update(jpg=b"<html>404 Not Found</html>"),
    reasons.BROKEN_IMAGE: lambda files: files.update(jpg=files["jpg"][: len(files["jpg"]) // 2]),
    reasons.HUGE_IMAGE: _put_huge,
    reasons.MISSING_IMAGE: lambda files: files.pop("jpg"),
    reasons.MISSING_CAPTION: lambda files: files.pop("txt"),
    reasons.EMPTY_CAPTION: lambda files: files.update(txt=b"  \n"),
    reasons.CAPTION_NOT_UTF8: lambda files: files.update(txt=b"caf\xe9 \xff\xfe"),
    reasons.DUPLICATE_KEY: dict,  # planted by name, not by content
}
"""Ways to spoil the files of a sample, by the reason under which it is to be counted."""

SHARD_FAULTS: dict[str, Callable[[Path], int]] = {
    reasons.SHARD_EMPTY: _empty,
    reasons.SHARD_TRUNCATED: _cut,
    reasons.SHARD_UNREADABLE: _spoil,
    reasons.SHARD_MISSING: _remove,
}
"""Ways to spoil a shard; each returns how many of its first samples remain usable."""
