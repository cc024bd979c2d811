"""From what a user writes (folders, patterns, URLs, list files) to a list of shards, and how a shard is opened."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from farl_lightning.errors import ConfigError, DatasetNotFoundError, did_you_mean

LAION_FACE_PARTS = 32
"""LAION-Face comes in 32 parts, ``split_00000`` to ``split_00031``."""

SUBSETS: dict[str, tuple[int, ...]] = {
    "20M": (0, 2, 5, 8, 13, 15, 17, 18, 21, 22, 24, 25, 28),
    "50M": tuple(range(LAION_FACE_PARTS)),
}
"""Parts of LAION-Face by the name of the subset, as its README lists them."""

ShardSpec = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""What names shards: one string or path, or several."""

HOW_TO_GET = (
    "Expected are tar files as img2dataset writes them (split_00000/00000.tar, ...; each sample a .jpg, .txt and "
    ".json). Get LAION-Face with the download script of github.com/FacePerceiver/LAION-Face, or make shards of your "
    "own pictures: farl-lightning data write-shards"
)

_URL = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]+):(//)?")
_SCHEMES = ("s3", "gs", "http", "https", "hf", "ais", "sftp", "ftps", "scp", "file", "pipe")
_SPLIT = re.compile(r"split_0*(\d+)(?=/|\\|$)")
_LIST_SUFFIXES = (".txt", ".list")
_LOOKED_AT = 16  # so many names are looked for before anything starts
_BUFFER = 1 << 17  # larger reads by the kernel's own read-ahead; a larger buffer makes skipping slow


def list_shards(shards: ShardSpec, subset: str | None = None) -> list[str]:
    """List the shards that a specification names, without looking into any of them.

    Args:
        shards: Any of these, or a list of them: a folder (every ``.tar`` below it), a ``.tar`` file, a glob pattern, a
            brace pattern (``{00000..00123}``), a URL (``s3://``, ``gs://``, ``https://``, ``hf://``, ...), a ``pipe:``
            command (which runs in a shell), or a ``.txt`` file with one of these per line, ``pipe:`` excepted.
        subset: ``"20M"`` or ``"50M"``: only the parts of LAION-Face that belong to it.

    Returns:
        Paths and URLs without repeats, in the order given, folders and patterns sorted.

    Raises:
        DatasetNotFoundError: If a folder or file is not there, or nothing matches.
        ConfigError: If a URL scheme or subset is unknown, or a list file holds a ``pipe:`` command.
    """
    entries = [shards] if isinstance(shards, str | os.PathLike) else list(shards)
    found = _trusted(os.fspath(entry) for entry in entries)
    if not found:
        raise DatasetNotFoundError(f"no shards: the list of shards is empty. {HOW_TO_GET}")
    if not any(not is_local(shard) or os.path.exists(shard) for shard in found[:_LOOKED_AT]):
        return _missing(found[0], "and those after it do not exist" if len(found) > 1 else "does not exist")
    return found if subset is None else _take_subset(found, subset)


def shard_names(shards: Sequence[str]) -> list[str]:
    """Name shards: the last folder and the file without suffix, the whole path where that is not unique.

    Samples are called after their shard, because img2dataset numbers them anew in every part.

    Args:
        shards: Paths and URLs.

    Returns:
        Names such as ``"split_00000/00012"``, in the same order.
    """
    short = [_short_name(shard) for shard in shards]
    if len(set(short)) == len(short):
        return short
    counts: dict[str, int] = {}
    for name in short:
        counts[name] = counts.get(name, 0) + 1
    return [name if counts[name] == 1 else shard for name, shard in zip(short, shards, strict=True)]


def is_local(shard: str) -> bool:
    """Whether a shard is a file on this machine's file systems.

    Args:
        shard: A path or URL.
    """
    return _scheme(shard) in (None, "file")


def open_shard(shard: str) -> BinaryIO:
    """Open a shard for reading: local files directly, URLs through webdataset's opener.

    Args:
        shard: As :func:`list_shards` returns it. ``s3://`` needs the ``aws`` program, ``gs://`` ``gsutil``.

    Raises:
        OSError: If it cannot be opened. Programs that fetch may fail later, when they are read or closed.
    """
    scheme = _scheme(shard)
    if scheme is None:
        return open(shard, "rb", buffering=_BUFFER)
    from webdataset.gopen import Pipe, gopen

    if scheme == "s3":  # a list, not a shell command: nothing in the URL is executed
        command = ["aws", "s3", "cp", "--only-show-errors", shard, "-"]
        return cast(BinaryIO, Pipe(command, mode="rb", bufsize=_BUFFER))
    return cast(BinaryIO, gopen(shard, "rb", bufsize=_BUFFER))


def _expand(entry: str, from_list: str | None = None) -> list[str]:
    """Expand one entry of a specification."""
    scheme = _scheme(entry)
    if scheme == "pipe" and from_list is not None:
        raise ConfigError(
            f"'{from_list}' holds a pipe: command. Commands run in a shell, so they are taken from configs and flags "
            "only, never from files with lists"
        )
    names = _expand_braces(entry) if "{" in entry else [entry]
    if scheme is not None:
        return names
    if len(names) == 1:
        return _expand_path(names[0])
    return _trusted(names)


def _trusted(entries: Iterable[str], from_list: str | None = None) -> list[str]:
    """Expand entries, but take plain names of tar files at their word.

    To ask for each of 40,000 files would take minutes on a network; one that is not there is counted in its turn.
    """
    expanded = ([entry] if _is_plain(entry) else _expand(entry, from_list) for entry in entries)
    return list(dict.fromkeys(shard for shards in expanded for shard in shards))


def _expand_path(entry: str) -> list[str]:
    """Expand a local path or glob pattern."""
    if glob.has_magic(entry) and not os.path.exists(entry):
        return sorted(glob.glob(entry, recursive=True)) or _missing(entry)
    if os.path.isdir(entry):
        return _tars_below(entry) or _missing(entry, "holds no .tar files")
    if not os.path.exists(entry):
        return _missing(entry)
    return _read_list(entry) if entry.endswith(_LIST_SUFFIXES) else [entry]


def _expand_braces(entry: str) -> list[str]:
    """Expand ``{00000..00012}`` and ``{a,b}``."""
    import braceexpand

    try:
        return list(braceexpand.braceexpand(entry))
    except ValueError as error:
        raise ConfigError(f"shards '{entry}': {error}") from error


def _tars_below(folder: str) -> list[str]:
    """List the tar files in a folder and all folders below it, sorted, without touching the files."""
    return sorted(
        os.path.join(root, name) for root, _, names in os.walk(folder) for name in names if name.endswith(".tar")
    )


def _read_list(path: str) -> list[str]:
    """Read a file with one entry per line; ``#`` begins a comment; relative paths start at the file's folder."""
    lines = (line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    base = os.path.dirname(path)
    entries = [line for line in lines if line and not line.startswith("#")]
    return _trusted((entry if _scheme(entry) else os.path.join(base, entry) for entry in entries), from_list=path)


def _is_plain(entry: str) -> bool:
    """Whether an entry is the name of one local tar file."""
    return entry.endswith(".tar") and _scheme(entry) is None and "{" not in entry and not glob.has_magic(entry)


def _scheme(entry: str) -> str | None:
    """Return the scheme of a URL, None for a local path.

    Raises:
        ConfigError: If it looks like a URL of a kind that nothing opens.
    """
    match = _URL.match(entry)
    if match is None or os.sep in match.group(1):
        return None
    scheme = match.group(1).lower()
    if scheme in _SCHEMES:
        return scheme
    if match.group(2):
        raise ConfigError(f"shards '{entry}': nothing opens '{scheme}://'. {did_you_mean(scheme, _SCHEMES)}")
    return None


def _missing(entry: str, what: str = "does not exist") -> list[str]:
    raise DatasetNotFoundError(f"shards '{entry}': {os.path.abspath(entry)} {what}. {HOW_TO_GET}")


def _short_name(shard: str) -> str:
    """Return the last two parts of a path without ``.tar``; of a command, its last word that names a tar file."""
    words = [word for word in shard.split() if ".tar" in word] if shard.startswith("pipe:") else []
    path = (words[-1] if words else shard).split("?")[0].replace(os.sep, "/")
    # not pathlib, which takes most of a second for 40,000 names
    return "/".join([part for part in path.rsplit("/", 3) if part][-2:]).removesuffix(".tar")


def _take_subset(shards: Iterable[str], subset: str) -> list[str]:
    """Keep the shards in the parts of a subset."""
    if subset not in SUBSETS:
        raise ConfigError(f"subset '{subset}' is unknown. {did_you_mean(subset, SUBSETS)}")
    wanted = frozenset(SUBSETS[subset])
    kept = [shard for shard in shards if (match := _SPLIT.search(shard)) and int(match.group(1)) in wanted]
    if not kept:
        folders = ", ".join(f"split_{part:05d}" for part in SUBSETS[subset])
        raise DatasetNotFoundError(f"subset '{subset}' is made of {folders}; none of the shards lies in one of them")
    return kept
