"""Write shards of one's own pictures, and look into shards: what they hold, and what is wrong with them."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import statistics
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from farl_lightning.datasets.bad_sample import EMPTY_CAPTION, MISSING_CAPTION, MISSING_IMAGE, BadSample
from farl_lightning.datasets.decode import MAX_PIXELS, EncodedImage, decode_image
from farl_lightning.datasets.laion_face import Picture, PictureReader, read_pictures
from farl_lightning.datasets.shard_list import ShardSpec, list_shards, shard_names
from farl_lightning.errors import ConfigError, DataError, DatasetNotFoundError, did_you_mean
from farl_lightning.text import clean_caption
from farl_lightning.types import Drop

Progress = Callable[..., Iterable[Any]]
"""Wraps an iterable while it is worked through; called as ``progress(iterable, total=n)``, such as ``tqdm``."""

FILE_COLUMNS = ("file", "image", "path", "filename")
"""Where the name of a picture is looked for in a caption table."""

CAPTION_COLUMNS = ("captions", "caption", "text")
"""Where its captions are looked for."""

_KEPT = {b"\xff\xd8\xff": "jpg", b"\x89PNG\r\n\x1a\n": "png"}


@dataclasses.dataclass
class WriteReport:
    """What was written.

    Attributes:
        shards: Paths of the tar files.
        samples: Samples in them.
        drops: Rows that were left out, and why.
    """

    shards: list[str]
    samples: int
    drops: list[Drop]


@dataclasses.dataclass
class ShardReport:
    """What shards hold. Sizes and lengths are (smallest, median, largest), zeros when there is nothing.

    Attributes:
        shards: Number of shards.
        samples: Usable pictures.
        size: Bytes of their image files together.
        per_shard: Usable pictures per shard.
        width: Pixels, upright.
        height: Pixels, upright.
        words: Words per caption.
        reasons: Number of skipped samples and shards by reason.
        drops: The skipped ones, the first thousand.
        examples: The first pictures, for a contact sheet.
    """

    shards: int = 0
    samples: int = 0
    size: int = 0
    per_shard: tuple[float, float, float] = (0, 0, 0)
    width: tuple[float, float, float] = (0, 0, 0)
    height: tuple[float, float, float] = (0, 0, 0)
    words: tuple[float, float, float] = (0, 0, 0)
    reasons: dict[str, int] = dataclasses.field(default_factory=dict)
    drops: list[Drop] = dataclasses.field(default_factory=list)
    examples: list[Picture] = dataclasses.field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the report as aligned lines of text."""
        dropped = sum(self.reasons.values())
        rows = [
            ("shards", f"{self.shards}"),
            ("usable pictures", f"{self.samples} ({self.size / 1e6:.1f} MB)"),
            *((name, "{:g} / {:g} / {:g}".format(*getattr(self, field))) for field, name in _SPREADS.items()),
            ("skipped", f"{dropped}"),
            *((f"  {reason}", f"{count}") for reason, count in self.reasons.items()),
        ]
        width = max(len(name) for name, _ in rows)
        return [f"{name:<{width}}  {value}" for name, value in rows]


_SPREADS = {
    "per_shard": "pictures per shard (min / median / max)",
    "width": "width in pixels",
    "height": "height in pixels",
    "words": "words per caption",
}


def read_rows(table: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read a table of captions.

    Args:
        table: ``.tsv`` or ``.csv`` with a header line, or ``.jsonl`` with an object per line.

    Returns:
        One dict per row.

    Raises:
        DatasetNotFoundError: If the file is not there.
        ConfigError: If it is of another kind.
        DataError: If a line cannot be read.
    """
    path = Path(table)
    if not path.is_file():
        raise DatasetNotFoundError(f"captions '{table}': {path.resolve()} does not exist")
    delimiters = {".tsv": "\t", ".csv": ","}
    if path.suffix == ".jsonl":
        return [_json_row(path, n, line) for n, line in enumerate(path.open(encoding="utf-8"), 1) if line.strip()]
    if path.suffix not in delimiters:
        raise ConfigError(f"captions '{table}': expected .tsv, .csv or .jsonl, got '{path.suffix}'")
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter=delimiters[path.suffix]))


def write_shards(
    folder: str | os.PathLike[str],
    rows: str | os.PathLike[str] | Sequence[Mapping[str, Any]],
    out: str | os.PathLike[str],
    *,
    samples_per_shard: int = 1000,
    workers: int = 4,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> WriteReport:
    """Write pictures with captions into tar shards, as img2dataset lays them out.

    ``out/split_00000/00000.tar`` holds for every sample the picture, ``.txt`` with the first caption and ``.json`` with
    all captions, the size, and the row's other columns (such as ``SAMPLE_ID`` or ``faces``). JPEG, PNG and WebP files
    are kept byte by byte, other formats become PNG. The same input gives the same bytes, however many workers write. A
    shard gets its name only when it is complete.

    Args:
        folder: Where the pictures are.
        rows: A caption table (:func:`read_rows`) or its rows: a file name in one of ``FILE_COLUMNS``, a caption or a
            list of captions in one of ``CAPTION_COLUMNS``.
        out: Where to write.
        samples_per_shard: Rows per shard.
        workers: Shards written at the same time.
        progress: Wraps the shards while they are written, such as ``tqdm``.
        overwrite: Whether shards may replace those of an earlier call.

    Returns:
        What was written and what was left out.

    Raises:
        DatasetNotFoundError: If folder or table is not there.
        ConfigError: If the table has no such columns, or shards are there already.
        DataError: If no row could be used.
    """
    source = Path(folder)
    if not source.is_dir():
        raise DatasetNotFoundError(f"pictures '{folder}': there is no folder {source.resolve()}")
    table = read_rows(rows) if isinstance(rows, str | os.PathLike) else rows
    if samples_per_shard < 1 or workers < 1:
        raise ConfigError(f"samples_per_shard and workers must be at least 1, got {samples_per_shard} and {workers}")
    file_column, caption_column = _columns(table)
    target = Path(out) / "split_00000"
    if not overwrite and any(target.glob("*.tar")):
        raise ConfigError(f"{target} holds shards already; choose another folder, or say overwrite")
    target.mkdir(parents=True, exist_ok=True)

    def write_one(number: int) -> tuple[str, int, list[Drop]]:
        """Write the shard of this number."""
        part = table[number * samples_per_shard : (number + 1) * samples_per_shard]
        samples = (_Row(source, row, file_column, caption_column) for row in part)
        return _write_shard(target / f"{number:05d}.tar", number, samples, len(str(max(samples_per_shard - 1, 1000))))

    count = -(-len(table) // samples_per_shard)
    written = _in_parallel(write_one, range(count), count, workers, progress)
    report = WriteReport(
        [path for path, samples, _ in written if samples],
        sum(samples for _, samples, _ in written),
        [drop for _, _, drops in written for drop in drops],
    )
    if not report.samples:
        raise DataError(f"none of the {len(table)} rows could be used; the first: {report.drops[0]}")
    return report


def check_shards(
    shards: ShardSpec,
    subset: str | None = None,
    *,
    reader: PictureReader | None = None,
    max_pixels: int = MAX_PIXELS,
    examples: int = 25,
    workers: int = 4,
    progress: Progress | None = None,
) -> ShardReport:
    """Read shards from end to end, decode every picture, and count.

    Args:
        shards: See :func:`~farl_lightning.datasets.shard_list.list_shards`.
        subset: ``"20M"``, ``"50M"`` or None.
        reader: Finds pictures, captions and faces; None asks for no faces.
        max_pixels: Largest width x height of a picture.
        examples: How many pictures to keep for a contact sheet.
        workers: Shards read at the same time.
        progress: Wraps the shards while they are read, such as ``tqdm``.

    Returns:
        The report.
    """
    found = list_shards(shards, subset)
    names = shard_names(found)
    look = reader or PictureReader()

    def check_one(number: int) -> _Checked:
        """Read the shard of this number."""
        return _check_shard(found[number], names[number], look, max_pixels, examples)

    parts = _in_parallel(check_one, range(len(found)), len(found), workers, progress)
    drops = [drop for part in parts for drop in part.drops]
    counts = Counter(drop["reason"] for drop in drops)
    return ShardReport(
        shards=len(found),
        samples=sum(len(part.sizes) for part in parts),
        size=sum(part.size for part in parts),
        per_shard=_spread([len(part.sizes) for part in parts]),
        width=_spread([width for part in parts for width, _ in part.sizes]),
        height=_spread([height for part in parts for _, height in part.sizes]),
        words=_spread([count for part in parts for count in part.words]),
        reasons=dict(counts.most_common()),
        drops=drops[:1000],
        examples=[picture for part in parts for picture in part.examples][:examples],
    )


@dataclasses.dataclass
class _Checked:
    """What one shard holds."""

    sizes: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    words: list[int] = dataclasses.field(default_factory=list)
    size: int = 0
    drops: list[Drop] = dataclasses.field(default_factory=list)
    examples: list[Picture] = dataclasses.field(default_factory=list)


def _check_shard(shard: str, name: str, reader: PictureReader, max_pixels: int, examples: int) -> _Checked:
    """Read one shard."""
    checked = _Checked()
    for picture in read_pictures(shard, name, reader, checked.drops):
        try:
            image = EncodedImage(picture.data, max_pixels=max_pixels)
            image.load(1 / 8)  # enough to meet every error of the file
        except BadSample as bad:
            checked.drops.append(bad.to_drop(picture.key))
            continue
        checked.sizes.append(image.size)
        checked.words += [len(caption.split()) for caption in picture.captions]
        checked.size += len(picture.data)
        if len(checked.examples) < examples:
            checked.examples.append(picture)
    return checked


class _Row:
    """One row of a caption table, to be read when its turn comes."""

    def __init__(self, folder: Path, row: Mapping[str, Any], file_column: str, caption_column: str) -> None:
        self._folder, self._row = folder, row
        self._columns = file_column, caption_column

    @property
    def name(self) -> str:
        """The picture's file name, as the table has it."""
        return str(self._row.get(self._columns[0]) or "")

    def files(self, key: str) -> dict[str, bytes]:
        """Return the files of the sample by suffix.

        Raises:
            BadSample: If the picture or all captions are missing or useless.
        """
        captions = self._captions()
        try:
            data = (self._folder / self.name).read_bytes()
        except OSError as error:
            raise BadSample(MISSING_IMAGE, str(error)) from error
        width, height = EncodedImage(data).size
        suffix = _suffix(data)
        if suffix is None:
            stream, suffix = io.BytesIO(), "png"
            decode_image(data).save(stream, "PNG")
            data = stream.getvalue()
        others = {name: value for name, value in self._row.items() if name not in self._columns and name}
        metadata = {**others, "key": key, "file": self.name, "width": width, "height": height, "captions": captions}
        text = json.dumps(metadata, ensure_ascii=False, sort_keys=True)
        return {suffix: data, "json": text.encode(), "txt": captions[0].encode()}

    def _captions(self) -> list[str]:
        """Return the captions that cleaning leaves something of, as they are."""
        value = self._row.get(self._columns[1])
        texts = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else []
        if not texts:
            raise BadSample(MISSING_CAPTION, f"column '{self._columns[1]}' is empty")
        captions = [text for text in texts if isinstance(text, str) and clean_caption(text)]
        if not captions:
            raise BadSample(EMPTY_CAPTION, repr(texts)[:80])
        return captions


def _write_shard(path: Path, number: int, rows: Iterable[_Row], digits: int) -> tuple[str, int, list[Drop]]:
    """Write one shard and its statistics; nothing when no row is usable."""
    temporary, drops, count, total = path.with_suffix(".tar.tmp"), [], 0, 0
    with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for total, row in enumerate(rows, 1):
            key = f"{number:05d}{count:0{digits}d}"
            try:
                files = row.files(key)
            except BadSample as bad:
                drops.append(bad.to_drop(row.name or f"row {total}"))
                continue
            for suffix, data in files.items():
                member = tarfile.TarInfo(f"{key}.{suffix}")  # its other fields are constants
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            count += 1
    if not count:
        temporary.unlink()
        return str(path), 0, drops
    os.replace(temporary, path)
    path.with_name(f"{path.stem}_stats.json").write_text(json.dumps({"count": total, "successes": count}))
    return str(path), count, drops


def _in_parallel(
    work: Callable[[int], Any], items: Iterable[int], total: int, workers: int, progress: Progress | None
) -> list[Any]:
    """Call a function for each item in threads (files and decoders release the interpreter); results in order."""
    with ThreadPoolExecutor(workers) as pool:
        results: Iterator[Any] = pool.map(work, items)
        return list(progress(results, total=total) if progress else results)


def _columns(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Find the columns with file names and captions."""
    if not rows:
        raise DataError("the caption table has no rows")
    names = list(dict.fromkeys(name for row in rows for name in row))
    found = []
    for wanted, what in ((FILE_COLUMNS, "file name"), (CAPTION_COLUMNS, "caption")):
        column = next((name for name in wanted if name in names), None)
        if column is None:
            hint = did_you_mean(wanted[0], [str(name) for name in names])
            raise ConfigError(f"no column with the {what}: it is called {' or '.join(wanted)}. {hint}")
        found.append(column)
    return found[0], found[1]


def _suffix(data: bytes) -> str | None:
    """Return the suffix of a format that is kept as it is."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return next((suffix for magic, suffix in _KEPT.items() if data.startswith(magic)), None)


def _json_row(path: Path, number: int, line: str) -> dict[str, Any]:
    """Parse one line."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}, line {number}: {error}") from error
    if not isinstance(row, dict):
        raise DataError(f"{path}, line {number}: a {type(row).__name__} instead of an object")
    return row


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return smallest, median and largest."""
    return (min(values), statistics.median(values), max(values)) if values else (0, 0, 0)
