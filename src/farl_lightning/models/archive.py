"""Weights files, read without running anything that is in them."""

from __future__ import annotations

import io
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from farl_lightning.errors import CheckpointError, did_you_mean

MAX_BYTES = 32 * 2**30
"""Largest file that is opened: far above any network of this family."""

# what the unpickler raises on bytes that are no pickle depends on the bytes
_FAILURES = (
    *(RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, LookupError),
    *(TypeError, AttributeError, ImportError, AssertionError, struct.error),
)


def read_file(path: str | Path) -> Any:
    """Read what a weights file holds: a dict, in most cases with tensors at some depth.

    Files of ``torch.save`` are loaded with ``weights_only=True`` and mapped into memory, not copied. Of a TorchScript
    archive the parameters and buffers are read and its code is not. ``.safetensors`` files work too.

    Args:
        path: The file.

    Raises:
        CheckpointError: If the file is missing, too large, cut short, of another kind, or holds Python objects that
            loading safely refuses.
    """
    path = Path(path).expanduser()
    _check_file(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if zipfile.is_zipfile(path):
        return _read_zip(path)
    return _torch_load(path, mmap=False)


def read_extra(path: str | Path, name: str) -> Any:
    """Read weights that lie inside a TorchScript archive as a file of their own, as ``torch.save`` wrote them.

    Args:
        path: The archive.
        name: What ``torch.jit.save`` was given it under, in ``_extra_files``.

    Returns:
        What was saved; None when the file is no such archive, or has nothing under this name.

    Raises:
        CheckpointError: If it cannot be read, or holds Python objects that loading safely refuses.
    """
    path = Path(path).expanduser()
    _check_file(path)
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            found = [entry for entry in archive.namelist() if entry.endswith(f"/extra/{name}")]
            return _load_bytes(_entry(archive, found[0])) if found else None
    except (zipfile.BadZipFile, *_FAILURES) as error:
        raise _unreadable(path, error) from error


def _load_bytes(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def sharded_advice(path: Path) -> str | None:
    """Say how a sharded checkpoint becomes one file.

    Args:
        path: Anything.

    Returns:
        What it is and the command; None if it is no sharded checkpoint.
    """
    if not (path / "meta.pt").is_file():
        return None
    return (
        f"'{path}' is a sharded checkpoint, a folder that only runs with trainer/fsdp2.yaml read; make one file of it: "
        f"farl-lightning consolidate {path} --output {path.with_name(f'{path.stem}-whole.ckpt')}"
    )


def _check_file(path: Path) -> None:
    if advice := sharded_advice(path):
        raise CheckpointError(advice)
    if path.is_dir():
        raise CheckpointError(f"'{path}' is a folder; give a file in it, such as last.ckpt")
    if not path.is_file():
        folder = path.parent
        near = did_you_mean(path.name, (f.name for f in folder.iterdir() if f.is_file())) if folder.is_dir() else ""
        raise CheckpointError(f"no file '{path}'. {near}".rstrip())
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise CheckpointError(
            f"'{path}' has {size / 2**30:.1f} GiB; files over {MAX_BYTES / 2**30:.0f} GiB are not opened"
        )


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, *_FAILURES) as error:
        raise _unreadable(path, error) from error


def _read_zip(path: Path) -> Any:
    """Read either kind of torch archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if any(name.endswith("/constants.pkl") for name in names):
                return _read_torchscript(archive, path)
    except (zipfile.BadZipFile, *_FAILURES) as error:
        raise _unreadable(path, error) from error
    return _torch_load(path, mmap=True)


def _torch_load(path: Path, mmap: bool) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except _FAILURES as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    """Say what is wrong with a file, and what to do."""
    found = re.search(r"WeightsUnpickler error: (.+)", str(error)) or re.search(r"(.+)", str(error))
    text = found[1].split(". ")[0].strip() if found else type(error).__name__
    if text == "Weights only load failed":
        text = "its content is not what torch.save writes"
    with path.open("rb") as file:
        start = file.read(12)
    if "unsupported global" in str(error).lower():
        advice = (
            "It may hold Python objects beside tensors, which are not loaded since loading them can run code. If you "
            "trust its source, load it yourself, and save the state dict alone: "
            "torch.save({'state_dict': model.state_dict()}, 'weights.pth')"
        )
    else:
        advice = "It may be cut short (download it again), or not a weights file"
    return CheckpointError(
        f"'{path}' cannot be read ({path.stat().st_size} bytes, starting {start!r}): {text}. {advice}"
    )


class _Bag:
    """Stands in for every class of a TorchScript archive: keeps attributes, runs nothing."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """Make a tensor of a stored row of numbers; the bounds are checked by ``as_strided``."""
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _first(value: Any, *_: Any) -> Any:
    return value


class _TorchScriptUnpickler(pickle.Unpickler):
    """Knows tensors, numbers and containers. Whatever else an archive names becomes a :class:`_Bag`."""

    _KNOWN: dict[tuple[str, str], Any] = {  # noqa: RUF012
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): _first,
        ("torch.jit._pickle", "build_intlist"): _first,
        ("torch.jit._pickle", "build_tensorlist"): _first,
        ("torch.jit._pickle", "build_doublelist"): _first,
        ("torch.jit._pickle", "build_boollist"): _first,
        ("torch.jit._pickle", "restore_type_tag"): _first,
    }
    _STORAGES: dict[str, torch.dtype] = {  # noqa: RUF012
        "FloatStorage": torch.float32,
        "HalfStorage": torch.float16,
        "BFloat16Storage": torch.bfloat16,
        "DoubleStorage": torch.float64,
        "LongStorage": torch.int64,
        "IntStorage": torch.int32,
        "ShortStorage": torch.int16,
        "CharStorage": torch.int8,
        "ByteStorage": torch.uint8,
        "BoolStorage": torch.bool,
    }

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(_entry(archive, f"{root}/data.pkl")))
        self.archive, self.root = archive, root
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a name; nothing is imported."""
        if module == "torch" and name in self._STORAGES:
            return self._STORAGES[name]
        return self._KNOWN.get((module, name), _Bag)

    def persistent_load(self, pid: Any) -> Tensor:
        """Read one stored row of numbers from its own entry."""
        _, dtype, key, _, count = pid
        if not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"a tensor of an unknown type in {self.root}/data.pkl")
        if key not in self.storages:
            data = bytearray(_entry(self.archive, f"{self.root}/data/{key}"))
            self.storages[key] = (
                torch.frombuffer(data, dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)
            )
        return self.storages[key]


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return one entry; torch stores entries uncompressed, so a small file cannot unfold into a huge one."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise pickle.UnpicklingError(f"entry '{name}' is compressed, which torch never writes")
    return archive.read(info)


def _read_torchscript(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    """Return the state dict of a TorchScript archive, in the order of its attributes."""
    root = next(name for name in archive.namelist() if name.endswith("/constants.pkl")).rsplit("/", 1)[0]
    module = _TorchScriptUnpickler(archive, root).load()
    state: dict[str, Any] = {}
    _collect(module, "", state)
    if not state:
        raise CheckpointError(f"'{path}' is a TorchScript archive without any tensor")
    return state


def _collect(module: Any, prefix: str, state: dict[str, Any]) -> None:
    """Gather tensors and single numbers of a tree of bags under dotted names."""
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            state[prefix + name] = value
        elif isinstance(value, _Bag):
            _collect(value, f"{prefix}{name}.", state)
