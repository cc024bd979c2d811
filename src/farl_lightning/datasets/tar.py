"""Read the samples of a tar shard one after the other, whatever state it is in. Nothing is ever written to disk."""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from farl_lightning.datasets.bad_sample import (
    DUPLICATE_KEY,
    OVERSIZED_FILE,
    SHARD_EMPTY,
    SHARD_MISSING,
    SHARD_TRUNCATED,
    SHARD_UNREADABLE,
    BadSample,
)
from farl_lightning.datasets.shard_list import open_shard

IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "avif", "jp2"})
"""Names under which a sample's picture is looked for."""

SUFFIXES = IMAGE_SUFFIXES | {"txt", "json"}
"""Files of a sample that are read; others are passed over."""

MAX_FILE_BYTES = 64 << 20
"""Largest file that is read from a shard; a larger one makes its sample a bad one."""

_BLOCK = 512
_HEADER_LIMIT = 1 << 20  # long names and pax records have no business being longer
_FILE_TYPES = (b"0", b"\0", b"7")
_DATALESS_TYPES = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders, pipes: never followed or made
_LONG_NAME, _PAX = b"L", b"x"
_ZEROS = bytes(_BLOCK)
_SUM = struct.Struct("512B")


class RawSample(NamedTuple):
    """The undecoded files of one sample, or what is wrong with it."""

    key: str
    """Name inside the shard: path and file name up to the first dot."""
    ordinal: int
    """Number of the sample in the shard, the bad ones counted."""
    files: dict[str, bytes]
    """File contents by suffix, such as ``{"jpg": ..., "txt": ..., "json": ...}``."""
    fault: BadSample | None = None
    """Set when the sample cannot be used; ``files`` is empty then."""


def read_shard(
    shard: str, first: int = 0, part: tuple[int, int] = (0, 1), max_file_bytes: int = MAX_FILE_BYTES
) -> Iterator[RawSample]:
    """Yield the samples of a shard in their order.

    A sample is a run of files that share a name up to the first dot. Directories and links are passed over. Bytes that
    nobody asks for are skipped by seeking where the shard allows it.

    Args:
        shard: Path or URL.
        first: Samples with a smaller ordinal are not read.
        part: ``(i, n)``: only samples whose ordinal leaves the remainder i when divided by n.
        max_file_bytes: Limit of one file; the limit of the read files of one sample together is twice that.

    Raises:
        BadSample: After the last good sample, with one of ``SHARD_REASONS``, when something is wrong with the shard.
    """
    try:
        stream = open_shard(shard)
    except (OSError, ValueError) as error:  # ValueError: webdataset has no opener for it
        raise BadSample(SHARD_MISSING, _describe(error)) from error
    reader: _Reader | None = None
    try:
        reader = _Reader(stream, first, part, max_file_bytes)
        yield from reader.samples()
    except (OSError, ValueError) as error:
        began = reader is not None and reader.position > 0  # a program that fetches nothing has not found the shard
        raise BadSample(SHARD_UNREADABLE if began else SHARD_MISSING, _describe(error)) from error
    finally:
        _close(stream)


def count_samples(shard: str) -> int:
    """Count the samples of a shard by its headers, the bad ones included; a broken shard counts as far as it goes.

    Args:
        shard: Path or URL.
    """
    try:
        stream = open_shard(shard)
    except (OSError, ValueError):
        return 0
    reader = _Reader(stream, first=sys.maxsize, part=(0, 1), limit=0)
    with contextlib.suppress(BadSample, OSError, ValueError):
        next(reader.samples(), None)
    _close(stream)
    return reader.count


class _Member(NamedTuple):
    """What matters of a file's header."""

    name: str
    size: int
    kind: bytes


class _Reader:
    """State of reading one shard."""

    def __init__(self, stream: BinaryIO, first: int, part: tuple[int, int], limit: int) -> None:
        self._stream, self._limit = stream, limit
        self._first, self._part = first, part
        self._size = os.fstat(stream.fileno()).st_size if _seekable(stream) else None
        self.position = 0
        self.count = 0

    def samples(self) -> Iterator[RawSample]:
        """Group files into samples."""
        seen: set[str] = set()
        sample: _Group | None = None
        kinds: set[str] = set()  # the suffixes of the sample before
        try:
            for member in self._members():
                stem, _, suffix = _split(member.name)
                if sample is None or sample.key != stem or suffix in sample.suffixes:
                    if sample is not None and self._wants(sample.ordinal):
                        yield sample.finish()
                    kinds = sample.suffixes if sample else kinds
                    sample = _Group(stem, self.count, stem in seen)
                    seen.add(stem)
                    self.count += 1
                self._take(member, suffix, sample)
                sample.suffixes.add(suffix)
        except (BadSample, OSError, ValueError):
            if sample is not None and kinds == sample.suffixes != set() and self._wants(sample.ordinal):
                yield sample.finish()  # as complete as the one before it
            raise
        if sample is None:
            raise BadSample(SHARD_EMPTY, "an archive without files")
        if self._wants(sample.ordinal):
            yield sample.finish()

    def _wants(self, ordinal: int) -> bool:
        """Whether a sample is asked for."""
        return ordinal >= self._first and ordinal % self._part[1] == self._part[0]

    def _take(self, member: _Member, suffix: str, sample: _Group) -> None:
        """Read a file into its sample, or pass it over."""
        padded = -(-member.size // _BLOCK) * _BLOCK
        if suffix not in SUFFIXES or not self._wants(sample.ordinal) or sample.duplicate:
            self._skip(padded)
        elif member.size > self._limit or sample.size + member.size > 2 * self._limit:
            sample.fault = BadSample(OVERSIZED_FILE, f"{member.name}: {member.size} bytes, the limit is {self._limit}")
            self._skip(padded)
        else:
            sample.size += member.size
            sample.files[suffix] = self._read(member.size)
            self._skip(padded - member.size)

    def _members(self) -> Iterator[_Member]:
        """Yield the headers of regular files; their content is to be read or skipped before the next."""
        name: str | None = None
        size: int | None = None
        while (member := self._header()) is not None:
            if member.kind == _LONG_NAME:
                name = self._metadata(member.size).rstrip(b"\0").decode("utf-8", "replace")
                continue
            if member.kind == _PAX:
                records = _pax_records(self._metadata(member.size))
                name = records.get("path", name)
                size = int(records["size"]) if "size" in records else size
                continue
            if member.kind in _FILE_TYPES:
                yield _Member(name or member.name, member.size if size is None else size, member.kind)
            elif member.kind not in _DATALESS_TYPES:
                self._skip(-(-member.size // _BLOCK) * _BLOCK)
            name = size = None

    def _header(self) -> _Member | None:
        """Read the next header; None at the end of the archive."""
        start = self.position
        block = self._read(_BLOCK, allow_end=start == 0)
        if not block:
            raise BadSample(*_empty(self._stream))
        if block == _ZEROS:
            return None
        try:
            return _parse_header(block)
        except ValueError as error:
            raise BadSample(SHARD_UNREADABLE, f"byte {start}: {error}") from error

    def _metadata(self, size: int) -> bytes:
        """Read the content of a header that only describes the next file."""
        if size > _HEADER_LIMIT:
            raise BadSample(SHARD_UNREADABLE, f"byte {self.position}: a header of {size} bytes")
        data = self._read(size)
        self._skip(-size % _BLOCK)
        return data

    def _read(self, size: int, allow_end: bool = False) -> bytes:
        """Read exactly so many bytes; nothing at all is fine at the very beginning."""
        data = self._stream.read(size)
        self.position += len(data)
        if len(data) == size or (allow_end and not data):
            return data
        why = _exit_status(self._stream)
        raise BadSample(SHARD_TRUNCATED, f"ends at byte {self.position}{f': {why}' if why else ''}")

    def _skip(self, size: int) -> None:
        """Pass over bytes."""
        if self._size is None:
            while size > 0:
                size -= len(self._read(min(size, 1 << 20)))
        elif self.position + size > self._size:
            raise BadSample(SHARD_TRUNCATED, f"ends at byte {self._size}")
        elif size:
            self.position += size
            self._stream.seek(self.position)


class _Group:
    """A sample that is being put together."""

    def __init__(self, key: str, ordinal: int, duplicate: bool) -> None:
        self.key, self.ordinal, self.duplicate = key, ordinal, duplicate
        self.suffixes: set[str] = set()
        self.files: dict[str, bytes] = {}
        self.size = 0
        self.fault = BadSample(DUPLICATE_KEY, "the shard has an earlier sample of this name") if duplicate else None

    def finish(self) -> RawSample:
        """Return the sample."""
        return RawSample(self.key, self.ordinal, {} if self.fault else self.files, self.fault)


def _split(name: str) -> tuple[str, str, str]:
    """Split a member's name at the first dot of its file name: stem, dot, lower-case suffix."""
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    return (f"{folder}{slash}{stem}").removeprefix("./"), dot, suffix.lower()


def _parse_header(block: bytes) -> _Member:
    """Parse a 512-byte header; five times as fast as ``tarfile.TarInfo.frombuf``, which also parses owners and dates.

    Raises:
        ValueError: If it is no header.
    """
    checksum = sum(_SUM.unpack(block)) - sum(block[148:156]) + 8 * ord(" ")
    if checksum != _number(block[148:156]):
        raise ValueError("no tar header (the checksum is wrong)")
    size = _number(block[124:136])
    if size < 0:
        raise ValueError(f"a file of {size} bytes")
    name = _text(block[:100])
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
    return _Member(f"{prefix}/{name}" if prefix else name, size, block[156:157])


def _number(field: bytes) -> int:
    """Read octal digits, or the binary form that sizes of 8 GiB and more take."""
    if field[0] in (0x80, 0xFF):
        return int.from_bytes(field[1:], "big", signed=field[0] == 0xFF)
    return int(field.split(b"\0", 1)[0].strip() or b"0", 8)


def _text(field: bytes) -> str:
    """Read a name."""
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")


def _empty(stream: BinaryIO) -> tuple[str, str]:
    """Say why not a single byte came: a program that failed, or a shard that is empty."""
    status = _exit_status(stream)
    return (SHARD_MISSING, status) if status else (SHARD_EMPTY, "0 bytes")


def _pax_records(data: bytes) -> dict[str, str]:
    """Parse the ``length key=value`` records of an extended header."""
    records: dict[str, str] = {}
    while data and (length := int(data.partition(b" ")[0] or b"0")) > 0:
        record, data = data[:length], data[length:]
        key, _, value = record.partition(b" ")[2].rstrip(b"\n").partition(b"=")
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
    return records


def _seekable(stream: BinaryIO) -> bool:
    """Whether bytes can be skipped without reading them."""
    seekable = getattr(stream, "seekable", None)  # webdataset's pipes have no such method
    return bool(seekable and seekable())


def _exit_status(stream: BinaryIO) -> str:
    """Say how the program behind a pipe ended, if it ended badly."""
    try:
        stream.close()
    except OSError as error:
        return _describe(error)
    return ""


def _close(stream: BinaryIO) -> None:
    """Close; a program that was stopped half-way has nothing to complain about."""
    with contextlib.suppress(OSError):
        stream.close()


def _describe(error: Exception) -> str:
    """Put an exception into one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:160]
