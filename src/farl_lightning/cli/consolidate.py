"""``farl-lightning consolidate``: the folder of a sharded checkpoint as one file."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.load import _METADATA_FILENAME, _load_distributed_checkpoint
from torch.distributed.checkpoint import filesystem, metadata

from farl_lightning.callbacks.checkpoint_io import AtomicCheckpointIO
from farl_lightning.callbacks.ema import CURRENT
from farl_lightning.cli.data import Parser
from farl_lightning.errors import CheckpointError, ConfigError


def run(words: list[str]) -> int:
    """Run ``farl-lightning consolidate``.

    Args:
        words: What follows ``consolidate``.

    Returns:
        The exit status.
    """
    parser = Parser(
        prog="farl-lightning consolidate",
        description="Join the shards that a run with trainer/fsdp2.yaml saved into one file. Every program that reads "
        "a checkpoint reads it; a run on any number of devices can go on from it. All weights and optimiser states "
        "must fit into memory.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="DIR", help="the sharded checkpoint, a folder with meta.pt and shards")
    parser.add_argument("--output", required=True, metavar="FILE", help="the file to write, such as last.ckpt")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there already")
    given = parser.parse_args(words)
    path = consolidate(given.folder, given.output, overwrite=given.overwrite)
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


def consolidate(folder: str | Path, output: str | Path, *, overwrite: bool = False) -> Path:
    """Join the shards of a checkpoint into one file, as a run on one device would have written it.

    Args:
        folder: What ``ModelParallelStrategy`` saved.
        output: The file; it appears whole or not at all.
        overwrite: Whether a file that is there already is replaced.

    Returns:
        The file.

    Raises:
        CheckpointError: If the folder holds no sharded checkpoint, one that is damaged, or Python objects that loading
            safely refuses.
        ConfigError: If there is something at the place of the file.
    """
    folder, output = Path(folder).expanduser(), Path(output).expanduser()
    if output.is_dir():
        raise ConfigError(f"--output {output} is a folder; give the name of a file, such as {output / 'last.ckpt'}")
    if output.exists() and not overwrite:
        raise ConfigError(f"{output} exists already; give another name, or --overwrite")
    _check_folder(folder)
    try:
        _check_content(folder)
        saved = _load_distributed_checkpoint(folder)
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, pickle.UnpicklingError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise CheckpointError(f"sharded checkpoint '{folder}' cannot be read, it may lack a shard: {reason}") from error
    AtomicCheckpointIO().save_checkpoint(as_one_device(saved), output)
    return output


def as_one_device(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Rename what a sharded checkpoint holds to what Lightning's single-file strategies read.

    Args:
        saved: ``state_dict``, ``optimizer_<n>`` with parameters by name, and what lies beside them.

    Returns:
        The same with ``optimizer_states``, parameters by number, and weights beside their average where there are two.
    """
    checkpoint = {key: value for key, value in saved.items() if not key.startswith("optimizer_")}
    count = len(saved) - len(checkpoint)
    if count:
        checkpoint["optimizer_states"] = [_by_number(saved[f"optimizer_{index}"]) for index in range(count)]
    state, inside = saved["state_dict"], f"{CURRENT}."
    current = {name.removeprefix(inside): value for name, value in state.items() if name.startswith(inside)}
    checkpoint["state_dict"] = {name: value for name, value in state.items() if not name.startswith(inside)}
    if current:
        checkpoint[CURRENT] = {**checkpoint["state_dict"], **current}
    return checkpoint


def _by_number(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """Number the parameters of an optimiser in the order of its groups, as ``Optimizer.state_dict`` does."""
    names = [name for group in optimizer["param_groups"] for name in group["params"]]
    numbers = {name: number for number, name in enumerate(names)}
    groups = [{**group, "params": [numbers[name] for name in group["params"]]} for group in optimizer["param_groups"]]
    state = optimizer.get("state", {})
    return {"state": {numbers[name]: state[name] for name in names if name in state}, "param_groups": groups}


def _check_folder(folder: Path) -> None:
    """Refuse what is no sharded checkpoint."""
    if folder.is_file():
        raise CheckpointError(f"'{folder}' is one file already")
    for name in (_METADATA_FILENAME, ".metadata"):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"'{folder}' is no sharded checkpoint: it has no {name}. Give the folder that holds meta.pt, such as "
                "runs/pretrain/version_0/checkpoints/last.ckpt"
            )


def _check_content(folder: Path) -> None:
    """Look at everything that torch would unpickle, without running it: the table of shards and the single values."""
    table = _TableUnpickler(io.BytesIO((folder / ".metadata").read_bytes())).load()
    for index, place in table.storage_data.items():
        if isinstance(table.state_dict_metadata[index.fqn], metadata.BytesStorageMetadata):
            with (folder / Path(place.relative_path).name).open("rb") as shards:
                shards.seek(place.offset)
                torch.load(io.BytesIO(shards.read(place.length)), weights_only=True)


class _TableUnpickler(pickle.Unpickler):
    """Knows the classes of a table of shards, and refuses every other name."""

    _PLAIN = frozenset({("torch", "Size"), ("torch.serialization", "_get_layout"), ("pathlib", "PosixPath")})

    def find_class(self, module: str, name: str) -> Any:
        """Return a class by its name."""
        found = getattr({"torch": torch, metadata.__name__: metadata}.get(module), name, None)
        is_table = isinstance(found, type) and found.__module__ == metadata.__name__
        is_place = (module, name) == (filesystem.__name__, "_StorageInfo")
        if is_table or is_place or isinstance(found, torch.dtype) or (module, name) in self._PLAIN:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"its table of shards names {module}.{name}, which is not loaded: it could run")
