"""Features of many faces to one file: in parts that outlive an interruption, bad pictures counted."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Sized
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from farl_lightning.errors import ConfigError, DataError
from farl_lightning.models.features import FeatureExtractor
from farl_lightning.probing.files import checked_ending, read_features, write_features
from farl_lightning.probing.table import FeatureTable
from farl_lightning.types import ATTRIBUTES, Drop, FaceBatch

PRECISIONS = {"32": None, "bf16": torch.bfloat16, "16": torch.float16}
"""Names of precisions, and what autocast makes of them."""

PART_SECONDS = 60.0
"""After so many seconds a part is written: at most so much work is lost."""

_MANIFEST = "job.json"
_DROPS = "dropped.jsonl"


class FaceSource(Sized, Protocol):
    """Pictures to embed, in an order that never changes; an item may hold several faces, or none."""

    fingerprint: str
    """Changes when the pictures, or how they are cropped, change."""
    label_names: dict[str, tuple[str, ...]]
    """Names of the classes of each label; none for numbers."""
    attributes: tuple[str, ...]
    """Names of the attributes."""

    def __getitem__(self, index: int) -> Any:
        """Return one item.

        Args:
            index: From 0 to ``len(self) - 1``.
        """

    def collate(self, items: Sequence[Any]) -> FaceBatch:
        """Put items into one batch; faces with ``valid`` False do not count, ``dropped`` says why.

        Args:
            items: At least one.
        """


@dataclasses.dataclass(frozen=True)
class EmbedReport:
    """What became of a job.

    Attributes:
        path: The file of features.
        faces: Number of faces in it.
        dropped: Pictures and faces that were left out, by reason.
        resumed: Items that an earlier run had done already.
        seconds: Wall time of this run.
        listing: File that names everything that was left out, one JSON object per line; None if there is nothing.
    """

    path: Path
    faces: int
    dropped: Counter[str]
    resumed: int
    seconds: float
    listing: Path | None


def embed(
    extractor: FeatureExtractor,
    source: FaceSource,
    path: str | Path,
    *,
    identity: dict[str, Any] | None = None,
    batch_size: int = 32,
    num_workers: int = 0,
    device: str | torch.device = "cpu",
    precision: str = "32",
    annotate: Callable[[FeatureTable], FeatureTable] | None = None,
    progress: Callable[[int, int], None] | None = None,
    overwrite: bool = False,
    part_seconds: float = PART_SECONDS,
) -> EmbedReport:
    """Compute features of every face, and write them to one file.

    Parts are kept in ``<path>.parts`` until all are there. A job that was interrupted goes on where its last part
    ended, if it is the same job: pictures, network, features and precision. One part at a time is in memory.

    Args:
        extractor: Gives the features; a module is moved to ``device``.
        source: The pictures.
        path: Ends in ``.parquet`` (needs pyarrow) or ``.npz``.
        identity: What makes the extractor this one, as plain data, such as its file and block numbers.
        batch_size: Items per batch.
        num_workers: Processes that read pictures.
        device: Where features are computed.
        precision: ``"32"``, or ``"bf16"`` or ``"16"`` for autocast.
        annotate: Adds labels to the features of a part.
        progress: Called with items done and all items, after each batch.
        overwrite: Begin anew, and replace a file that is there already.
        part_seconds: How long a part takes.

    Raises:
        ConfigError: If the file is there already, the parts belong to another job, or a setting means nothing.
        DataError: If there is no face at all, or a feature is not finite.
    """
    path = checked_ending(path)
    dtype = _autocast(precision)
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it has to be at least 1")
    if path.exists() and not overwrite:
        raise ConfigError(f"'{path}' is there already; give --overwrite to replace it")
    began = time.perf_counter()
    job = {**(identity or {}), "pictures": source.fingerprint, "items": len(source), "precision": precision}
    parts = _Parts(path.with_name(f"{path.name}.parts"), job, overwrite)
    resumed = parts.done
    if isinstance(extractor, torch.nn.Module):
        extractor.to(device)
    batches = _batches(source, parts.done, batch_size, num_workers)
    for done, table, drops in _features(extractor, batches, source, torch.device(device), dtype, len(source)):
        parts.add(done, table, drops)
        if parts.age > part_seconds or done == len(source):
            parts.flush()
        if progress is not None:
            progress(done, len(source))
    tables = (part if annotate is None else annotate(part) for part in parts.tables())
    try:
        faces = write_features(path, tables)
    except DataError as error:
        raise DataError(f"{error}; left out: {_counted(parts.dropped())}") from error
    listing = _write_drops(path, parts.dropped())
    parts.remove()
    reasons = Counter(drop["reason"] for drop in parts.drops)
    return EmbedReport(path, faces, reasons, resumed, time.perf_counter() - began, listing)


def _autocast(precision: str) -> torch.dtype | None:
    """Return what autocast computes in."""
    if precision not in PRECISIONS:
        raise ConfigError(f"precision '{precision}' is unknown; allowed: {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]


def _batches(source: FaceSource, first: int, batch_size: int, num_workers: int) -> Iterator[tuple[int, FaceBatch]]:
    """Yield how many items are done after each batch, and the batch, from an item on."""
    items: Any = Subset(source, range(first, len(source)))  # type: ignore[arg-type]
    loader: DataLoader[Any] = DataLoader(
        items,
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=source.collate,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(0),  # leaves the global generator alone
    )
    for number, batch in enumerate(loader, 1):
        yield min(first + number * batch_size, len(source)), batch


def _features(
    extractor: FeatureExtractor,
    batches: Iterator[tuple[int, FaceBatch]],
    source: FaceSource,
    device: torch.device,
    dtype: torch.dtype | None,
    total: int,
) -> Iterator[tuple[int, FeatureTable | None, list[Drop]]]:
    """Yield items done, table and drops; a batch is read back only when the next one is under way on the device."""
    waiting: tuple[int, FaceBatch, dict[str, Tensor]] | None = None
    for done, batch in batches:
        images = batch["image"].to(device, non_blocking=True)
        context = contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)
        with torch.no_grad(), context:
            found = extractor(images)
        if waiting is not None:
            yield waiting[0], _table(waiting[1], waiting[2], source), list(waiting[1].get("dropped", ()))
        waiting = done, batch, found
    if waiting is not None:
        yield total, _table(waiting[1], waiting[2], source), list(waiting[1].get("dropped", ()))


def _table(batch: FaceBatch, features: dict[str, Tensor], source: FaceSource) -> FeatureTable | None:
    """Return the faces of a batch that count, None if there are none."""
    valid = batch["valid"] if "valid" in batch else torch.ones(len(batch["key"]), dtype=torch.bool)
    rows = valid.cpu().nonzero().flatten()
    if not len(rows):
        return None
    arrays = {name: value.float().cpu()[rows].numpy() for name, value in features.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise DataError(
                f"feature '{name}' of '{batch['key'][int(rows[0])]}' or a face of the same batch is not finite: the "
                "network is broken, or --precision 16 is too narrow for it"
            )
    labels = {name: value.cpu()[rows].numpy() for name, value in batch.get("labels", {}).items()}
    if ATTRIBUTES in labels:
        labels[ATTRIBUTES] = labels[ATTRIBUTES].astype(np.int8)
    groups = {name: [values[row] for row in rows.tolist()] for name, values in batch.get("groups", {}).items()}
    keys = [batch["key"][row] for row in rows.tolist()]
    names = {name: names for name, names in source.label_names.items() if name in labels}
    attributes = source.attributes if ATTRIBUTES in labels else ()
    return FeatureTable(keys, arrays, labels, groups, names, attributes)


class _Parts:
    """Parts of a job on disk: ``00000.npz`` with ``00000.json``, which says where it ends and what was left out."""

    def __init__(self, folder: Path, job: dict[str, Any], anew: bool) -> None:
        self.folder, self.job = folder, job
        if anew and folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._check_job()
        self.notes = self._read_notes()
        self.done: int = self.notes[-1]["end"] if self.notes else 0
        self.drops: list[Drop] = []
        self._waiting: list[FeatureTable] = []
        self._since = time.perf_counter()

    @property
    def age(self) -> float:
        """Seconds since the last part was written."""
        return time.perf_counter() - self._since

    def add(self, done: int, table: FeatureTable | None, drops: list[Drop]) -> None:
        """Keep a batch until the next part is written."""
        self.done = done
        self._waiting += [] if table is None else [table]
        self.drops += drops

    def flush(self) -> None:
        """Write a part; the note comes last, and makes it count."""
        name = f"{len(self.notes):05d}"
        if self._waiting:
            write_features(self.folder / f"{name}.npz", self._waiting)
        note = {"end": self.done, "faces": sum(map(len, self._waiting)), "dropped": self.drops}
        _write_json(self.folder / f"{name}.json", note)
        self.notes.append(note)
        self._waiting, self.drops, self._since = [], [], time.perf_counter()

    def tables(self) -> Iterator[FeatureTable]:
        """Yield the parts that hold a face, in order."""
        for number, note in enumerate(self.notes):
            if note["faces"]:
                yield read_features(self.folder / f"{number:05d}.npz")

    def dropped(self) -> list[Drop]:
        """Return everything that was left out."""
        self.drops = [drop for note in self.notes for drop in note["dropped"]]
        return self.drops

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder)

    def _check_job(self) -> None:
        """Begin a job, or refuse to go on with another one."""
        file = self.folder / _MANIFEST
        plain = json.loads(json.dumps(self.job))
        if not file.is_file():
            _write_json(file, plain)
            return
        old = _read_json(file)
        changed = sorted(name for name in {*old, *plain} if old.get(name) != plain.get(name))
        if changed:
            raise ConfigError(
                f"'{self.folder}' holds parts of another job (it differs in: {', '.join(changed)}); give --overwrite "
                "to begin anew, or another --output"
            )

    def _read_notes(self) -> list[dict[str, Any]]:
        """Return the notes of the parts that are whole."""
        notes: list[dict[str, Any]] = []
        while (file := self.folder / f"{len(notes):05d}.json").is_file():
            notes.append(_read_json(file))
        return notes


def _write_json(path: Path, plain: dict[str, Any]) -> None:
    """Write plain data; a reader never meets half a file."""
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(plain, ensure_ascii=False), encoding="utf-8")
    scratch.replace(path)


def _read_json(path: Path) -> dict[str, Any]:
    """Read plain data."""
    try:
        plain: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"'{path}' of an earlier run cannot be read: {error}; give --overwrite to begin anew"
        ) from error
    return plain


def _write_drops(path: Path, drops: Sequence[Drop]) -> Path | None:
    """Name everything that was left out beside the features."""
    listing = path.with_name(f"{path.stem}.{_DROPS}")
    if not drops:
        listing.unlink(missing_ok=True)
        return None
    listing.write_text("".join(json.dumps(drop, ensure_ascii=False) + "\n" for drop in drops), encoding="utf-8")
    return listing


def _counted(drops: Sequence[Drop]) -> str:
    """Count what was left out by reason."""
    counts = Counter(drop["reason"] for drop in drops)
    return ", ".join(f"{reason} {count}" for reason, count in counts.most_common()) or "nothing"
